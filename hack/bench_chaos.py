"""`make bench-chaos`: faults on purpose, the invariants after each kind, and how long the operator takes to work again.

`--seed N` plays the same faults again (as far as processes and clocks allow), `--only NAME` one kind of them.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import bench
from chaos import network, process, tampering, world
from chaos.lab import Lab
from chaos.scene import Played, Scenario, play
from fleet.fleet import fleet
from fleet.stages import Delays

SCENARIOS: tuple[Scenario, ...] = (
    *network.SCENARIOS,
    *process.SCENARIOS,
    *world.SCENARIOS,
    *tampering.SCENARIOS,
)
NODES = 20
DELAYS = Delays(prepare=150, run=500, collect=150, delete=100)
"""Milliseconds: a run takes about two seconds, so that every stage of it meets faults."""

GOALS = {"invariants_broken": {"max": 0.0}}


def main() -> None:
    """Play and report."""
    arguments = _arguments()
    print(f"seed {arguments.seed}", flush=True)
    started = time.monotonic()
    chosen = [s for s in SCENARIOS if not arguments.only or s.name in arguments.only]
    with tempfile.TemporaryDirectory(prefix="mlperf-chaos-") as folder:
        logs = Path(arguments.logs or folder)
        logs.mkdir(exist_ok=True)
        played = asyncio.run(_play(chosen, arguments, logs))
    for line in table(played):
        print(line)
    recoveries = [seconds for one in played for seconds in one.recoveries]
    figures = {
        "seed": arguments.seed,
        "scenarios": len(played),
        "injections": sum(one.injections for one in played),
        "runs": sum(one.runs for one in played),
        "invariants_broken": sum(len(one.broken) for one in played),
        "recovery_s_p50": round(statistics.median(recoveries), 2) if recoveries else 0,
        "recovery_s_max": round(max(recoveries, default=0), 2),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    bench.close("chaos", figures, GOALS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--only", action="append", choices=[s.name for s in SCENARIOS], default=[])
    parser.add_argument("--scale", type=float, default=1.0, help="how many of the faults, as a fraction")
    parser.add_argument("--fleet", default="chaos", help="name of the fleet's control plane")
    parser.add_argument("--logs", help="a folder in which the replicas' logs stay")
    return parser.parse_args()


async def _play(scenarios: Sequence[Scenario], arguments: argparse.Namespace, folder: Path) -> list[Played]:
    played = []
    async with fleet(arguments.fleet, NODES, DELAYS) as made, Lab.on(made, folder) as lab:
        for scenario in scenarios:
            count = max(1, round(scenario.count * arguments.scale))
            one = await play(lab, scenario, arguments.seed, count=count)
            print(f"{one.scenario}: {one.injections} faults, {one.runs} runs, {one.seconds:.0f} s", flush=True)
            for sentence in one.broken:
                print(f"  BROKEN {sentence}", flush=True)
            played.append(one)
    return played


def table(played: Sequence[Played]) -> list[str]:
    """Return the rows of the report."""
    rows = [
        "",
        "| scenario | faults | runs | invariants broken | recovery p50 s | max s |",
        "|---|---|---|---|---|---|",
    ]
    for one in played:
        times = one.recoveries
        p50, most = (f"{statistics.median(times):.2f}", f"{max(times):.2f}") if times else ("", "")
        rows.append(f"| {one.scenario} | {one.injections} | {one.runs} | {len(one.broken)} | {p50} | {most} |")
    return rows


if __name__ == "__main__":
    main()
