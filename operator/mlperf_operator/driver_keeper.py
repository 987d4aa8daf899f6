"""A run's way to its driver: the node that it claims, and what it waits for until that node is ready."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import FabricManagerPolicy, MLPerfRun
from mlperf_operator.catalogue import DriverSettings
from mlperf_operator.cluster import Cluster
from mlperf_operator.inputs import NotReadyError
from mlperf_operator.node_view import NodeView
from mlperf_operator.nodes import claims, state
from mlperf_operator.nodes.choice import Fleet, Take, Use, choose, wanted_driver
from mlperf_operator.nodes.records import NodeRecord
from mlperf_operator.nodes.step import GpuPod
from mlperf_operator.observed import Blocked, DriverView, RunRecord
from mlperf_operator.outcome import SUSPENDED
from mlperf_operator.resources.containers import GPU_RESOURCE
from mlperf_operator.suites import Suite

MAX_LOOKS = 8
"""How many nodes that nobody claims are asked for their pods to find an idle one."""


class DriverKeeper:
    """Finds, claims and watches the nodes of runs."""

    def __init__(
        self, cluster: Cluster, view: NodeView, runs: Mapping[str, RunRecord], settings: DriverSettings
    ) -> None:
        self._cluster = cluster
        self._view = view
        self._runs = runs
        self._settings = settings
        self._first_look = 0
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
        """Return how the driver stands on the node that a run claimed, or that its pod is on."""
        claimed = next((n for n in self._view.all() if run.metadata.uid in claims.read(n.annotations).runs), None)
        record = claimed or (self._view.get(node) if node else None)
        told = state.read(record.annotations) if record is not None else None
        if record is None or told is None:
            return None
        return DriverView(
            node=record.name,
            ready=told.driver is not None and record.driver_ready == told.driver,
            working=told.phase is state.Phase.WORKING,
            claimed=claimed is not None,
            reason=told.reason,
            message=told.message,
            version=told.driver,
            fabric_manager=told.fabric_manager,
            managed_by=told.managed_by,
        )

    def is_alive(self, key: str, uid: str) -> bool:
        """Say whether a run holds its node: until it has finished, but not while it is suspended without a Job."""
        record = self._runs.get(key)
        if record is None or record.uid != uid:
            return False
        if record.body["spec"].get("suspend") and self.has_no_job(key):
            return False
        conditions = record.body.get("status", {}).get("conditions") or ()
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
        claim = claims.read(node.annotations).pruned(self.is_alive)
        claim = claim.joined(meta.uid, f"{meta.namespace}/{meta.name}", choice.version)
        patch = {"metadata": {"annotations": {naming.DRIVER_CLAIM_ANNOTATION: claims.write(claim)}}}
        stored = await self._view.patch(node, patch)
        if stored.driver_ready == choice.version:
            return Use(stored, choice.version)
        return Blocked("DriverInstalling", f"node {node.name} gets driver {choice.version}")

    async def _first_idle(self, choice: Take) -> NodeRecord | Blocked:
        """Return the first node that need not change, that others change already, or that no pod with GPUs is on."""
        nodes, busy = choice.nodes, dict[str, list[GpuPod]]()
        if nodes[0].driver_ready == choice.version:
            return nodes[0]
        # In a large fleet each try looks at other nodes.
        start = self._first_look % len(nodes)
        for node in (*nodes[start:], *nodes[:start])[:MAX_LOOKS]:
            if claims.read(node.annotations).pruned(self.is_alive).runs:
                return node
            pods = await gpu_pods(self._cluster, node.name)
            if not pods:
                return node
            busy[node.name] = pods
        self._first_look = start + MAX_LOOKS if len(nodes) > MAX_LOOKS else 0
        evictable = [n for n in choice.nodes if not any(pod.is_run for pod in busy.get(n.name, ()))]
        if self._settings.evict_gpu_pods and evictable:
            return evictable[0]
        names = "; ".join(f"{name} by {', '.join(str(pod) for pod in pods[:3])}" for name, pods in busy.items())
        which = "every node that fits" if len(busy) == len(nodes) else f"{len(busy)} of {len(nodes)} nodes that fit"
        return Blocked(
            "GPUInUse",
            f"the GPUs of {which} are in use: {names}; the run goes on when a node is idle, or with chart value "
            "driver.evictGpuPods",
        )


def _check_fabric_manager(run: MLPerfRun, node: NodeRecord) -> None:
    told = state.read(node.annotations)
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
