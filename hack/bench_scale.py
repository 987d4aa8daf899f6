"""`make bench-scale`: runs by the thousand on a thousand nodes of KWOK, beside bare ConfigMap and Job pairs.

Both sides are created at the same pace by the same client, on the same control plane, with the same pods; KWOK plays
each pod through its containers. Requests are the API server's own count, of the operator's account, from its audit log.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import bench
from fleet import requests
from fleet.fleet import OPERATOR_USER, Fleet, fleet
from fleet.replica import Replica
from fleet.stages import Delays
from fleet.workload import filler, namespace, run
from mlperf_operator.cluster import MLPERF_RUNS
from scale import chart, objects
from scale.requests_made import Requests, requests_since
from scale.rounds import ARRIVALS_PER_SECOND, Round, measure

NAME = "bench-scale"
LOG = Path("build/bench-scale-operator.log")
STEP = Delays(prepare=10000, run=10000, collect=1000)
"""Each of the pod's steps: long enough that all runs of a round are under way at once."""

FLAGS = {
    # All kept runs and the pods' past states until they are compacted.
    "etcd": ("--quota-backend-bytes=8589934592",),
    # On two cores a node's lease may be late; none of them is to be lost for it.
    "kube-controller-manager": ("--node-monitor-grace-period=300s",),
}
IDLE_CPU = 0.05
"""Share of a core below which the operator counts as idle, over IDLE_SECONDS."""
IDLE_SECONDS = 3.0

GOALS = {
    "time_ratio": {"max": 1.10},
    "requests_per_run": {"max": 12.0},
    "cpu_s_per_run": {"max": 0.06},
    "rss_mb": {"max": 250.0},
    "rss_second_round_ratio": {"max": 1.05},
    "cr_to_job_s_p50": {"max": 0.5},
    "cr_to_job_s_p99": {"max": 3.0},
    "startup_s": {"max": 30.0},
    "startup_writes": {"max": 0.0},
}


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    runs: int
    nodes: int
    kept: int
    pods: int
    growth: tuple[int, ...]


def main() -> None:
    """Measure and report."""
    size, plot = _size()
    LOG.parent.mkdir(exist_ok=True)
    figures, grown = asyncio.run(_measure(size))
    print(chart.table(grown))
    chart.plot(grown, plot)
    bench.close("scale", figures, GOALS)


def _size() -> tuple[Size, Path]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="runs at once")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--kept", type=int, help="finished runs that are there before; 5 for each run if not given")
    parser.add_argument("--pods", type=int, help="pods in the cluster with all runs; 10 for each node if not given")
    parser.add_argument("--growth", default="", help="as 250,500,1000,2000: a quarter to twice the runs if not given")
    parser.add_argument("--plot", type=Path, default=Path("build/scale.svg"))
    options = parser.parse_args()
    runs = options.runs
    growth = [int(part) for part in options.growth.split(",") if part] or [runs // 4, runs // 2, runs, runs * 2]
    kept = 5 * runs if options.kept is None else options.kept
    pods = 10 * options.nodes if options.pods is None else options.pods
    return Size(runs, options.nodes, kept, pods, tuple(growth)), options.plot


async def _measure(size: Size) -> tuple[dict[str, float], list[Round]]:
    async with fleet(NAME, size.nodes, STEP, FLAGS) as made:
        with _operator(made):
            model = await _model(made)
        await _fill(made, size, model)
        with _operator(made) as operator:
            _say("the operator starts with all that is there")
            started = await _start(made, operator)
            _say(f"it is idle after {started.seconds:.1f} s, with {operator.resident_mb():.1f} MB")
            _say(f"{size.runs} bare pairs, then as many runs, {ARRIVALS_PER_SECOND:g} a second")
            first = await measure(made, operator, model, size.runs, None)
            _tell(first)
            second = await measure(made, operator, model, size.runs, first.bare_seconds)
            _say(f"a second round: {second.seconds:.0f} s, {second.resident_mb:.1f} MB")
            grown = [first]
            for count in sorted(set(size.growth) - {size.runs}):
                _say(f"{count} bare pairs, then as many runs")
                grown.append(await measure(made, operator, model, count, None))
                _tell(grown[-1])
    return _figures(size, first, second, started), sorted(grown, key=lambda each: each.runs)


@contextmanager
def _operator(made: Fleet) -> Iterator[Replica]:
    """Run the operator, and keep its log where it can be read after the fleet is gone."""
    operator = Replica(made.operator_kubeconfig, LOG)
    try:
        operator.wait_ready()
        yield operator
    finally:
        operator.end()


async def _model(made: Fleet) -> objects.Model:
    """Return the objects of a real run."""
    await requests.create(made.cluster, namespace("model"))
    await requests.create(made.cluster, run("model", "model-0"))
    while (await requests.table(made.cluster, MLPERF_RUNS, "model"))[0]["Succeeded"] != "True":  # noqa: ASYNC110 - polled
        await asyncio.sleep(1)
    return await objects.model_of(made.cluster, "model", "model-0")


async def _fill(made: Fleet, size: Size, model: objects.Model) -> None:
    """Make what is there before: finished runs, copied from a real one, and pods of others."""
    _say(f"{size.kept} finished runs")
    await requests.create(made.cluster, namespace("kept"))
    await objects.keep_all(made.cluster, model, "kept", size.kept)
    others = max(0, size.pods - size.kept - size.runs)
    _say(f"{others} pods of others")
    await requests.create(made.cluster, namespace("others"))
    nodes = made.nodes
    bodies = (filler("others", f"other-{index:05}", nodes[index % len(nodes)]) for index in range(others))
    await requests.create_all(made.cluster, bodies)


@dataclass(frozen=True)
class Started:
    """What a start of the operator took."""

    seconds: float
    requests: Requests


async def _start(made: Fleet, operator: Replica) -> Started:
    """Return the seconds until it is ready and has nothing more to do, and its requests until then."""
    since = datetime.fromtimestamp(time.time() - (time.monotonic() - operator.started), UTC)
    while True:
        before, ended = operator.cpu_seconds(), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        if operator.cpu_seconds() - before < IDLE_CPU * IDLE_SECONDS:
            return Started(ended - operator.started, requests_since(made.audit_logs, OPERATOR_USER, since))


def _figures(size: Size, first: Round, second: Round, started: Started) -> dict[str, float]:
    return {
        "time_ratio": round(first.ratio, 3),
        "runs_s": round(first.seconds, 1),
        "bare_s": round(first.bare_seconds, 1),
        "requests_per_run": round(first.requests.counted() / first.runs, 2),
        "cpu_s_per_run": round(first.cpu_seconds / first.runs, 4),
        "rss_mb": round(second.resident_mb, 1),
        "rss_second_round_ratio": round(second.resident_mb / first.resident_mb, 3),
        "cr_to_job_s_p50": round(first.quantile(0.5), 3),
        "cr_to_job_s_p99": round(first.quantile(0.99), 3),
        "startup_s": round(started.seconds, 1),
        "startup_writes": started.requests.writes().total(),
        "runs": size.runs,
        "nodes": size.nodes,
        "kept_runs": size.kept,
    }


def _tell(found: Round) -> None:
    """Print a round: both sides, and the operator's requests by kind."""
    _say(f"{found.runs} runs in {found.seconds:.0f} s, bare in {found.bare_seconds:.0f} s: {found.ratio:.3f}")
    print(chart.table([found]))
    print(f"\n| request of the operator | a run, of {found.runs} |\n|---|---|")
    for (verb, resource), count in found.requests.made.most_common():
        print(f"| {verb} {resource} | {count / found.runs:.2f} |")
    print(flush=True)


def _say(text: str) -> None:
    print(f"==> {time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
