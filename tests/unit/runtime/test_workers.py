"""How a worker goes on after a key was done, was refused, or showed a defect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from mlperf_operator.cluster import ApiError
from mlperf_operator.metrics import UNSEEN
from mlperf_operator.queue import WorkQueue
from mlperf_operator.workers import Reconcile, work
from unit.runtime.stream_server import until

logger = logging.getLogger("test")


@asynccontextmanager
async def _working(reconcile: Reconcile) -> AsyncIterator[WorkQueue[str]]:
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 0.1)
    task = asyncio.create_task(work(queue, reconcile, lambda _key: logger, UNSEEN.controller("test", 1)))
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_comes_again_when_its_reconciler_says_so_and_else_not() -> None:
    seen: list[str] = []

    async def reconcile(key: str) -> timedelta | None:
        seen.append(key)
        return timedelta(seconds=0.02) if seen.count("again") < 3 and key == "again" else None

    async with _working(reconcile) as queue:
        queue.add("again")
        queue.add("once")
        await until(lambda: seen.count("again") == 3)
        await asyncio.sleep(0.06)
    assert seen.count("again") == 3
    assert seen.count("once") == 1


@pytest.mark.parametrize(
    ("error", "word"),
    [(ApiError(500, "InternalError", "no"), "is tried again: 500"), (KeyError("defect"), "nobody foresaw")],
    ids=["refused", "defect"],
)
async def test_an_error_is_logged_and_its_key_tried_again_while_others_go_on(
    error: Exception, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    async def reconcile(key: str) -> timedelta | None:
        seen.append(key)
        if key == "bad" and seen.count("bad") < 3:
            raise error
        return None

    async with _working(reconcile) as queue:
        queue.add("bad")
        queue.add("good")
        await until(lambda: seen.count("bad") == 3)
    assert seen[:2] == ["bad", "good"]
    assert [record for record in caplog.records if word in record.getMessage()]


async def test_the_servers_wish_to_wait_is_granted() -> None:
    seen: list[float] = []

    async def reconcile(_key: str) -> timedelta | None:
        seen.append(asyncio.get_running_loop().time())
        if len(seen) == 1:
            raise ApiError(429, "TooManyRequests", "later", 0.2)
        return None

    async with _working(reconcile) as queue:
        queue.add("a")
        await until(lambda: len(seen) == 2)
    assert seen[1] - seen[0] >= 0.19


async def test_a_cancelled_worker_leaves_its_key_for_nobody_to_hold() -> None:
    begun = asyncio.Event()

    async def reconcile(_key: str) -> timedelta | None:
        begun.set()
        await asyncio.Event().wait()
        return None

    async with _working(reconcile) as queue:
        queue.add("a")
        await begun.wait()
    queue.add("a")
    assert len(queue) == 1
