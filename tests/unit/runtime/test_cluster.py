"""How the client tells what went wrong, and when it refuses to write."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import web
from kubernetes.aio import client

from mlperf_operator.cluster import (
    CONFIG_MAPS,
    DAEMON_SETS,
    JOBS,
    LEASES,
    MLPERF_RUNS,
    NODES,
    PODS,
    ApiError,
    Cluster,
    NotLeaderError,
)
from mlperf_operator.driver_controller import WORKERS
from mlperf_operator.settings import Settings
from unit.runtime.stream_server import connected


class Requests:
    """Answers every request the same way and counts them."""

    def __init__(self, answer: Callable[[], web.Response]) -> None:
        self.answer = answer
        self.seen: list[str] = []
        self.urls: list[str] = []
        self.bodies: list[Any] = []
        self.types: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(f"{request.method} {request.path}")
        self.urls.append(str(request.rel_url))
        self.types.append(request.content_type)
        self.bodies.append(json.loads(await request.read() or b"null"))
        return self.answer()


def status(code: int, reason: str, **headers: str) -> Callable[[], web.Response]:
    body = {"kind": "Status", "code": code, "reason": reason, "message": f"{reason} it is"}
    return lambda: web.json_response(body, status=code, headers=headers)


WRITES: list[Callable[[Cluster], Awaitable[Any]]] = [
    lambda c: c.create({"kind": "Job", "metadata": {"namespace": "n", "name": "a"}}),
    lambda c: c.delete(JOBS, "n", "a", "uid"),
    lambda c: c.set_job_suspend("n", "a", "uid", suspend=True),
    lambda c: c.apply_run_status("n", "a", "uid", "1", {}),
    lambda c: c.emit_event({"metadata": {"namespace": "n", "name": "a"}}),
    lambda c: c.patch_node("a", "1", {}),
    lambda c: c.apply({"kind": "DaemonSet", "metadata": {"namespace": "n", "name": "a"}}),
    lambda c: c.evict("n", "a", "uid"),
]


@pytest.mark.parametrize("write", WRITES)
async def test_who_does_not_lead_sends_no_write(write: Callable[[Cluster], Awaitable[Any]]) -> None:
    requests = Requests(lambda: web.json_response({"metadata": {"uid": "uid", "resourceVersion": "1"}}))
    async with connected(requests.handle) as cluster:
        cluster.guard = lambda: False
        with pytest.raises(NotLeaderError):
            await write(cluster)
    assert [request for request in requests.seen if not request.startswith("GET ")] == []


async def test_who_does_not_lead_may_read() -> None:
    async with connected(Requests(lambda: web.json_response({"a": 1})).handle) as cluster:
        cluster.guard = lambda: False
        assert await cluster.get(JOBS, "n", "a") == {"a": 1}


async def test_a_refusal_carries_the_servers_words_and_its_wish_to_wait() -> None:
    answer = status(429, "TooManyRequests", **{"Retry-After": "7"})
    async with connected(Requests(answer).handle) as cluster:
        with pytest.raises(ApiError, match="429 TooManyRequests: TooManyRequests it is") as caught:
            await cluster.get(JOBS, "n", "a")
    assert (caught.value.status, caught.value.retry_after) == (429, 7.0)


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        pytest.param(lambda: web.Response(text="<html>login</html>"), 0, "not a JSON object", id="page"),
        pytest.param(lambda: web.json_response([1]), 0, "not a JSON object", id="list"),
        pytest.param(lambda: web.Response(status=502, text="bad gateway"), 502, "bad gateway", id="proxy-error"),
        pytest.param(lambda: web.Response(status=503), 503, "Service Unavailable", id="empty"),
        pytest.param(lambda: web.json_response(["x"], status=500), 500, "x", id="error-of-another-shape"),
    ],
)
async def test_an_answer_of_a_proxy_is_an_error_of_the_api(
    answer: Callable[[], web.Response], code: int, words: str
) -> None:
    async with connected(Requests(answer).handle) as cluster:
        with pytest.raises(ApiError, match=words) as caught:
            await cluster.get(MLPERF_RUNS, "n", "a")
    assert caught.value.status == code


async def test_a_server_that_is_not_there_has_status_zero() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        configuration = client.Configuration(host=f"http://127.0.0.1:{taken.getsockname()[1]}")
        async with client.ApiClient(configuration) as api:
            with pytest.raises(ApiError, match="no answer from the API server") as caught:
                await Cluster(api).get(JOBS, "n", "a")
    assert caught.value.status == 0


def kubeconfig(file: Path, server: str) -> str:
    """Write a kubeconfig of a server and return its path."""
    entry = {"name": "x", "cluster": {"server": server}, "user": {"token": "t"}}
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    file.write_text(json.dumps({"clusters": [entry], "users": [entry], "contexts": [context], "current-context": "x"}))
    return str(file)


async def test_the_kubeconfig_that_the_environment_names_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Requests(lambda: web.json_response({"a": 1}))
    async with connected(requests.handle) as other:
        monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path / "kubeconfig", other._api.configuration.host))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
        async with Cluster.from_environment() as cluster:
            assert await cluster.get(JOBS, "n", "a") == {"a": 1}


async def test_the_lease_finds_a_connection_while_every_worker_waits_for_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        if request.method == "PATCH":
            await hangs.wait()
        return web.json_response({"kind": "Lease"})

    workers = Settings.model_json_schema()["properties"]["workers"]["maximum"] + WORKERS
    async with connected(handle) as other:
        monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path / "kubeconfig", other._api.configuration.host))
        async with Cluster.from_environment() as cluster, asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(cluster.set_job_suspend("n", "a", "uid", suspend=True))
            await asyncio.sleep(0)
            async with asyncio.timeout(10):
                assert await cluster.get(LEASES, "n", "a") == {"kind": "Lease"}
            hangs.set()


async def test_a_log_is_text_whatever_its_bytes() -> None:
    requests = Requests(lambda: web.Response(body=b"a\xff\n"))
    async with connected(requests.handle) as cluster:
        assert await cluster.read_log("n", "p", "c") == "a\ufffd\n"


@pytest.mark.parametrize("answer", [status(404, "NotFound"), status(409, "Conflict")])
async def test_deleting_what_is_gone_or_made_anew_is_no_error(answer: Callable[[], web.Response]) -> None:
    async with connected(Requests(answer).handle) as cluster:
        await cluster.delete(JOBS, "n", "a", "uid")


async def test_an_event_told_before_is_no_error_and_another_conflict_is() -> None:
    event = {"metadata": {"namespace": "n", "name": "a"}}
    async with connected(Requests(status(409, "AlreadyExists")).handle) as cluster:
        await cluster.emit_event(event)
    async with connected(Requests(status(409, "Conflict")).handle) as cluster:
        with pytest.raises(ApiError):
            await cluster.emit_event(event)


def _ok(**body: Any) -> Requests:
    return Requests(lambda: web.json_response(body))


async def test_a_node_is_patched_only_as_it_was_read() -> None:
    requests = _ok(metadata={"name": "node-1"})
    async with connected(requests.handle) as cluster:
        await cluster.patch_node("node-1", "7", {"metadata": {"labels": {"a": None}}, "spec": {"unschedulable": True}})
        await cluster.patch_node("node-1", "8", {"spec": {}})
    assert requests.seen == ["PATCH /api/v1/nodes/node-1"] * 2
    assert requests.types == ["application/merge-patch+json"] * 2
    assert requests.bodies == [
        {"metadata": {"labels": {"a": None}, "resourceVersion": "7"}, "spec": {"unschedulable": True}},
        {"metadata": {"resourceVersion": "8"}, "spec": {}},
    ]


async def test_what_is_wholly_ours_is_applied_by_force_as_the_operator() -> None:
    requests, body = _ok(kind="DaemonSet"), {"kind": "DaemonSet", "metadata": {"namespace": "n", "name": "a"}}
    async with connected(requests.handle) as cluster:
        assert await cluster.apply(body) == {"kind": "DaemonSet"}
    assert requests.urls == ["/apis/apps/v1/namespaces/n/daemonsets/a?fieldManager=mlperf-operator&force=true"]
    assert (requests.types, requests.bodies) == (["application/apply-patch+yaml"], [body])


async def test_an_eviction_is_of_exactly_this_pod() -> None:
    requests = _ok()
    async with connected(requests.handle) as cluster:
        await cluster.evict("n", "a", "uid")
    assert requests.seen == ["POST /api/v1/namespaces/n/pods/a/eviction"]
    assert requests.bodies[0]["kind"] == "Eviction"
    assert requests.bodies[0]["deleteOptions"] == {"preconditions": {"uid": "uid"}}


@pytest.mark.parametrize("answer", [status(404, "NotFound"), status(409, "Conflict")])
async def test_evicting_what_is_gone_or_made_anew_is_no_error(answer: Callable[[], web.Response]) -> None:
    async with connected(Requests(answer).handle) as cluster:
        await cluster.evict("n", "a", "uid")


@pytest.mark.parametrize("answer", [status(429, "TooManyRequests"), status(403, "Forbidden")])
async def test_an_eviction_that_is_refused_is_an_error(answer: Callable[[], web.Response]) -> None:
    async with connected(Requests(answer).handle) as cluster:
        with pytest.raises(ApiError):
            await cluster.evict("n", "a", "uid")


async def test_the_pods_of_a_node_are_those_that_have_not_ended_of_all_namespaces() -> None:
    requests = _ok(items=[{"metadata": {"name": "p"}}])
    async with connected(requests.handle) as cluster:
        assert await cluster.pods_on("node-1") == [{"metadata": {"name": "p"}}]
    assert [unquote(url) for url in requests.urls] == [
        "/api/v1/pods?fieldSelector=spec.nodeName=node-1,status.phase!=Succeeded,status.phase!=Failed"
    ]


async def test_a_kind_may_be_listed_and_watched_in_one_namespace_only() -> None:
    requests = _ok(items=[])
    async with connected(requests.handle) as cluster:
        assert await cluster.list_in(DAEMON_SETS, "n", "a=b") == []
        await cluster.list_page(PODS.within("n"), {})
        await cluster.list_page(PODS, {})
        await cluster.get(NODES, None, "node-1")
    assert requests.urls == [
        "/apis/apps/v1/namespaces/n/daemonsets?labelSelector=a%3Db",
        "/api/v1/namespaces/n/pods",
        "/api/v1/pods",
        "/api/v1/nodes/node-1",
    ]


async def test_of_a_log_the_last_lines_may_be_asked_for() -> None:
    requests = Requests(lambda: web.Response(text="last"))
    async with connected(requests.handle) as cluster:
        await cluster.read_log("n", "p", "c")
        assert await cluster.read_log("n", "p", "c", last_lines=1) == "last"
    assert ["tailLines" in url for url in requests.urls] == [False, True]
    assert "tailLines=1" in requests.urls[1]


async def test_a_write_whose_connection_came_after_the_lease_was_lost_is_never_sent() -> None:
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.method)
        return web.json_response({"metadata": {}})

    body = {"kind": "ConfigMap", "metadata": {"namespace": "n", "name": "late"}}
    async with connected(handle) as cluster:
        # A new connection first, then one that is used again: the Lease is lost between the question and the sending.
        for before in ([], ["GET"]):
            held = iter([True, False])
            cluster.guard = lambda held=held: next(held)  # type: ignore[misc]
            with pytest.raises(NotLeaderError):
                await cluster.create(body)
            assert seen == before
            await cluster.get(CONFIG_MAPS, "n", "late")
