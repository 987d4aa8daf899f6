"""The Lease against a server that fails in ways that a real one cannot be made to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from mlperf_operator.lease import Lease, LostLeadershipError
from unit.runtime.stream_server import connected

DURATION, DEADLINE, RETRY = 1, 0.5, 0.05


class LeaseServer:
    """Stores one Lease, with conflicts; `fault` may answer a request in its place."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.version = 0
        self.fault: Callable[[web.Request], Awaitable[web.Response | None]] | None = None

    async def handle(self, request: web.Request) -> web.Response:
        refused = await self.fault(request) if self.fault else None
        return refused or self.answer(request.method, await request.json() if request.can_read_body else {})

    def answer(self, method: str, body: dict[str, Any]) -> web.Response:
        if method == "GET":
            return web.json_response(self.stored) if self.stored else _refusal(404)
        if method == "PUT" and body["metadata"]["resourceVersion"] != str(self.version):
            return _refusal(409)
        self.version += 1
        self.stored = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return web.json_response(self.stored)

    @property
    def holder(self) -> str:
        """Who holds the Lease."""
        return str(self.stored["spec"]["holderIdentity"]) if self.stored else ""


def _refusal(code: int) -> web.Response:
    return web.json_response({"code": code, "reason": "R", "message": "no"}, status=code)


async def _for_ever() -> None:
    await asyncio.sleep(3600)


@asynccontextmanager
async def leading(server: LeaseServer, identity: str = "first") -> AsyncIterator[tuple[Lease, asyncio.Task[None]]]:
    async with connected(server.handle) as cluster:
        lease = Lease(
            cluster,
            namespace="n",
            name="l",
            identity=identity,
            duration=DURATION,
            renew_deadline=DEADLINE,
            retry_period=RETRY,
        )
        task = asyncio.create_task(lease.run(_for_ever))
        try:
            yield lease, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def held(lease: Lease, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not lease.held:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def test_the_lease_is_released_at_the_end() -> None:
    server = LeaseServer()
    async with leading(server) as (lease, _):
        await held(lease)
        assert server.holder == "first"
    assert server.stored is not None
    assert server.holder == ""


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_requests_that_hang_end_the_leadership_in_time(method: str) -> None:
    async def hang(request: web.Request) -> web.Response | None:
        if request.method == method:
            await asyncio.sleep(30)
        return None

    server = LeaseServer()
    async with leading(server) as (lease, task):
        await held(lease)
        server.fault, cut = hang, time.monotonic()
        with pytest.raises(LostLeadershipError):
            await task
        assert time.monotonic() - cut < DURATION


async def test_a_few_failures_do_not_end_the_leadership() -> None:
    failures = iter([500, 429, 409, 503])

    async def fail(_: web.Request) -> web.Response | None:
        code = next(failures, None)
        return _refusal(code) if code else None

    server = LeaseServer()
    async with leading(server) as (lease, task):
        await held(lease)
        server.fault = fail
        await asyncio.sleep(2 * DEADLINE)
        assert next(failures, None) is None
        assert lease.held
        assert not task.done()


async def test_a_win_whose_answer_was_lost_counts_only_when_it_is_seen() -> None:
    server = LeaseServer()
    lost: list[str] = []

    async def lose_first_win(request: web.Request) -> web.Response | None:
        if request.method == "POST" and not lost:
            server.answer("POST", await request.json())
            lost.append(server.holder)
            return _refusal(500)
        return None

    server.fault = lose_first_win
    async with leading(server) as (lease, _):
        await held(lease)
        assert lost == ["first"]
        assert server.stored is not None
        assert server.stored["spec"]["leaseTransitions"] == 0


async def test_a_release_that_hangs_does_not_keep_the_process() -> None:
    async def hang(_: web.Request) -> web.Response | None:
        await asyncio.sleep(30)
        return None

    server = LeaseServer()
    async with leading(server) as (lease, task):
        await held(lease)
        server.fault, stopped = hang, time.monotonic()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert time.monotonic() - stopped < DEADLINE


async def test_the_clock_of_another_does_not_matter() -> None:
    server = LeaseServer()
    spec = {"holderIdentity": "other", "leaseDurationSeconds": DURATION, "renewTime": "1999-01-01T00:00:00.000000Z"}
    server.answer("POST", {"metadata": {"namespace": "n", "name": "l"}, "spec": spec})
    started = time.monotonic()
    async with leading(server) as (lease, _):
        await held(lease)
        assert time.monotonic() - started >= DURATION
        assert server.stored is not None
        assert server.stored["spec"]["leaseTransitions"] == 1
