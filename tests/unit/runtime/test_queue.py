"""The work queue, with the meaning that client-go gives its words."""

from __future__ import annotations

import asyncio

from mlperf_operator.queue import URGENT_IN_A_ROW, WorkQueue
from unit.runtime.skipping_loop import SkippingLoop


async def _next(queue: WorkQueue[str], seconds: float = 1.0) -> str:
    async with asyncio.timeout(seconds):
        return await queue.get()


async def test_a_key_added_twice_is_handed_out_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert await _next(queue) == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_key_added_while_it_is_worked_on_comes_again_only_when_that_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await _next(queue)
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await _next(queue) == "a"


async def test_keys_come_in_the_order_in_which_they_were_added() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "abc":
        queue.add(key)
    assert [await _next(queue) for _ in range(3)] == ["a", "b", "c"]


async def test_of_several_delays_the_earliest_counts_and_the_key_comes_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 30)
    queue.add_after("a", 0.01)
    queue.add_after("a", 60)
    assert await _next(queue) == "a"
    queue.done("a")
    await asyncio.sleep(0.05)
    assert len(queue) == 0


async def test_no_delay_means_now() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0)
    assert len(queue) == 1


async def test_a_worker_that_waits_is_woken() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(_next(queue))
    await asyncio.sleep(0)
    queue.add("a")
    assert await waiting == "a"


def test_failures_wait_longer_each_time_until_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1.0)

    async def wait() -> float:
        started = asyncio.get_running_loop().time()
        queue.add_rate_limited("a")
        await queue.get()
        queue.done("a")
        return asyncio.get_running_loop().time() - started

    async def waits() -> list[float]:
        found = [await wait() for _ in range(3)]
        queue.forget("a")
        return [*found, await wait()]

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        assert runner.run(waits()) == [0.25, 0.5, 1.0, 0.25]


def test_a_failure_waits_as_long_as_the_server_asks_for() -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1.0)

    async def wait() -> float:
        queue.add_rate_limited("a", 7.0)
        await queue.get()
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        assert runner.run(wait()) == 7.0


async def test_an_urgent_key_overtakes_others_that_wait() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "abc":
        queue.add(key)
    queue.add("d", urgent=True)
    queue.add("b", urgent=True)
    assert len(queue) == 4
    assert [await _next(queue) for _ in range(4)] == ["d", "b", "a", "c"]


async def test_a_key_that_becomes_urgent_while_it_is_worked_on_overtakes_when_it_comes_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await _next(queue)
    queue.add("b")
    queue.add("a", urgent=True)
    queue.done("a")
    assert [await _next(queue) for _ in range(2)] == ["a", "b"]


async def test_urgency_ends_when_the_key_is_handed_out() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", urgent=True)
    await _next(queue)
    queue.done("a")
    queue.add("b")
    queue.add("a")
    assert [await _next(queue) for _ in range(2)] == ["b", "a"]


async def test_many_urgent_keys_let_others_through() -> None:
    queue: WorkQueue[int] = WorkQueue()
    queue.add(1000)
    for key in range(100):
        queue.add(key, urgent=True)
    async with asyncio.timeout(1):
        found = [await queue.get() for _ in range(URGENT_IN_A_ROW + 1)]
    assert found == [*range(URGENT_IN_A_ROW), 1000]
