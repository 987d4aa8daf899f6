"""The process as a whole, in one event loop, against a small API server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from local_cluster.ports import free_port

from mlperf_operator import handlers
from mlperf_operator.cluster import Cluster
from mlperf_operator.controller import Controller, serve
from mlperf_operator.reconcile import Reconciler
from mlperf_operator.settings import Settings
from unit.runtime.fake_api import FakeApi
from unit.runtime.stream_server import connected, refusal, until
from unit.sight.scraping import samples, scrape

RUNS = "/apis/mlperf.dev/v1alpha1/namespaces/bench/mlperfruns/"
JOBS = "/apis/batch/v1/namespaces/bench/jobs/"


def _run(name: str = "demo", **spec: Any) -> dict[str, Any]:
    base = {"suite": "reference-cpu", "system": "CPU_REFERENCE", "benchmarks": [{"name": "digits"}]}
    meta = {"name": name, "namespace": "bench", "uid": f"uid-of-{name}", "generation": 1}
    return {"metadata": meta, "spec": {**base, **spec}}


@pytest.fixture(autouse=True)
def wakes(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[str], None]]:
    """Kopf's place, which only wakes the queue."""
    found: list[Callable[[str], None]] = []

    async def watch(wake: Callable[[str], None]) -> None:
        found.append(wake)
        await asyncio.Event().wait()

    monkeypatch.setattr(handlers, "watch", watch)
    return found


@asynccontextmanager
async def _controlled(api: FakeApi, **settings: Any) -> AsyncIterator[Controller]:
    async with connected(api.handle) as cluster:
        controller = Controller(cluster, Settings(workers=2, **settings))
        task = asyncio.create_task(controller.run())
        try:
            yield controller
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _reason(api: FakeApi, kind: str = "Succeeded", name: str = "demo") -> str | None:
    found = api.objects[RUNS + name].get("status", {}).get("conditions", ())
    return next((str(c["reason"]) for c in found if c["type"] == kind), None)


async def test_times_are_the_servers_whatever_this_machines_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiohttp.web_response.rfc822_formatted_time", lambda: "Thu, 02 Jan 2020 03:04:05 GMT")
    api = FakeApi()
    async with _controlled(api):
        await until(lambda: len(api.watchers) == 3)
        api.put(f"{RUNS}demo", _run())
        await until(lambda: _reason(api) == "PodNotCreated")
    conditions = api.objects[f"{RUNS}demo"]["status"]["conditions"]
    assert {c["lastTransitionTime"][:16] for c in conditions} == {"2020-01-02T03:04"}


async def test_a_run_that_appears_becomes_a_job_and_two_config_maps() -> None:
    api = FakeApi()
    async with _controlled(api) as controller:
        await until(lambda: len(api.watchers) == 3)
        api.put(f"{RUNS}demo", _run())
        await until(lambda: _reason(api) == "PodNotCreated")
        await until(lambda: "bench/demo" in controller.jobs.store)
        assert JOBS + "demo" in api.objects
        posts = [request.rsplit("/", 1)[1] for request in api.requests if request.startswith("POST")]
        assert posts[:3] == ["configmaps", "configmaps", "jobs"]


async def test_a_run_is_looked_at_again_when_its_job_or_pod_changes_and_when_kopf_says_so(
    wakes: list[Callable[[str], None]],
) -> None:
    api = FakeApi()
    api.put(f"{RUNS}demo", _run())
    async with _controlled(api):
        await until(lambda: _reason(api) == "PodNotCreated")
        await until(lambda: len(api.watchers) == 3)
        api.delete(f"{JOBS}demo")
        await until(lambda: _reason(api) == "JobDeleted")
        wakes[0]("bench/nothing-of-that-name")
        api.delete(f"{RUNS}demo")
        await until(lambda: f"{RUNS}demo" not in api.objects)


async def test_every_run_is_looked_at_again_from_time_to_time() -> None:
    api = FakeApi()
    api.put(f"{RUNS}demo", _run())
    async with _controlled(api, resync_seconds=0.05):
        await until(lambda: _reason(api) == "PodNotCreated")
        before = len(api.requests)
        # The Job is gone and no watch told of it: its event was lost.
        del api.objects[f"{JOBS}demo"]
        api.put(f"{RUNS}other", _run("other", suite="nobodys"))
        await until(lambda: _reason(api, name="other") == "UnknownSuite")
        assert len(api.requests) > before


async def test_a_new_run_comes_before_what_is_to_be_told_of_others(
    wakes: list[Callable[[str], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    opened = asyncio.Event()

    async def reconcile(_self: Reconciler, key: str) -> None:
        seen.append(key)
        await opened.wait()

    monkeypatch.setattr(Reconciler, "reconcile", reconcile)
    api = FakeApi()
    async with _controlled(api) as controller:
        await until(lambda: len(api.watchers) == 3)
        for number in range(4):
            wakes[0](f"bench/old-{number}")
        api.put(f"{RUNS}demo", _run())
        await until(lambda: "bench/demo" in controller.runs.store)
        opened.set()
        await until(lambda: len(seen) == 5)
    assert seen.index("bench/demo") == 2, "two workers each had one already"


async def test_a_run_of_which_nobody_may_write_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = FakeApi()
    api.refused[f"POST {JOBS.rstrip('/')}"] = web.json_response({"code": 500}, status=500)
    api.put(f"{RUNS}demo", _run())
    api.put(f"{RUNS}other", _run("other", suite="nobodys"))
    async with _controlled(api):
        await until(lambda: _reason(api, name="other") == "UnknownSuite")
        await until(lambda: _reason(api) == "PodNotCreated")
    assert [record for record in caplog.records if "is tried again" in record.message]


async def test_a_servers_wish_to_wait_is_granted() -> None:
    api = FakeApi()
    api.refused[f"POST {JOBS.rstrip('/')}"] = refusal(429, {"Retry-After": "1"})
    api.put(f"{RUNS}demo", _run())
    async with _controlled(api):
        await until(lambda: any(request == f"POST {JOBS.rstrip('/')}" for request in api.requests))
        await asyncio.sleep(0.7)
        assert api.requests.count(f"POST {JOBS.rstrip('/')}") == 1
        await until(lambda: _reason(api) == "PodNotCreated")


async def test_a_defect_with_one_run_is_logged_whole_and_tried_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, defects = FakeApi(), [KeyError("nobody foresaw this")]
    real = Reconciler.reconcile

    async def reconcile(self: Reconciler, key: str) -> Any:
        if defects:
            raise defects.pop()
        return await real(self, key)

    monkeypatch.setattr(Reconciler, "reconcile", reconcile)
    api.put(f"{RUNS}demo", _run())
    async with _controlled(api):
        await until(lambda: _reason(api) == "PodNotCreated")
    [record] = [record for record in caplog.records if record.exc_info]
    assert "nobody foresaw" in record.message
    said = (record.run, record.namespace, record.uid)  # type: ignore[attr-defined]
    assert said == ("demo", "bench", "uid-of-demo")


NODE = "/api/v1/nodes/node-1"
READY_NODE: dict[str, Any] = {
    "metadata": {"name": "node-1", "labels": {"mlperf.dev/driver-opt-in": "install"}},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}
CATALOGUE = """
drivers:
  - branch: "550"
    version: 550.54.14
    sources:
      - type: Packages
        os: [debian]
        repository: {url: https://packages.example, key: key}
        driver: [{name: nvidia-driver, version: 550.54.14-1}]
"""


def _gpu_run() -> dict[str, Any]:
    return _run(
        suite="nvidia-v4.1",
        system="A100_SXM4_40GBx8",
        benchmarks=[{"name": "bert"}],
        scratch={"claimName": "scratch"},
        driver={"policy": "Ensure"},
    )


async def test_a_run_that_wants_a_driver_gets_its_node_changed_and_its_job_once_that_is_ready(tmp_path: Path) -> None:
    file = tmp_path / "driver.yaml"
    file.write_text(CATALOGUE)
    api = FakeApi()
    api.put(NODE, READY_NODE)
    api.put(f"{RUNS}demo", _gpu_run())
    async with _controlled(api, driver_file=file, namespace="mlperf-system") as controller:
        assert len(controller.informers) == 6
        await until(lambda: _reason(api, "DriverReady") == "DriverInstalling")
        await until(lambda: "mlperf.dev/driver-wanted" in api.objects[NODE]["metadata"]["labels"])
        assert api.objects[NODE]["spec"]["unschedulable"] is True
        await until(lambda: "/apis/apps/v1/namespaces/mlperf-system/daemonsets/mlperf-driver-550-54-14" in api.objects)
        assert f"{JOBS}demo" not in api.objects
        api.objects[NODE]["metadata"]["labels"]["mlperf.dev/driver-ready"] = "550.54.14"
        api.put(NODE, api.objects[NODE], "MODIFIED")
        await until(lambda: f"{JOBS}demo" in api.objects)
    job = api.objects[f"{JOBS}demo"]["spec"]["template"]["spec"]
    assert "mlperf.dev/driver-ready" in json.dumps(job["affinity"])


@pytest.fixture
def _quiet() -> Iterator[None]:
    """Serving takes the root logger's handlers over; they are given back."""
    root, level = list(logging.getLogger().handlers), logging.getLogger().level
    yield
    logging.getLogger().handlers[:] = root
    logging.getLogger().setLevel(level)


@pytest.mark.usefixtures("_quiet")
async def test_a_process_leads_until_it_is_told_to_end_and_gives_its_lease_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = FakeApi()
    api.put(f"{RUNS}demo", _run())
    lease = "/apis/coordination.k8s.io/v1/namespaces/mlperf-system/leases/mlperf-operator"
    async with connected(api.handle) as cluster:

        @asynccontextmanager
        async def environment(cls: type[Cluster]) -> AsyncIterator[Cluster]:
            yield cluster

        monkeypatch.setattr(Cluster, "from_environment", classmethod(environment))
        metrics_port = free_port()
        settings = Settings(health_port=free_port(), metrics_port=metrics_port, identity="me", lease_retry_seconds=0.1)
        task = asyncio.create_task(serve(settings))
        await until(lambda: _reason(api) == "PodNotCreated")
        shown = await scrape(metrics_port)
        assert 'leader_election_master_status{name="mlperf-operator"} 1.0' in shown
        [(labels, count)] = samples(shown, "mlperf_runs")
        assert (labels["state"], labels["reason"], count) == ("Pending", "PodNotCreated", 1)
        assert 'controller_runtime_max_concurrent_reconciles{controller="mlperfrun"} 16.0' in shown
        assert api.objects[lease]["spec"]["holderIdentity"] == "me"
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 5)
    assert api.objects[lease]["spec"]["holderIdentity"] == ""
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"leading as me"} <= {line["msg"] for line in lines}
    assert {"run": "demo", "namespace": "bench", "uid": "uid-of-demo"}.items() <= next(
        line for line in lines if line["msg"].startswith("JobCreated")
    ).items()
