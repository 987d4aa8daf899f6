"""/metrics over HTTP: what is in it, how long it takes with a fleet, and that the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
import pytest
from local_cluster.ports import free_port

from mlperf_operator import metrics_server
from mlperf_operator.metrics import Metrics
from mlperf_operator.metrics_server import MetricsServer, Shown
from mlperf_operator.observed import RunRecord
from unit.core.builders import result
from unit.sight.scraping import finished, samples, scrape


class _Informer:
    name = "pods"
    relists = 3
    store: Mapping[str, object] = {"bench/a": object()}

    def __init__(self, *, synced: bool) -> None:
        self.synced = asyncio.Event()
        if synced:
            self.synced.set()
        self.last_activity = time.monotonic() - 12


@asynccontextmanager
async def _serving(runs: Mapping[str, RunRecord], *informers: _Informer) -> AsyncIterator[int]:
    port, metrics = free_port(), Metrics()
    metrics.about_process()
    async with MetricsServer(port, metrics, Shown(informers, {"reference-cpu"}, runs, {})).serving():
        yield port


async def test_runs_informers_and_the_process_are_shown_together() -> None:
    async with _serving({"bench/demo": finished()}, _Informer(synced=True)) as port:
        shown = await scrape(port)
    assert samples(shown, "mlperf_operator_informer_relists_total") == [({"resource": "pods"}, 3)]
    assert samples(shown, "mlperf_operator_informer_objects") == [({"resource": "pods"}, 1)]
    [(_, age)] = samples(shown, "mlperf_operator_informer_age_seconds")
    assert 12 <= age < 60
    assert [number for _, number in samples(shown, "mlperf_runs")] == [1]
    assert samples(shown, "process_cpu_seconds_total")
    assert samples(shown, "python_gc_collections_total")
    [(build, _)] = samples(shown, "mlperf_operator_build_info")
    assert set(build) == {"version", "python_version"}
    assert "_created" not in shown


async def test_the_tasks_of_the_loop_are_counted_at_the_scrape() -> None:
    async with _serving({}) as port:
        [(_, before)] = samples(await scrape(port), "mlperf_operator_tasks")
        sleepers = [asyncio.create_task(asyncio.sleep(60)) for _ in range(50)]
        [(_, after)] = samples(await scrape(port), "mlperf_operator_tasks")
        for sleeper in sleepers:
            sleeper.cancel()
    assert before > 0
    assert after - before >= 45


async def test_a_standbys_informers_have_no_age() -> None:
    async with _serving({}, _Informer(synced=False)) as port:
        shown = await scrape(port)
    assert samples(shown, "mlperf_operator_informer_synced") == [({"resource": "pods"}, 0)]
    assert samples(shown, "mlperf_operator_informer_age_seconds") == []


async def test_a_scraper_may_ask_for_openmetrics() -> None:
    async with _serving({}) as port:
        shown = await scrape(port, Accept="application/openmetrics-text; version=1.0.0")
    assert shown.endswith("# EOF\n")


async def test_port_0_serves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "site", lambda *_: pytest.fail("a port was opened"))
    async with MetricsServer(0, Metrics(), Shown((), set(), {}, {})).serving():
        pass


def _fleet() -> dict[str, RunRecord]:
    """Return five runs of each of 1,000 nodes, with three scenarios in two modes."""
    modes = ("PerformanceOnly", "AccuracyOnly")
    results = [result(scenario, mode) for scenario in ("Offline", "Server", "SingleStream") for mode in modes]
    return {
        f"bench/r{n}": finished(f"r{n}", node=f"node-{n % 1000:04}", end=n + 1, results=results) for n in range(5000)
    }


@pytest.mark.no_cover
async def test_5000_runs_on_1000_nodes_take_two_seconds_at_most_and_never_the_loop_for_long() -> None:
    # By CPU time, and the better of three: what else runs on the machine must not count.
    async with _serving(_fleet()) as port:
        scrapes = [await _scrape(port) for _ in range(3)]
    assert all(len(samples(scrape.shown, "mlperf_result_value")) == 3000 for scrape in scrapes)
    # 0.75 s on an idle core; where all cores are busy the same work takes more of their time.
    assert min(scrape.cpu for scrape in scrapes) < 2.0
    # A garbage collection of a heap with so many runs alone takes about 0.1 s.
    assert min(scrape.longest for scrape in scrapes) < 0.3


class _Scrape(NamedTuple):
    shown: str
    cpu: float
    longest: float
    """Longest time that the loop was not free, both in seconds of CPU."""


async def _scrape(port: int) -> _Scrape:
    stretches: list[float] = []

    async def beat() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.001)
            stretches.append(time.thread_time() - began)

    task, cpu = asyncio.create_task(beat()), time.process_time()
    shown = await asyncio.to_thread(_read, f"http://127.0.0.1:{port}/metrics")
    cpu = time.process_time() - cpu
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return _Scrape(shown, cpu, max(stretches))


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - our own
        return str(answer.read().decode())


@pytest.mark.parametrize("path", ["/", "/metrics/x"])
async def test_nothing_else_is_served(path: str) -> None:
    async with (
        _serving({}) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        assert response.status == 404
