"""/metrics, on a port of its own: the process's instruments, and runs and nodes as the informers know them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from mlperf_operator.fleet_metrics import Fleet
from mlperf_operator.metrics import Metrics
from mlperf_operator.nodes.records import NodeRecord
from mlperf_operator.observed import RunRecord
from mlperf_operator.site import site

CHUNK = 100
"""Runs that are read in one go; between two the event loop may do something else."""


class Informed(Protocol):
    """An informer, as far as metrics are concerned."""

    synced: asyncio.Event
    last_activity: float
    relists: int

    @property
    def name(self) -> str:
        """What it watches."""

    @property
    def store(self) -> Mapping[str, object]:
        """The records."""


@dataclass(frozen=True)
class Shown:
    """What is shown besides the instruments; the mappings are the informers' own."""

    informers: Sequence[Informed]
    suites: Collection[str]
    runs: Mapping[str, RunRecord]
    nodes: Mapping[str, NodeRecord]


class Informers(Collector):
    """How the informers do. A standby's have not synced, and so have no age."""

    def __init__(self, informers: Sequence[Informed]) -> None:
        self._informers = informers

    def collect(self) -> Iterator[Metric]:
        """Return the metrics."""
        prefix, by = "mlperf_operator_informer_", ["resource"]
        synced = GaugeMetricFamily(f"{prefix}synced", "1 once all that there is was read.", labels=by)
        objects = GaugeMetricFamily(f"{prefix}objects", "Objects that it knows.", labels=by)
        age = GaugeMetricFamily(f"{prefix}age_seconds", "Time since the last event, bookmark or page.", labels=by)
        relists = CounterMetricFamily(f"{prefix}relists", "Times that everything was read.", labels=by)
        for informer in self._informers:
            labels = [informer.name]
            synced.add_metric(labels, float(informer.synced.is_set()))
            objects.add_metric(labels, len(informer.store))
            relists.add_metric(labels, informer.relists)
            if informer.synced.is_set():
                age.add_metric(labels, time.monotonic() - informer.last_activity)
        yield from (synced, objects, age, relists)


class MetricsServer:
    """What /metrics says."""

    def __init__(
        self,
        port: int,
        metrics: Metrics,
        shown: Shown,
    ) -> None:
        self._port = port
        self._metrics = metrics
        self._shown = shown
        self._fleet = Fleet(())
        self._scraping = asyncio.Lock()
        metrics.registry.register(Informers(shown.informers))
        metrics.registry.register(_Folded(lambda: self._fleet))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve, unless the port is 0."""
        if not self._port:
            yield
            return
        async with site(self._port, [web.get("/metrics", self._serve)]):
            yield

    async def _serve(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        async with self._scraping:
            self._fleet = await self._read()
            # Here, because another thread could not ask for them.
            self._metrics.tasks.set(len(asyncio.all_tasks()))
            # On another thread, because it takes long where there are many nodes; it reads nothing that changes.
            body = await asyncio.to_thread(encode, self._metrics.registry)
            self._fleet = Fleet(())
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def _read(self) -> Fleet:
        fleet = Fleet(self._shown.suites)
        for number, run in enumerate(tuple(self._shown.runs.values()), start=1):
            fleet.add(run)
            if number % CHUNK == 0:
                await asyncio.sleep(0)
        fleet.add_nodes(tuple(self._shown.nodes.values()))
        return fleet


class _Folded(Collector):
    def __init__(self, fleet: Callable[[], Fleet]) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        return self._fleet().families()
