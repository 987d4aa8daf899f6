"""When the operator calls itself healthy and ready."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
from local_cluster.ports import free_port

from mlperf_operator import health as health_module
from mlperf_operator.health import MAX_SILENCE_SECONDS, Health


class _Stream:
    def __init__(self, *, synced: bool, age: float = 0.0) -> None:
        self.synced = asyncio.Event()
        if synced:
            self.synced.set()
        self.last_activity = time.monotonic() - age


async def _ask(streams: list[_Stream], *, leader: bool, path: str) -> tuple[int, str]:
    port = free_port()
    async with (
        Health(port, streams, is_leader=lambda: leader).serving(),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text()


async def test_a_leader_with_live_streams_is_healthy_and_ready() -> None:
    streams = [_Stream(synced=True)]
    assert await _ask(streams, leader=True, path="/healthz") == (200, "ok")
    assert await _ask(streams, leader=True, path="/readyz") == (200, "leader")


async def test_a_leader_whose_stream_fell_silent_is_unhealthy() -> None:
    status, text = await _ask([_Stream(synced=True, age=MAX_SILENCE_SECONDS + 1)], leader=True, path="/healthz")
    assert status == 500
    assert "no event or bookmark" in text


async def test_a_leader_is_not_ready_before_its_informers_have_synced() -> None:
    assert (await _ask([_Stream(synced=False)], leader=True, path="/readyz"))[0] == 503


async def test_a_standby_is_ready_and_healthy_without_streams() -> None:
    streams = [_Stream(synced=False, age=MAX_SILENCE_SECONDS + 1)]
    assert await _ask(streams, leader=False, path="/healthz") == (200, "ok")
    assert await _ask(streams, leader=False, path="/readyz") == (200, "standby")


async def test_a_blocked_event_loop_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "MAX_LOOP_LAG_SECONDS", 0.2)
    health = Health(free_port(), [], is_leader=lambda: False)
    async with health.serving():
        await asyncio.sleep(0.01)
        time.sleep(1)  # noqa: ASYNC251 - blocking is what is tested
        await asyncio.sleep(0.05)
        assert any("blocked" in problem for problem in health.problems())
