"""One round: many runs, or many bare pairs, created at a steady pace, until the last has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fleet import requests, workload
from fleet.fleet import OPERATOR_USER, Fleet
from fleet.replica import Replica
from mlperf_operator.cluster import JOBS, MLPERF_RUNS, Cluster, Resource
from scale.objects import Model, bare
from scale.requests_made import Requests, requests_since

ARRIVALS_PER_SECOND = 10.0
"""On both sides. A start takes the whole control plane a tenth of a CPU second, and there are two cores."""

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 3600.0


@dataclass(frozen=True)
class Round:
    """What one round of runs showed."""

    runs: int
    seconds: float
    """From the first creation to the last end."""
    bare_seconds: float
    requests: Requests
    latencies: list[float]
    cpu_seconds: float
    resident_mb: float

    @property
    def ratio(self) -> float:
        """How much longer the runs took than the bare pairs."""
        return self.seconds / self.bare_seconds

    def quantile(self, part: float) -> float:
        """Return a quantile of the seconds from a run's creation to its Job's."""
        return self.latencies[min(len(self.latencies) - 1, int(part * len(self.latencies)))]


async def measure(made: Fleet, operator: Replica, model: Model, count: int, bare_seconds: float | None) -> Round:
    """Run a round of runs, after one of bare pairs of the same number where its seconds are not known yet."""
    if bare_seconds is None:
        bare_seconds = await _bare_round(made, model, count)
    namespace = f"runs-{count}-{int(time.time())}"
    await requests.create(made.cluster, workload.namespace(namespace))
    since, cpu = datetime.now(UTC), operator.cpu_seconds()
    bodies = ([workload.run(namespace, f"run-{index:05}")] for index in range(count))
    seconds = await _until_all(made.cluster, bodies, MLPERF_RUNS, namespace, count, _has_succeeded)
    cpu = operator.cpu_seconds() - cpu
    found = requests_since(made.audit_logs, OPERATOR_USER, since)
    if len(found.latencies(namespace)) < count:
        raise RuntimeError("the audit log does not hold the whole round: its oldest part was rotated away")
    result = Round(count, seconds, bare_seconds, found, found.latencies(namespace), cpu, operator.resident_mb())
    await _delete_namespace(made.cluster, namespace)
    return result


async def _bare_round(made: Fleet, model: Model, count: int) -> float:
    namespace = f"bare-{count}-{int(time.time())}"
    await requests.create(made.cluster, workload.namespace(namespace))
    bodies = (list(bare(model, namespace, f"run-{index:05}")) for index in range(count))
    seconds = await _until_all(made.cluster, bodies, JOBS, namespace, count, _is_complete)
    await _delete_namespace(made.cluster, namespace)
    return seconds


async def _until_all(
    cluster: Cluster,
    groups: Iterable[Sequence[dict[str, Any]]],
    resource: Resource,
    namespace: str,
    count: int,
    has_ended: Callable[[dict[str, Any]], bool],
) -> float:
    """Create at a steady pace and return the seconds until all have ended."""
    started = time.monotonic()
    creating = asyncio.create_task(_arrive(cluster, groups))
    while time.monotonic() < started + PATIENCE_SECONDS:
        await asyncio.sleep(POLL_SECONDS)
        rows = await requests.table(cluster, resource, namespace)
        if sum(has_ended(row) for row in rows) >= count:
            await creating
            return time.monotonic() - started
        if creating.done():
            creating.result()
    raise RuntimeError(f"not all of {count} {resource.plural} have ended within {PATIENCE_SECONDS:g} s")


async def _arrive(cluster: Cluster, groups: Iterable[Sequence[dict[str, Any]]]) -> None:
    """Create group after group, each in order, ARRIVALS_PER_SECOND of them a second however long one takes."""
    started = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for index, group in enumerate(groups):
            await asyncio.sleep(max(0.0, started + index / ARRIVALS_PER_SECOND - time.monotonic()))
            tasks.create_task(_create(cluster, group))


async def _create(cluster: Cluster, group: Sequence[dict[str, Any]]) -> None:
    for body in group:
        await requests.create(cluster, body)


def _has_succeeded(row: dict[str, Any]) -> bool:
    if row["Succeeded"] == "False":
        raise RuntimeError(f"run {row['Name']} has not succeeded")
    return bool(row["Succeeded"] == "True")


def _is_complete(row: dict[str, Any]) -> bool:
    if row["Status"] == "Failed":
        raise RuntimeError(f"Job {row['Name']} failed")
    return bool(row["Status"] == "Complete")


async def _delete_namespace(cluster: Cluster, name: str) -> None:
    """Delete a round's objects, so that each round begins with the same cluster, and wait until they are gone."""
    await requests.ask(cluster, "DELETE", requests.NAMESPACES.url(None, name), {})
    while await cluster.get(requests.NAMESPACES, None, name) is not None:  # noqa: ASYNC110 - polled
        await asyncio.sleep(POLL_SECONDS)
