"""`make bench-soak`: hours of runs under random faults, and what the operator holds meanwhile.

Fifty runs a minute, each deleted by its TTL when it has ended, two replicas behind hack/chaos's proxies, faults by a
seed (soak/plan.py says which and when, and why the leader is ended in the first sixth of the time only), a sample of
whoever leads every thirty seconds, and the invariants of hack/chaos for every run and every write. At the end the
faults stop, everything is deleted, and the leader has to hold what a leader held before the first run.

soak/slope.py says what "memory within noise" means. A try of less than about an hour has no slope and says so.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from local_cluster.ports import free_port

import bench
from chaos.history import finished
from chaos.lab import Lab
from chaos.process import leader_of
from chaos.scene import Scene, clear, holds, rest
from chaos.weather import calm
from fleet.fleet import fleet
from fleet.stages import Delays
from soak import plan
from soak.ledger import Ledger
from soak.load import Load
from soak.samples import Holdings, Sample, Sampler
from soak.slope import LIMIT_MB_PER_HOUR, Slope, longest_life, slope

NODES = 30
DELAYS = Delays(prepare=500, run=1500, collect=500, delete=200)
"""Milliseconds: a run takes about seven seconds, so that six are under way at 50 a minute; the rest is for backlogs."""

LEASE = {"DURATION": 60.0, "RENEW_DEADLINE": 40.0, "RETRY": 2.0}
"""Longer than a control plane takes to come back on a busy machine: its leader has to live through that."""

KOPFS_WATCHES = 1
CALM_AGAIN_SECONDS = 150.0
"""A watch that fell silent is noticed after 80 s."""

MOST_POOLED = 20.0
"""The client's pool takes its connections in turn, and the Lease asks every two seconds: what work has opened stays.

As many as have been busy at once: 16 workers, the Lease, and a few more. Those that leak would grow with the runs.
"""

_NOTHING_MORE = {"max": 0.0}


@dataclass
class Found:
    """What came of a soak."""

    load: Load
    ledger: Ledger
    scene: Scene
    samples: list[Sample]
    before: Holdings
    after: Holdings
    left: int
    not_ended: int


def main() -> None:
    """Soak and report."""
    arguments = _arguments()
    print(f"seed {arguments.seed}", flush=True)
    arguments.samples.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mlperf-soak-") as folder:
        logs = Path(arguments.logs or folder)
        logs.mkdir(exist_ok=True)
        found = asyncio.run(_soak(arguments, logs))
    life = longest_life(found.samples)
    steady = slope([(sample.at, sample.rss_mb) for sample in life])
    if steady is None:
        print("\nNo process lived long enough for a slope of its memory: it is not judged.")
    figures = {
        "seed": arguments.seed,
        **_figures(found, life, arguments.minutes),
        **_slope_figures(steady),
        "whole_minutes": round((time.monotonic() - started) / 60, 1),
    }
    bench.close("soak", figures, _goals(arguments, judged=steady is not None))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0, help="of runs and faults")
    parser.add_argument("--pace", type=float, default=50.0, help="runs a minute")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--fleet", default="soak", help="name of the fleet's control plane")
    parser.add_argument("--samples", type=Path, default=Path("build/soak.csv"), help="where each sample is written to")
    parser.add_argument("--logs", help="a folder in which the replicas' logs stay")
    return parser.parse_args()


def _goals(arguments: argparse.Namespace, *, judged: bool) -> dict[str, dict[str, float]]:
    # Half of the time is what the plan leaves to one process, less what an end by accident would leave.
    goals = {
        "runs_per_minute": {"min": 0.98 * arguments.pace},
        "leader_life_minutes": {"min": arguments.minutes / 2},
        "runs_not_ended": _NOTHING_MORE,
        "invariants_broken": _NOTHING_MORE,
        "watches_more": _NOTHING_MORE,
        "watches_beyond_informers": _NOTHING_MORE,
        "tasks_more": _NOTHING_MORE,
        "fds_more": _NOTHING_MORE,
        "pooled_connections": {"max": MOST_POOLED},
        "informer_objects_left": _NOTHING_MORE,
        "queue_left": _NOTHING_MORE,
        "objects_left": _NOTHING_MORE,
    }
    return {**goals, **({"rss_mb_per_hour_high": {"max": LIMIT_MB_PER_HOUR}} if judged else {})}


async def _soak(arguments: argparse.Namespace, folder: Path) -> Found:
    async with fleet(arguments.fleet, NODES, DELAYS) as made, Lab.on(made, folder) as lab, AsyncExitStack() as stack:
        scene = Scene(lab, f"soak-{arguments.seed}", random.Random(arguments.seed))  # noqa: S311 - a fault is no secret
        await lab.make_namespace(scene.namespace)
        ports = {f"soak-{number}": free_port() for number in range(2)}
        for identity, port in ports.items():
            started = lab.replica(identity, lease=LEASE, forked=False, METRICS_PORT=str(port))
            replica, proxy = await stack.enter_async_context(started)
            scene.replicas.append(replica)
            scene.proxies.append(proxy)
        await leader_of(scene)
        sampler, ledger, load = Sampler(scene, ports, arguments.samples), Ledger(scene), Load(scene, arguments.seed)
        before = await sampler.at_rest()
        sampler.started = time.monotonic()
        async with asyncio.TaskGroup() as beside:
            tasks = [beside.create_task(each.keep()) for each in (sampler, ledger)]
            await _under_load(load, arguments)
            for task in tasks:
                task.cancel()
        return await _quiet(scene, sampler, ledger, load, before)


async def _under_load(load: Load, arguments: argparse.Namespace) -> None:
    seconds = arguments.minutes * 60
    async with asyncio.TaskGroup() as group:
        group.create_task(load.arrive(round(arguments.minutes * arguments.pace), seconds))
        group.create_task(load.play(plan.steps(arguments.seed, seconds)))


async def _quiet(scene: Scene, sampler: Sampler, ledger: Ledger, load: Load, before: Holdings) -> Found:
    """Let the last runs end, delete everything, and look at what the leader holds then."""
    scene.weather(calm)
    runs = [states[-1] for states in scene.lab.history.of(scene.namespace).runs.values()]
    await scene.all_end(runs)
    not_ended = sum(not finished(scene.state(run)) and not scene.is_gone(run) for run in runs)
    left = await clear(scene)

    async def nothing_known() -> bool:
        sample = await sampler.take()
        return sample is not None and sample.informer_objects == 0

    await holds(nothing_known, CALM_AGAIN_SECONDS)
    at_rest = await rest()
    after = await sampler.at_rest()
    await ledger.close(left, at_rest)
    return Found(load, ledger, scene, sampler.samples, before, after, len(left), not_ended)


def _figures(found: Found, life: list[Sample], minutes: float) -> dict[str, float]:
    before, after, recoveries = found.before, found.after, found.scene.recoveries
    exits = sum(len(replica.exits) for replica in found.scene.replicas)
    last = found.samples[-1] if found.samples else None
    return {
        "minutes": minutes,
        "runs": found.load.created,
        "runs_per_minute": round(found.load.created / minutes, 1),
        "runs_not_ended": found.not_ended,
        "runs_at_once_max": max((sample.runs for sample in found.samples), default=0),
        "faults": found.scene.injected(),
        "faults_too_late": found.load.too_late,
        "processes_ended": found.load.ended_on_purpose,
        "processes_ended_unasked": exits - found.load.ended_on_purpose,
        "recovery_s_p50": round(statistics.median(recoveries), 2) if recoveries else 0,
        "invariants_broken": len(found.ledger.broken),
        "runs_judged": found.ledger.judged,
        "samples": len(found.samples),
        "leader_life_minutes": round((life[-1].at - life[0].at) / 60, 1) if life else 0,
        "rss_mb_first": life[0].rss_mb if life else 0,
        "rss_mb_last": life[-1].rss_mb if life else 0,
        "watches_more": after.watches - before.watches,
        "watches_beyond_informers": after.watches - after.informers - KOPFS_WATCHES,
        "tasks_before": before.tasks,
        "tasks_more": after.tasks - before.tasks,
        "fds_before": before.files,
        "fds_more": after.files - before.files,
        "pooled_connections": after.pooled,
        "informer_objects_left": after.informer_objects,
        "queue_left": after.queue_depth,
        "objects_left": found.left,
        "api_server_mb": last.api_server_mb if last else 0,
        "etcd_mb": last.etcd_mb if last else 0,
        "etcd_file_mb": last.etcd_file_mb if last else 0,
    }


def _slope_figures(steady: Slope | None) -> dict[str, float]:
    if steady is None:
        return {}
    return {
        "rss_mb_per_hour": round(steady.estimate, 2),
        "rss_mb_per_hour_low": round(steady.low, 2),
        "rss_mb_per_hour_high": round(steady.high, 2),
        "rss_points": steady.blocks,
    }


if __name__ == "__main__":
    main()
