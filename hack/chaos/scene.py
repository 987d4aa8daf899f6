"""One scenario on its way: its namespace, its replicas, its runs and what may become of them."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

from chaos import invariants
from chaos.history import Json, finished
from chaos.invariants import Evidence
from chaos.lab import Lab, utc_now
from chaos.proxy import FaultProxy
from chaos.replica import LEASE, Replica
from chaos.weather import Weather, calm
from fleet import requests, workload
from fleet.reported import figure
from mlperf_operator.cluster import MLPERF_RUNS, ApiError, Resource

COMPLETED = frozenset({"Completed"})
ENDS_WITHIN = 120.0
"""Seconds in which every run has to end once the faults are over."""

SETTLE_SECONDS = 7.0
"""More than changes of stages are held back."""

REST_SECONDS = 4.0
GONE_WITHIN = 60.0


@dataclass
class Scene:
    """What a scenario's body works with."""

    lab: Lab
    namespace: str
    random: Random
    replicas: list[Replica] = field(default_factory=list)
    proxies: list[FaultProxy] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    """Seconds from the end of a fault until the operator works again."""
    injections: int = 0
    """Faults that were not the proxies'."""
    notes: list[str] = field(default_factory=list)
    """Breaches that the body itself saw."""
    truths: dict[str, Collection[str]] = field(default_factory=dict)

    @property
    def replica(self) -> Replica:
        """The first replica."""
        return self.replicas[0]

    async def create(self, name: str, *, ends: Collection[str] = COMPLETED, **spec: Any) -> Json:  # noqa: ANN401 - any spec
        """Create a run that may end with these reasons of Succeeded."""
        run = await self.lab.cluster.create(workload.run(self.namespace, name, **spec))
        self.may_end(run, ends)
        return run

    async def create_many(self, count: int, prefix: str = "run", **spec: Any) -> list[Json]:  # noqa: ANN401 - any spec
        """Create runs, one after the other."""
        return [await self.create(f"{prefix}-{number}", **spec) for number in range(count)]

    def may_end(self, run: Json, ends: Collection[str]) -> None:
        """Say with which reasons of Succeeded a run may end; none: it is deleted, and how it ends does not matter."""
        uid = run["metadata"]["uid"]
        if ends:
            self.truths[uid] = ends
        else:
            self.truths.pop(uid, None)

    def weather(self, weather: Weather) -> None:
        """Let this be the weather before every replica."""
        for proxy in self.proxies:
            proxy.weather = weather

    def injected(self) -> int:
        """Return how many faults there were."""
        return self.injections + sum(proxy.injected.total() for proxy in self.proxies)

    def state(self, run: Json) -> Json:
        """Return the latest state of a run that the watcher saw."""
        states = self.lab.history.runs.get(run["metadata"]["uid"])
        return states[-1] if states else run

    def is_gone(self, run: Json) -> bool:
        """Say whether the watcher saw it go."""
        return run["metadata"]["uid"] in self.lab.history.gone

    async def all_end(self, runs: Collection[Json], seconds: float = ENDS_WITHIN) -> bool:
        """Wait until these runs have ended or are gone; False when some have not."""
        return await holds(lambda: all(finished(self.state(run)) or self.is_gone(run) for run in runs), seconds)

    async def get(self, resource: Resource, name: str) -> Json | None:
        """Return an object of the scene's namespace."""
        return await self.lab.cluster.get(resource, self.namespace, name)

    async def merge(self, resource: Resource, name: str, patch: Json) -> None:
        """Change an object as somebody with kubectl would."""
        await self.lab.request("PATCH", resource.url(self.namespace, name), patch, kind=requests.MERGE)

    async def delete(self, resource: Resource, name: str) -> None:
        """Delete an object as somebody with kubectl would; one that is gone is fine."""
        try:
            await self.lab.request("DELETE", resource.url(self.namespace, name), {"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise

    async def delete_run(self, run: Json) -> None:
        """Delete a run; how it ends does not matter any more."""
        self.may_end(run, ())
        await self.delete(MLPERF_RUNS, run["metadata"]["name"])

    async def recovered(self, name: str) -> None:
        """Note how long it takes from now until a new run has its Job."""
        started = time.monotonic()
        run = await self.create(name)
        uid = run["metadata"]["uid"]

        def has_job() -> bool:
            return "jobName" in (self.state(run).get("status") or {})

        if not await holds(has_job, ENDS_WITHIN):
            self.notes.append(f"run {name} ({uid}) got no Job within {ENDS_WITHIN:g} s after the faults")
        self.recoveries.append(time.monotonic() - started)


async def holds(condition: Callable[[], bool | Awaitable[bool]], seconds: float) -> bool:
    """Wait until a condition holds; False when it does not in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if await found if isinstance(found, Awaitable) else found:
            return True
        await asyncio.sleep(0.05)
    return False


Body = Callable[[Scene, int], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """A kind of fault: its body, and how often it is injected by the bench and by `make test`."""

    name: str
    body: Body
    count: int
    replicas: int = 1
    lease: dict[str, float] = field(default_factory=lambda: dict(LEASE))
    clock: bool = False
    """Whether the replica's clock can be set."""
    late: bool = False
    """Whether what a leader sent may arrive after it has lost the Lease."""


@dataclass(frozen=True)
class Played:
    """What came of a scenario."""

    scenario: str
    injections: int
    runs: int
    broken: tuple[str, ...]
    recoveries: tuple[float, ...]
    seconds: float


async def play(lab: Lab, scenario: Scenario, seed: int, *, count: int | None = None) -> Played:
    """Play a scenario, let everything come to rest, delete all of it, and check every invariant."""
    started, since = time.monotonic(), utc_now()
    namespace = f"{scenario.name}-{seed % 10_000}-{int(time.time()) % 100_000}"
    scene = Scene(lab, namespace, Random(f"{seed}/{scenario.name}"))  # noqa: S311 - a fault is no secret
    await lab.make_namespace(namespace)
    async with AsyncExitStack() as stack:
        for number in range(scenario.replicas):
            clock = lab.folder / f"{namespace}.clock" if scenario.clock else None
            made = lab.replica(f"{namespace}-{number}", lease=scenario.lease, clock=clock)
            replica, proxy = await stack.enter_async_context(made)
            scene.replicas.append(replica)
            scene.proxies.append(proxy)
        await asyncio.wait_for(_someone_leads(scene), 60)
        await _act(scene, scenario, scenario.count if count is None else count)
        scene.weather(calm)
        await scene.all_end([states[-1] for states in lab.history.of(namespace).runs.values()])
        at_rest = await rest()
        left = await clear(scene)
    evidence = _evidence(scene, since, at_rest, left, late=scenario.late)
    broken = [*scene.notes, *invariants.broken(evidence), *await _namespace_goes(lab, namespace)]
    runs = len(lab.history.of(namespace).runs)
    seconds = time.monotonic() - started
    return Played(scenario.name, scene.injected(), runs, tuple(broken), tuple(scene.recoveries), seconds)


async def _act(scene: Scene, scenario: Scenario, count: int) -> None:
    """Play the body. What stops it, such as a wait that ran out, is a breach: the others are still to be looked for."""
    try:
        await scenario.body(scene, count)
    except Exception as error:  # noqa: BLE001 - see above
        where = traceback.extract_tb(error.__traceback__)
        lines = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in where if "chaos" in frame.filename]
        scene.notes.append(f"the scenario could not go on: {error!r} at {', '.join(lines)}")


async def _someone_leads(scene: Scene) -> None:
    waits = [asyncio.create_task(replica.ready()) for replica in scene.replicas]
    _, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


async def rest() -> tuple[datetime, datetime]:
    """Wait until nothing asks for a write any more, and a while longer; return from when until when."""
    await asyncio.sleep(SETTLE_SECONDS)
    since = utc_now()
    await asyncio.sleep(REST_SECONDS)
    return since, utc_now()


async def clear(scene: Scene) -> list[Json]:
    """Delete every run, and return what is left of them after a while."""
    url = MLPERF_RUNS.url(scene.namespace)
    await scene.lab.request("DELETE", url, {})

    async def empty() -> bool:
        return not await scene.lab.children(scene.namespace) and not await scene.lab.runs(scene.namespace)

    await holds(empty, GONE_WITHIN)
    return [*await scene.lab.children(scene.namespace), *await scene.lab.runs(scene.namespace)]


def _evidence(
    scene: Scene, since: datetime, rest: tuple[datetime, datetime], left: list[Json], *, late: bool
) -> Evidence:
    users = {proxy.user for proxy in scene.proxies}
    history = scene.lab.history.of(scene.namespace)
    return Evidence(
        history=history,
        writes=[write for write in scene.lab.writes(since) if write.user in users],
        truths=scene.truths,
        figures={uid: figure(uid) for uid in history.runs},
        left=left,
        odd_lines=[line for replica in scene.replicas for line in replica.odd_lines()],
        rest=rest,
        late=late,
    )


async def _namespace_goes(lab: Lab, namespace: str) -> list[str]:
    """Delete the namespace, which has no operator any more, and say so where it stays."""
    await lab.remove_namespace(namespace)

    async def gone() -> bool:
        return await lab.namespace_gone(namespace)

    return [] if await holds(gone, GONE_WITHIN) else [f"namespace {namespace} is not gone after {GONE_WITHIN:g} s"]
