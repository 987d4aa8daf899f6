"""Any sequence of calls against a plain model of client-go's workqueue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlperf_operator.queue import BASE_DELAY_SECONDS, MAX_DELAY_SECONDS, URGENT_IN_A_ROW, WorkQueue
from unit.runtime.skipping_loop import SkippingLoop

keys = st.sampled_from("abc")


class QueueMachine(RuleBasedStateMachine):
    """Drives a queue and its model side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SkippingLoop()
        self.queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1.0)
        self.now = 0.0
        self.ready: list[str] = []
        self.again: set[str] = set()
        self.working: set[str] = set()
        self.urgent: list[str] = []
        self.hurried: set[str] = set()
        self.in_a_row = 0
        self.delayed: dict[str, tuple[float, int]] = {}
        self.failures: dict[str, int] = {}
        self.calls = 0

    def teardown(self) -> None:
        self.loop.close()

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        async def call() -> None:
            function(*arguments)

        self.loop.run_until_complete(call())

    def _model_add(self, key: str) -> None:
        if key in self.working:
            self.again.add(key)
        elif key not in (*self.ready, *self.urgent):
            self._model_push(key)

    def _model_push(self, key: str) -> None:
        (self.urgent if key in self.hurried else self.ready).append(key)

    def _model_delay(self, key: str, seconds: float) -> None:
        self.calls += 1
        due = self.now + seconds
        if key not in self.delayed or due < self.delayed[key][0]:
            self.delayed[key] = (due, self.calls)

    @rule(key=keys)
    def add(self, key: str) -> None:
        self._call(self.queue.add, key)
        self._model_add(key)

    @rule(key=keys)
    def add_urgent(self, key: str) -> None:
        self._call(partial(self.queue.add, urgent=True), key)
        self.hurried.add(key)
        if key in self.ready:
            self.ready.remove(key)
        self._model_add(key)

    @rule(key=keys, seconds=st.integers(1, 20))
    def add_after(self, key: str, seconds: int) -> None:
        self._call(self.queue.add_after, key, seconds)
        self._model_delay(key, seconds)

    @rule(key=keys)
    def add_rate_limited(self, key: str) -> None:
        failures = self.failures.get(key, 0)
        self._call(self.queue.add_rate_limited, key)
        self._model_delay(key, min(MAX_DELAY_SECONDS, BASE_DELAY_SECONDS * 2**failures))
        self.failures[key] = failures + 1

    @rule(key=keys)
    def forget(self, key: str) -> None:
        self._call(self.queue.forget, key)
        self.failures.pop(key, None)

    @precondition(lambda self: self.ready or self.urgent)
    @rule()
    def get(self) -> None:
        key = self.loop.run_until_complete(self.queue.get())
        assert key not in self.working
        others_turn = self.ready and self.in_a_row == URGENT_IN_A_ROW
        urgent = self.urgent and not others_turn
        assert key == (self.urgent if urgent else self.ready).pop(0)
        self.in_a_row = min(self.in_a_row + 1, URGENT_IN_A_ROW) if urgent else 0
        self.hurried.discard(key)
        self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self._call(self.queue.done, key)
        self.working.discard(key)
        if key in self.again:
            self.again.discard(key)
            self._model_push(key)

    @rule(seconds=st.sampled_from([0.25, 1.0, 7.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.now += seconds
        for (due, _), key in sorted((when, key) for key, when in self.delayed.items()):
            if due <= self.now:
                del self.delayed[key]
                self._model_add(key)

    @invariant()
    def as_many_are_ready(self) -> None:
        assert len(self.queue) == len(self.ready) + len(self.urgent)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_backoff_ends_at_its_cap() -> None:
    loop = SkippingLoop()

    async def wait_for_it() -> float:
        queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1.0)
        waited = 0.0
        for _ in range(50):
            started = loop.time()
            queue.add_rate_limited("a")
            await queue.get()
            queue.done("a")
            waited = loop.time() - started
        return waited

    try:
        assert round(loop.run_until_complete(wait_for_it())) == MAX_DELAY_SECONDS
    finally:
        loop.close()
