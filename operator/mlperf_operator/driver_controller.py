"""Drivers as a part of the operator's process: their informers, the queue of nodes, and its workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from mlperf_operator import naming
from mlperf_operator.catalogue import DriverSettings
from mlperf_operator.cluster import NODES, PODS, Cluster
from mlperf_operator.driver_keeper import DriverKeeper
from mlperf_operator.driver_signs import FOREIGN_SELECTOR
from mlperf_operator.informer import Informer
from mlperf_operator.logs import bind
from mlperf_operator.metrics import UNSEEN, Metrics
from mlperf_operator.node_reconcile import FLEET, NodeReconciler
from mlperf_operator.node_view import NodeView
from mlperf_operator.nodes.records import (
    DriverPodRecord,
    ForeignPodRecord,
    NodeRecord,
    decode_driver_pod,
    decode_foreign_pod,
    decode_node,
)
from mlperf_operator.observed import RunRecord
from mlperf_operator.queue import WorkQueue
from mlperf_operator.resources.driver_daemonset import DriverImages, Home
from mlperf_operator.tasks import first_ended
from mlperf_operator.workers import work

logger = logging.getLogger(__name__)

WORKERS = 4
"""Nodes that are reconciled at the same time; their steps take minutes on the node and milliseconds here."""


class DriverController:
    """Watches nodes and driver pods, and brings nodes closer to the drivers that runs want."""

    def __init__(
        self,
        cluster: Cluster,
        settings: DriverSettings,
        images: DriverImages,
        home: Home,
        runs: Mapping[str, RunRecord],
        wake_run: Callable[[str], None],
        metrics: Metrics = UNSEEN,
    ) -> None:
        self._queue: WorkQueue[str] = WorkQueue("node", metrics)
        self._metrics = metrics.controller("node", WORKERS)
        self._wake_run = wake_run
        self.nodes: Informer[NodeRecord] = Informer(
            cluster, NODES, decode_node, index=lambda node: node.name, on_change=self._node_changed
        )
        # Only of our own namespace: what others label as driver pods says nothing.
        self.pods: Informer[DriverPodRecord] = Informer(
            cluster,
            PODS.within(home.namespace),
            decode_driver_pod,
            label_selector=naming.DRIVER_SELECTOR,
            index=lambda pod: pod.node,
            on_change=self._pod_changed,
            name="driver-pods",
        )
        self.foreign: Informer[ForeignPodRecord] = Informer(
            cluster,
            PODS,
            decode_foreign_pod,
            label_selector=FOREIGN_SELECTOR,
            index=lambda pod: pod.node,
            on_change=self._pod_changed,
            name="foreign-driver-pods",
        )
        self._view = NodeView(cluster, self.nodes.store, self.pods, self.foreign)
        self.keeper = DriverKeeper(cluster, self._view, runs, settings)
        now = cluster.clock.now
        self._reconciler = NodeReconciler(cluster, self._view, self.keeper, settings, images, home, now=now)

    @property
    def informers(self) -> tuple[Informer[NodeRecord], Informer[DriverPodRecord], Informer[ForeignPodRecord]]:
        """All informers."""
        return (self.nodes, self.pods, self.foreign)

    async def run(self) -> None:
        """Reconcile nodes until cancelled; every informer has synced before."""
        logger.info("synced: %d nodes, %d driver pods", len(self.nodes.store), len(self.pods.store))
        self._queue.add(FLEET)
        workers: list[Coroutine[Any, Any, None]] = [
            work(self._queue, self._reconciler.reconcile, lambda key: bind(logger, node=key), self._metrics)
            for _ in range(WORKERS)
        ]
        await first_ended(*workers)

    def run_changed(self, key: str) -> None:
        """Look again at the nodes that a run has claimed: it may have ended."""
        for node in self.nodes.store.values():
            if key in node.claim.runs.values():
                self._queue.add(node.name)

    def resync(self) -> None:
        """Look at every node again."""
        for node in self.nodes.store.values():
            self._queue.add(node.name)
        self._queue.add(FLEET)

    def _node_changed(self, old: NodeRecord | None, new: NodeRecord | None) -> None:
        record = new or old
        if record is None or _same(old, new):
            return
        self._queue.add(record.name)
        if old is None or new is None or (old.wanted, old.mode) != (new.wanted, new.mode):
            self._queue.add(FLEET)
        for key in (*self.keeper.waiting, *record.claim.runs.values()):
            self._wake_run(key)

    def _pod_changed(
        self, old: DriverPodRecord | ForeignPodRecord | None, new: DriverPodRecord | ForeignPodRecord | None
    ) -> None:
        for record in (old, new):
            if record is not None and record.node:
                self._queue.add(record.node)


def _same(old: NodeRecord | None, new: NodeRecord | None) -> bool:
    """Say whether only the version of a node differs, as with each heartbeat of its kubelet."""
    if old is None or new is None:
        return False
    return replace(old, resource_version=new.resource_version) == new
