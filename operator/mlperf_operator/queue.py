"""A deduplicating work queue with delays and backoff, with the meaning that client-go's workqueue gives these words."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from mlperf_operator.metrics import UNSEEN, Metrics

K = TypeVar("K", bound=Hashable)

BASE_DELAY_SECONDS = 0.25
MAX_DELAY_SECONDS = 300.0

URGENT_IN_A_ROW = 3
"""Urgent keys that come before one that is not: however many there are, the others get on."""


class WorkQueue(Generic[K]):
    """Keys to work on. A key is handed to one worker at a time, and once however often it was added before."""

    def __init__(
        self,
        name: str = "",
        metrics: Metrics = UNSEEN,
        *,
        jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2),  # noqa: S311
    ) -> None:
        self._urgent: OrderedDict[K, None] = OrderedDict()
        self._ready: OrderedDict[K, None] = OrderedDict()
        """Both: keys that wait for a worker, in their order."""
        self._in_a_row = 0
        self._hurried: set[K] = set()
        """Keys that are to be urgent when they wait next."""
        self._dirty: dict[K, float] = {}
        self._processing: dict[K, float] = {}
        """Both: since when, by `time.monotonic`."""
        self._failures: dict[K, int] = {}
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._wakeup = asyncio.Event()
        self._jitter = jitter
        # Asked by another thread, to which a list of a dict's values is whole.
        self._metrics = metrics.queue(name, self.__len__, lambda: list(self._processing.values()))

    def __len__(self) -> int:
        return len(self._urgent) + len(self._ready)

    def add(self, key: K, *, urgent: bool = False) -> None:
        """Add a key now; one that is being worked on comes again when that is done. An urgent one overtakes others."""
        if urgent:
            self._hurried.add(key)
        if key in self._dirty:
            if urgent and key in self._ready:
                del self._ready[key]
                self._push(key)
            return
        self._dirty[key] = time.monotonic()
        self._metrics.added()
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Add a key after a delay; of several delays the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        due = asyncio.get_running_loop().time() + seconds
        if self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._arm()

    def add_rate_limited(self, key: K, at_least: float = 0.0) -> None:
        """Add a key after a delay that doubles with each failure since `forget`, and not before the server wants it."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._metrics.retried()
        delay = min(MAX_DELAY_SECONDS, BASE_DELAY_SECONDS * 2 ** min(failures, 20)) * self._jitter()
        self.add_after(key, max(delay, at_least))

    def forget(self, key: K) -> None:
        """Start the key's backoff from the beginning."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for a key and return it; `done` must follow."""
        while not len(self):
            self._wakeup.clear()
            await self._wakeup.wait()
        key = self._take()
        now = time.monotonic()
        self._metrics.taken(now - self._dirty.pop(key))
        self._processing[key] = now
        return key

    def done(self, key: K) -> None:
        """Say that the work on a key has ended."""
        since = self._processing.pop(key, None)
        if since is not None:
            self._metrics.done(time.monotonic() - since)
        if key in self._dirty:
            self._push(key)

    def _push(self, key: K) -> None:
        (self._urgent if key in self._hurried else self._ready)[key] = None
        self._wakeup.set()

    def _take(self) -> K:
        urgent = bool(self._urgent) and (self._in_a_row < URGENT_IN_A_ROW or not self._ready)
        self._in_a_row = self._in_a_row + 1 if urgent else 0
        key, _ = (self._urgent if urgent else self._ready).popitem(last=False)
        self._hurried.discard(key)
        return key

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer = asyncio.get_running_loop().call_at(self._heap[0][0], self._release)

    def _release(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        self._arm()
