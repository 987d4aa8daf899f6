"""What kopf is asked to do, which is little."""

from __future__ import annotations

import itertools
from typing import Any

import kopf
import pytest
from aiohttp import web
from local_cluster.ports import free_port

from mlperf_operator.handlers import EndlessBackoffs, registry, watch
from mlperf_operator.informer import PAGE_SIZE
from mlperf_operator.site import site


def _functions(found: kopf.OperatorRegistry) -> dict[str, Any]:
    entries = [*found._activities.get_all_handlers(), *found._watching.get_all_handlers()]
    return {str(entry.id).rsplit(".", maxsplit=1)[-1]: entry.fn for entry in entries}


async def test_an_event_of_a_run_does_nothing_but_wake_the_queue() -> None:
    woken: list[str] = []
    found = registry(woken.append)
    await _functions(found)["changed"](namespace="bench", name="demo", body={}, type="DELETED")
    assert woken == ["bench/demo"]
    assert len(found._watching.get_all_handlers()) == 1
    assert not found._changing.get_all_handlers(), "a handler of changes would write annotations"
    assert not found._spawning.get_all_handlers(), "a timer or daemon would add a finalizer"


async def test_kopf_neither_posts_events_nor_gives_up() -> None:
    settings = kopf.OperatorSettings()
    await _functions(registry(lambda _: None))["configure"](settings=settings)
    assert settings.posting.enabled is False
    assert settings.scanning.disabled is True
    assert isinstance(settings.networking.error_backoffs, EndlessBackoffs)


async def test_kopf_copies_no_object_and_lists_runs_in_pages() -> None:
    settings = kopf.OperatorSettings()
    await _functions(registry(lambda _: None))["configure"](settings=settings)
    storage, body = settings.persistence.diffbase_storage, kopf.Body({"spec": {"a": 1}})
    assert storage.build(body=body) == {}
    assert storage.fetch(body=body) is None
    assert settings.watching.chunk_size == PAGE_SIZE


def test_pauses_grow_to_a_cap_and_never_end() -> None:
    pauses = list(itertools.islice(EndlessBackoffs(), 50))
    assert 0.8 <= pauses[0] <= 1.2
    assert all(48 <= pause <= 72 for pause in pauses[6:])


METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"


@pytest.mark.parametrize(("query", "accepted"), [("", "*/*"), ("?watch=true", METADATA)], ids=["list", "watch"])
async def test_kopf_logs_in_as_ever_and_watches_metadata_alone(
    monkeypatch: pytest.MonkeyPatch, query: str, accepted: str
) -> None:
    port, asked = free_port(), dict[str, str]()

    async def answer(request: web.Request) -> web.Response:
        asked.update(request.headers)
        return web.Response()

    login = kopf.ConnectionInfo(server=f"http://127.0.0.1:{port}", token="secret")  # noqa: S106 - nobody's
    monkeypatch.setattr(kopf, "login_via_client", lambda **_: login)
    found = await _functions(registry(lambda _: None))["login"](logger=None)
    assert found.server == login.server
    async with site(port, [web.get("/runs", answer)]), found.aiohttp_session as session:
        await session.get(f"{found.server}/runs{query}")
    assert asked["Authorization"] == "Bearer secret"
    assert asked["Accept"] == accepted


async def test_kopf_is_told_when_there_are_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kopf, "login_via_client", lambda **_: None)
    assert await _functions(registry(lambda _: None))["login"](logger=None) is None


async def test_kopf_runs_alone_for_all_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    async def operator(**kwargs: Any) -> None:
        asked.update(kwargs)

    monkeypatch.setattr(kopf, "operator", operator)
    await watch(lambda _: None)
    assert asked.pop("registry")
    assert asked == {"standalone": True, "clusterwide": True, "identity": "mlperf-operator"}
