"""/healthz and /readyz of the operator's own: kopf's liveness stays green while its streams are dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web

from mlperf_operator.metrics import UNSEEN, Metrics
from mlperf_operator.site import site

MAX_LOOP_LAG_SECONDS = 5.0
MAX_SILENCE_SECONDS = 150.0
_BEAT_SECONDS = 0.5


class Watched(Protocol):
    """An informer, as far as health is concerned."""

    last_activity: float
    synced: asyncio.Event


class Health:
    """What /healthz and /readyz say."""

    def __init__(
        self,
        port: int,
        informers: Sequence[Watched],
        *,
        is_leader: Callable[[], bool],
        metrics: Metrics = UNSEEN,
    ) -> None:
        self._port = port
        self._informers = informers
        self._is_leader = is_leader
        self._metrics = metrics
        self._lag = 0.0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve, and measure how late the event loop is."""
        async with site(self._port, [web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)]):
            beat = asyncio.create_task(self._measure_lag())
            try:
                yield
            finally:
                beat.cancel()

    async def _measure_lag(self) -> None:
        while True:
            started = time.monotonic()
            await asyncio.sleep(_BEAT_SECONDS)
            self._lag = time.monotonic() - started - _BEAT_SECONDS
            self._metrics.loop_lag_seconds.observe(max(0.0, self._lag))

    def problems(self) -> list[str]:
        """Return why the process should be restarted; nothing while it is well."""
        found = []
        if self._lag > MAX_LOOP_LAG_SECONDS:
            found.append(f"the event loop was blocked for {self._lag:.1f} s")
        if self._is_leader():
            # Only a leader watches; a standby has nothing that could be silent.
            silent = [i for i in self._informers if i.synced.is_set() and _age(i) > MAX_SILENCE_SECONDS]
            found += [f"no event or bookmark for {_age(informer):.0f} s" for informer in silent]
        return found

    async def _healthz(self, _request: web.Request) -> web.Response:
        found = self.problems()
        return web.Response(text="; ".join(found) or "ok", status=500 if found else 200)

    async def _readyz(self, _request: web.Request) -> web.Response:
        if self._is_leader() and not all(informer.synced.is_set() for informer in self._informers):
            return web.Response(text="the informers have not synced", status=503)
        return web.Response(text="leader" if self._is_leader() else "standby")


def _age(informer: Watched) -> float:
    return time.monotonic() - informer.last_activity
