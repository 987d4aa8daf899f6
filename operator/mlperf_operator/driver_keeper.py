"""A run's way to its driver: the node that it claims, and what it waits for until that node is ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import FabricManagerPolicy, MLPerfRun
from mlperf_operator.catalogue import DriverSettings
from mlperf_operator.cluster import Cluster
from mlperf_operator.inputs import NotReadyError
from mlperf_operator.node_view import NodeView
from mlperf_operator.nodes import claims, state
from mlperf_operator.nodes.choice import Fleet, Take, Use, choose, claimed_by, wanted_driver
from mlperf_operator.nodes.records import NodeRecord
from mlperf_operator.nodes.step import GpuPod
from mlperf_operator.observed import Blocked, DriverView, RunRecord
from mlperf_operator.outcome import SUSPENDED
from mlperf_operator.resources.containers import GPU_RESOURCE
from mlperf_operator.suites import Suite

MAX_LOOKS = 8
"""How many nodes that nobody claims a run asks for their pods at a time, to find an idle one."""

BUSY_SECONDS = 8.0
"""How long a node that was seen in use is taken to be so: a little less than the pause of a run that waits."""

LOOKS_PER_SECOND = 10
"""How many nodes a second are asked on average, at most, however many runs wait and nodes are in use."""

MAX_NAMED = 5


class DriverKeeper:
    """Finds, claims and watches the nodes of runs."""

    def __init__(
        self,
        cluster: Cluster,
        view: NodeView,
        runs: Mapping[str, RunRecord],
        settings: DriverSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._view = view
        self._runs = runs
        self._settings = settings
        self._clock = clock
        self._busy: dict[str, tuple[float, list[GpuPod]]] = {}
        """When a node was seen in use, and by which pods. What is idle is always looked at anew."""
        self.waiting: set[str] = set()
        """Runs, by key, that wait for a node: they are looked at again when any node changes."""

    async def driver_for(self, run: MLPerfRun, suite: Suite) -> str | None:
        """Return the exact version that the run's Job asks of its node, or None where the node is not ours to change.

        Raises:
            NotReadyError: the run waits for its node; why is in it.
            ApiError: the API server failed, or the node changed while it was claimed.
        """
        key = f"{run.metadata.namespace}/{run.metadata.name}"
        fleet = self._fleet(run, suite)
        driver = wanted_driver(run, suite, self._settings, fleet)
        if driver is None:
            self.waiting.discard(key)
            return None
        if run.spec.suspend:
            raise NotReadyError(Blocked(SUSPENDED, "spec.suspend is true; no node is claimed until it is false"))
        if key not in self.waiting:
            self.waiting = {waits for waits in self.waiting if self._goes_on(waits)} | {key}
        choice = choose(run, driver, fleet)
        if isinstance(choice, Take):
            choice = await self._take(run, choice)
        if isinstance(choice, Blocked):
            raise NotReadyError(choice)
        _check_fabric_manager(run, choice.node)
        self.waiting.discard(key)
        return choice.version

    def view(self, run: MLPerfRun, node: str | None) -> DriverView | None:
        """Return how the driver stands on the node that the run is or was on, else on the one that it claimed."""
        uid = run.metadata.uid
        record = self._view.get(node) if node else claimed_by(run, self._view.all())
        if record is None:
            return None
        claim, told = record.claim, record.told
        claimed = uid in claim.runs
        if claimed and (told is None or told.version not in (None, claim.version)):
            # Claimed just now: the report, if there is one, is about the driver before.
            text = f"gets driver {claim.version}"
            told = state.NodeState(phase=state.Phase.WORKING, reason="DriverInstalling", message=text)
        if told is None:
            return None
        working = told.phase is state.Phase.WORKING
        # While it works, the report has what the node had before.
        seen = state.NodeState(phase=told.phase, reason=told.reason) if working else told
        return DriverView(
            node=record.name,
            ready=seen.driver is not None and record.driver_ready == seen.driver,
            working=working,
            claimed=claimed,
            reason=told.reason,
            message=told.message,
            version=seen.driver,
            fabric_manager=seen.fabric_manager,
            managed_by=seen.managed_by,
        )

    def is_alive(self, key: str, uid: str) -> bool:
        """Say whether a run holds its node: until it has finished, but not while it is suspended without a Job."""
        record = self._runs.get(key)
        if record is None or record.uid != uid:
            return False
        body = record.body
        if body["spec"].get("suspend") and self.has_no_job(key):
            return False
        conditions = body.get("status", {}).get("conditions") or ()
        return not any(c["type"] == "Finished" and c["status"] == "True" for c in conditions)

    def _goes_on(self, key: str) -> bool:
        record = self._runs.get(key)
        return record is not None and self.is_alive(key, record.uid)

    def has_no_job(self, key: str) -> bool:
        """Say whether a run has not got its Job yet."""
        record = self._runs.get(key)
        return record is not None and "jobName" not in record.body.get("status", {})

    def _fleet(self, run: MLPerfRun, suite: Suite) -> Fleet:
        nodes, system = self._view.all(), suite.systems[run.spec.system]
        return Fleet(
            nodes=nodes,
            foreign={node.name: self._view.foreign_pods(node.name) for node in nodes},
            is_alive=self.is_alive,
            gpus=run.spec.gpu.count or system.gpu_count,
            product=system.gpu_product,
        )

    async def _take(self, run: MLPerfRun, choice: Take) -> Use | Blocked:
        node = await self._first_idle(choice)
        if isinstance(node, Blocked):
            return node
        meta = run.metadata
        claim = node.claim.pruned(self.is_alive)
        claim = claim.joined(meta.uid, f"{meta.namespace}/{meta.name}", choice.version)
        patch = {"metadata": {"annotations": {naming.DRIVER_CLAIM_ANNOTATION: claims.write(claim)}}}
        stored = await self._view.patch(node, patch)
        if stored.driver_ready == choice.version:
            return Use(stored, choice.version)
        return Blocked("DriverInstalling", f"node {node.name} gets driver {choice.version}")

    async def _first_idle(self, choice: Take) -> NodeRecord | Blocked:
        """Return the first node that need not change, that others change already, or that no pod with GPUs is on."""
        nodes = choice.nodes
        if nodes[0].driver_ready == choice.version:
            return nodes[0]
        turn = self._whose_turn(nodes)
        for node in nodes:
            if node.claim.pruned(self.is_alive).runs:
                return node
            if node.name in turn and not await self._is_busy(node.name):
                return node
        busy = {node.name: self._busy[node.name][1] for node in nodes if node.name in self._busy}
        evictable = [n for n in nodes if n.name in busy and not any(pod.is_run for pod in busy[n.name])]
        return evictable[0] if self._settings.evict_gpu_pods and evictable else _all_in_use(busy, len(nodes))

    def _whose_turn(self, nodes: Sequence[NodeRecord]) -> set[str]:
        """Return the nodes to look at now: those that nobody has looked at for the longest time."""
        pause, now = max(BUSY_SECONDS, len(nodes) / LOOKS_PER_SECOND), self._clock()
        seen = {node.name: self._busy[node.name][0] for node in nodes if node.name in self._busy}
        due = [node.name for node in nodes if node.name not in seen or now >= seen[node.name] + pause]
        return set(sorted(due, key=lambda name: seen.get(name, 0.0))[:MAX_LOOKS])

    async def _is_busy(self, node: str) -> bool:
        pods = await gpu_pods(self._cluster, node)
        self._busy = {name: found for name, found in self._busy.items() if name != node and self._view.get(name)}
        if pods:
            self._busy[node] = self._clock(), pods
        return bool(pods)


def _all_in_use(busy: Mapping[str, Sequence[GpuPod]], nodes: int) -> Blocked:
    names = "; ".join(f"{name} by {', '.join(map(str, busy[name][:3]))}" for name in list(busy)[:MAX_NAMED])
    which = "every node that fits" if len(busy) == nodes else f"{len(busy)} of {nodes} nodes that fit"
    return Blocked(
        "GPUInUse",
        f"the GPUs of {which} are in use: {names}; the run goes on when a node is idle, or with chart value "
        "driver.evictGpuPods",
    )


def _check_fabric_manager(run: MLPerfRun, node: NodeRecord) -> None:
    told = node.told
    if run.spec.driver.fabric_manager is FabricManagerPolicy.REQUIRED and (told is None or told.fabric_manager is None):
        text = f"driver.fabricManager is Required and node {node.name} has none: it has no NVSwitch; set it to Auto"
        raise NotReadyError(Blocked("FabricManagerMissing", text))


async def gpu_pods(cluster: Cluster, node: str) -> list[GpuPod]:
    """Return the pods on a node that ask for GPUs in any of their containers, or are runs that get them uncounted.

    Raises:
        ApiError: they could not be listed.
    """
    return [_gpu_pod(body) for body in await cluster.pods_on(node) if _uses_gpus(body)]


def _uses_gpus(body: Mapping[str, Any]) -> bool:
    # A run with gpu.access RuntimeClass requests none and has all of them.
    uncounted = naming.RUN_UID_LABEL in _labels(body) and "runtimeClassName" in body["spec"]
    return uncounted or _asks_for_gpus(body["spec"])


def _labels(body: Mapping[str, Any]) -> Mapping[str, str]:
    return body["metadata"].get("labels") or {}


def _asks_for_gpus(spec: Mapping[str, Any]) -> bool:
    # NVIDIA's operator looks at containers only and so misses pods whose init containers have the GPUs.
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    amounts = [(c.get("resources") or {}).get("limits") or {} for c in containers]
    return any(name == GPU_RESOURCE or name.startswith("nvidia.com/mig-") for limits in amounts for name in limits)


def _gpu_pod(body: Mapping[str, Any]) -> GpuPod:
    meta = body["metadata"]
    return GpuPod(meta["namespace"], meta["name"], meta["uid"], is_run=naming.RUN_UID_LABEL in _labels(body))
