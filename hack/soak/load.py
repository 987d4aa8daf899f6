"""Runs at a steady pace, what is done to some of them, and the faults around them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Collection, Iterable
from random import Random

from chaos.history import Json
from chaos.network import ODDS
from chaos.process import kill_components, leader_of
from chaos.scene import COMPLETED, Scene, holds
from chaos.tampering import DELETIONS
from chaos.weather import Chance, calm
from chaos.world import evict, pod_of, reaches
from mlperf_operator.cluster import MLPERF_RUNS, ApiError
from soak import plan

TTL_SECONDS = 30
_AGAIN_SECONDS = 0.5
_ENDS_WITHIN_SECONDS = 30.0
_RESTARTED: dict[str, Collection[str]] = {
    plan.KILL_API_SERVER: ("kube-apiserver",),
    plan.KILL_ETCD: ("etcd", "kube-apiserver"),
}
_DELETIONS = dict(zip((plan.JOB_DELETED, plan.POD_DELETED, plan.MAPS_DELETED), DELETIONS, strict=True))


class Load:
    """One soak's runs and faults."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.created = 0
        self.ended_on_purpose = 0
        """Processes of the operator."""
        self.too_late = 0
        """Faults that their run was too quick for, or that the API server did not take."""
        self._scene = scene
        self._seed = seed
        self._pausing = asyncio.Lock()

    async def arrive(self, count: int, seconds: float) -> None:
        """Create so many runs, evenly over the time; one that cannot be created now is tried again."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                await asyncio.sleep(max(0.0, started + seconds * number / count - time.monotonic()))
                tasks.create_task(self._one(number))

    async def play(self, steps: Iterable[plan.Step]) -> None:
        """Play the faults, one after the other."""
        started = time.monotonic()
        for step in steps:
            await asyncio.sleep(max(0.0, started + step.at - time.monotonic()))
            print(f"{time.monotonic() - started:7.1f} s  {step.kind} {step.seconds:.0f} s", flush=True)
            try:
                await self._do(step)
            except TimeoutError:
                self._scene.notes.append(f"nobody leads a minute after {step.kind} at {step.at:.0f} s")

    async def _do(self, step: plan.Step) -> None:
        match step.kind:
            case plan.KILL_LEADER | plan.END_LEADER | plan.KILL_STANDBY:
                await self._end(step.kind)
            case plan.CUT_WATCHES:
                self._cut_watches()
                self._scene.injections += 1
            case plan.KILL_API_SERVER | plan.KILL_ETCD:
                await kill_components(self._scene, tuple(_RESTARTED[step.kind]))
            case kind:
                self._scene.weather(Chance(Random(f"{self._seed}/{step.at}"), ODDS[kind]))  # noqa: S311 - no secret
                if kind.startswith("watches") or kind == "gone":
                    # So that the next ones meet it: a watch is opened every five minutes only.
                    self._cut_watches()
                await asyncio.sleep(step.seconds)
                self._scene.weather(calm)

    async def _end(self, kind: str) -> None:
        """End a replica's process, and wait until one leads."""
        leader = await leader_of(self._scene)
        chosen = 1 - leader if kind == plan.KILL_STANDBY else leader
        replica, started = self._scene.replicas[chosen], time.monotonic()
        pid = replica.pid
        replica.send(signal.SIGTERM if kind == plan.END_LEADER else signal.SIGKILL)
        self._scene.injections += 1
        self.ended_on_purpose += 1
        # Until it has ended it may still say that it leads.
        await holds(lambda: replica.pid != pid, _ENDS_WITHIN_SECONDS)
        await leader_of(self._scene)
        if kind != plan.KILL_STANDBY:
            self._scene.recoveries.append(time.monotonic() - started)

    def _cut_watches(self) -> None:
        for proxy in self._scene.proxies:
            proxy.cut_watches()

    async def _one(self, number: int) -> None:
        run = await self._create(f"run-{number:05}")
        self.created += 1
        fate = plan.fate(self._seed, number)
        try:
            await self._meets(run, fate)
        except (ApiError, TimeoutError):
            self.too_late += 1

    async def _create(self, name: str) -> Json:
        while True:
            try:
                return await self._scene.create(name, ttlSecondsAfterFinished=TTL_SECONDS)
            except ApiError as error:
                made = await self._made(name) if error.status == 409 else None
            if made is not None:
                return made
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _made(self, name: str) -> Json | None:
        """Return the run that an earlier try made, whose answer was lost."""
        try:
            run = await self._scene.get(MLPERF_RUNS, name)
        except ApiError:
            return None
        if run is not None:
            self._scene.may_end(run, COMPLETED)
        return run

    async def _meets(self, run: Json, fate: plan.Fate) -> None:
        match fate.kind:
            case "":
                return
            case plan.RUN_DELETED:
                await asyncio.sleep(fate.after)
                await self._scene.delete_run(run)
                self._scene.injections += 1
            case plan.EVICTED:
                await evict(self._scene, await reaches(self._scene, run, fate.stage))
            case kind:
                await reaches(self._scene, run, "code")
                await self._loses(run, kind)

    async def _loses(self, run: Json, kind: str) -> None:
        """Delete a child of a run while every kubelet stands still: so it is known how the run may end."""
        delete, ends = _DELETIONS[kind]
        async with self._pausing:
            self._scene.lab.fleet.pause()
            try:
                if not await self._is_preparing(run):
                    self.too_late += 1
                    return
                # Until it is known that it is done, both are true.
                self._scene.may_end(run, ends | COMPLETED)
                await delete(self._scene, run)
                self._scene.may_end(run, ends)
                self._scene.injections += 1
            finally:
                self._scene.lab.fleet.pause(paused=False)

    async def _is_preparing(self, run: Json) -> bool:
        """Say whether its status tells of its Job and its pod has not come to the main container."""
        pod = await pod_of(self._scene, run["metadata"]["name"])
        told = "jobName" in (self._scene.state(run).get("status") or {})
        return told and pod is not None and pod.get("status", {}).get("phase") == "Pending"
