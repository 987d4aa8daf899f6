"""One node brought one step closer to the driver that its runs want: gather, nodes.next_step, act."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from mlperf_operator import driver_signs, naming
from mlperf_operator.catalogue import Driver, DriverSettings, Mode
from mlperf_operator.cluster import CONFIG_MAPS, DAEMON_SETS, PODS, ApiError, Cluster
from mlperf_operator.driver_keeper import DriverKeeper, gpu_pods
from mlperf_operator.driver_report import NodeReport
from mlperf_operator.events import node_event
from mlperf_operator.node_view import NodeView
from mlperf_operator.nodes import claims, state
from mlperf_operator.nodes.next_step import needs_gpu_pods, next_step
from mlperf_operator.nodes.records import DriverPodRecord, NodeRecord
from mlperf_operator.nodes.state import NodeState
from mlperf_operator.nodes.step import Step, World
from mlperf_operator.nodes.watch import parsed
from mlperf_operator.resources.driver_daemonset import (
    VERIFY,
    DriverImages,
    Home,
    daemon_set_name,
    driver_daemon_set,
    template_digest,
    with_owner,
)

logger = logging.getLogger(__name__)

CONFLICT = 409
BAD_REQUEST = 400
"""The answer to a question for the log of a container that has not started."""

SOON = timedelta(milliseconds=500)

FLEET = ""
"""The key that stands for no node but for the DaemonSets of all: those that no node needs are deleted."""


@dataclass(frozen=True)
class _Told:
    """The last line of a driver pod's log, and how ready it was then."""

    pod_uid: str
    ready: bool
    report: NodeReport | None


class NodeReconciler:
    """Brings one node at a time closer to its driver."""

    def __init__(
        self,
        cluster: Cluster,
        view: NodeView,
        keeper: DriverKeeper,
        settings: DriverSettings,
        images: DriverImages,
        home: Home,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._cluster = cluster
        self._view = view
        self._keeper = keeper
        self._settings = settings
        self._images = images
        self._home = home
        self._now = now
        self._daemon_sets: dict[str, Mapping[str, Any]] = {}
        self._applied: dict[str, str] = {}
        self._told: dict[str, _Told] = {}
        """By node."""

    async def reconcile(self, name: str) -> timedelta | None:
        """Do what a node needs next.

        Returns:
            After how long to look again, or None when only an event can change anything.

        Raises:
            ApiError: the API server failed; the caller retries with backoff.
        """
        if name == FLEET:
            await self._sweep()
            return None
        node = self._view.get(name)
        if node is None or not _concerns_us(node):
            return None
        world = await self._world(node)
        step = next_step(world, self._now())
        try:
            return await self._act(world, step)
        except ApiError as error:
            if error.status != CONFLICT:
                raise
            # Somebody wrote to the node meanwhile, as its kubelet does all the time.
            return SOON

    async def _world(self, node: NodeRecord) -> World:
        claim = node.claim.pruned(self._keeper.is_alive)
        pods = tuple(self._view.driver_pods(node.name))
        world = World(
            node=node,
            catalogue=self._settings,
            claim=claim,
            somebody_waits=any(self._keeper.has_no_job(key) for key in claim.runs.values()),
            managed=driver_signs.manager_of(node.labels, node.annotations, self._view.foreign_pods(node.name)),
            pods=pods,
            told=await self._report_of(pods),
            evict=self._settings.evict_gpu_pods,
            pause=timedelta(seconds=self._settings.retry_seconds),
        )
        if node.mode is not None and (node.mode == "Verify" or world.driver is not None):
            driver = None if node.mode == "Verify" else world.driver
            world = replace(world, digest=template_digest(self._daemon_set(node.mode, driver)))
        if needs_gpu_pods(world):
            world = replace(world, gpu_pods=tuple(await gpu_pods(self._cluster, node.name)))
        return world

    async def _report_of(self, pods: tuple[DriverPodRecord, ...]) -> NodeReport | None:
        """Return what the driver pod says now; its log is read when it became ready, and while it is not."""
        pod = next((p for p in pods if p.ensured and not p.deleting), None)
        if pod is None:
            return None
        told = self._told.get(pod.node)
        if told is not None and told.pod_uid != pod.uid:
            told = None
        # The log may lag behind the probe: what says "not ready" of a pod that is, is read again.
        if told is None or not (pod.ready and told.ready and told.report is not None and told.report.ready):
            try:
                log = await self._cluster.read_log(pod.namespace, pod.name, VERIFY, last_lines=1)
            except ApiError as error:
                # The kubelet does not answer, or the container is just starting: the labels follow its readiness alone.
                level = logging.DEBUG if error.status == BAD_REQUEST else logging.INFO
                logger.log(level, "log of driver pod %s cannot be read: %s", pod.name, error)
                return told.report if told is not None else None
            told = self._told[pod.node] = _Told(pod.uid, pod.ready, parsed(log.strip()))
        return told.report

    def _daemon_set(self, mode: Mode, driver: Driver | None) -> Mapping[str, Any]:
        """Return the DaemonSet of a mode and version: made once, since all that it is made from stays as it is."""
        name = daemon_set_name(mode, driver)
        if name not in self._daemon_sets:
            body = driver_daemon_set(mode, driver, self._settings, self._images, self._home.namespace)
            self._daemon_sets[name] = body
        return self._daemon_sets[name]

    async def _act(self, world: World, step: Step) -> timedelta | None:
        node, again = world.node, step.again
        if step.daemon_set is not None:
            # While no pod of it is there, it is made again: somebody may have deleted it.
            await self._apply(*step.daemon_set, again=not world.pods)
        patch = node_patch(world, step)
        if patch:
            stored = await self._view.patch(node, patch)
            await self._tell(node.told, step.report, stored)
        for pod in step.evict:
            try:
                await self._cluster.evict(pod.namespace, pod.name, pod.uid)
            except ApiError as error:
                if error.status != 429:
                    raise
                logger.info("node %s: eviction of %s is refused and tried again: %s", node.name, pod, error.message)
        for driver_pod in step.delete:
            await self._cluster.delete(PODS, driver_pod.namespace, driver_pod.name, driver_pod.uid)
        return again

    async def _apply(self, mode: Mode, driver: Driver | None, *, again: bool) -> None:
        body = self._daemon_set(mode, driver)
        name, digest = body["metadata"]["name"], template_digest(body)
        if self._applied.get(name) == digest and not again:
            return
        owner = await self._owned_by()
        await self._cluster.apply(with_owner(body, owner) if owner is not None else body)
        self._applied[name] = digest

    async def _owned_by(self) -> Mapping[str, Any] | None:
        """Return the ConfigMap that the chart takes away when it is uninstalled, and DaemonSets of ours with it."""
        if not self._home.owner:
            return None
        return await self._cluster.get(CONFIG_MAPS, self._home.namespace, self._home.owner)

    async def _tell(self, before: NodeState | None, after: NodeState | None, node: NodeRecord) -> None:
        if after is None or (before is not None and (before.reason, before.version) == (after.reason, after.version)):
            return
        logger.info("node %s: %s: %s", node.name, after.reason, after.message)
        try:
            await self._cluster.emit_event(
                node_event(node.name, node.uid, after.phase, after.reason, after.message, self._now())
            )
        except ApiError as error:
            # Events are a convenience; the report, which is the truth, is already written.
            logger.warning("event %s of node %s was not written: %s", after.reason, node.name, error)

    async def _sweep(self) -> None:
        """Delete the DaemonSets that no node needs any more."""
        for body in await self._cluster.list_in(DAEMON_SETS, self._home.namespace, naming.DRIVER_SELECTOR):
            meta = body["metadata"]
            if meta["labels"].get(naming.MANAGED_BY_LABEL) != naming.MANAGER:
                # Another program's, which calls its component so, too.
                continue
            # Asked each time: a node may have been labelled while the one before was deleted.
            if meta["name"] not in self._needed() and not self._is_used(body):
                await self._cluster.delete(DAEMON_SETS, self._home.namespace, meta["name"], meta["uid"])
                self._applied.pop(meta["name"], None)

    def _needed(self) -> set[str]:
        needed = set()
        for node in self._view.all():
            if node.mode == "Verify":
                needed.add(daemon_set_name("Verify", None))
            elif node.mode is not None and node.wanted is not None:
                driver = self._settings.find(node.wanted)
                needed |= {daemon_set_name(node.mode, driver)} if driver is not None else set()
        return needed

    def _is_used(self, body: Mapping[str, Any]) -> bool:
        # Of a version that left the catalogue: it goes on watching where it was installed.
        labels = body["metadata"].get("labels") or {}
        version, mode = labels.get(naming.DRIVER_VERSION_LABEL, ""), labels.get(naming.DRIVER_MODE_LABEL, "")
        return any(version and (node.wanted, node.mode) == (version, mode) for node in self._view.all())


def _concerns_us(node: NodeRecord) -> bool:
    """Say whether a node was opted in, or still carries something of ours."""
    ours = (node.wanted, node.loaded, node.driver_ready)
    return (
        naming.DRIVER_OPT_IN_LABEL in node.labels
        or any(ours)
        or any(key in node.annotations for key in (naming.DRIVER_CORDON_ANNOTATION, naming.DRIVER_CLAIM_ANNOTATION))
    )


def node_patch(world: World, step: Step) -> dict[str, Any]:
    """Return the merge patch that makes a node as the step says, empty when it is so."""
    node = world.node
    labels = _changes(
        node.labels,
        {
            naming.DRIVER_WANTED_LABEL: step.wanted,
            naming.DRIVER_LOADED_LABEL: step.loaded,
            naming.DRIVER_READY_LABEL: step.ready,
        },
    )
    cordoned = naming.DRIVER_CORDON_ANNOTATION in node.annotations
    cordon = cordoned or not node.unschedulable if step.cordon else False
    annotations = _changes(
        node.annotations,
        {
            naming.DRIVER_REPORT_ANNOTATION: state.write(step.report),
            naming.DRIVER_CLAIM_ANNOTATION: claims.write(world.claim),
            naming.DRIVER_CORDON_ANNOTATION: "true" if cordon else None,
        },
    )
    metadata = {key: value for key, value in (("labels", labels), ("annotations", annotations)) if value}
    patch: dict[str, Any] = {"metadata": metadata} if metadata else {}
    if cordon and not node.unschedulable:
        patch["spec"] = {"unschedulable": True}
    elif cordoned and not cordon:
        patch["spec"] = {"unschedulable": None}
    return patch


def _changes(now: Mapping[str, str], wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    return {key: value for key, value in wanted.items() if now.get(key) != value}
