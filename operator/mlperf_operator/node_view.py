"""The nodes as the operator knows them: the informer's records, or its own last write where that is newer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlperf_operator.cluster import Cluster
from mlperf_operator.informer import Informer
from mlperf_operator.nodes.records import DriverPodRecord, ForeignPodRecord, NodeRecord, decode_node


class NodeView:
    """Reads and writes nodes so that nobody decides from a record that is older than what was written."""

    def __init__(
        self,
        cluster: Cluster,
        nodes: Mapping[str, NodeRecord],
        pods: Informer[DriverPodRecord],
        foreign: Informer[ForeignPodRecord],
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._pods = pods
        self._foreign = foreign
        self._written: dict[str, NodeRecord] = {}

    def get(self, name: str) -> NodeRecord | None:
        """Return a node, or None when it is gone."""
        record = self._nodes.get(f"/{name}")
        written = self._written.get(name)
        if record is None or written is None:
            return record
        # Resource versions can be compared (KEP-5504).
        if written.uid == record.uid and int(written.resource_version) > int(record.resource_version):
            return written
        del self._written[name]
        return record

    def all(self) -> list[NodeRecord]:
        """Return every node, by name."""
        found = [self.get(key.removeprefix("/")) for key in sorted(self._nodes)]
        return [node for node in found if node is not None]

    def driver_pods(self, node: str) -> Sequence[DriverPodRecord]:
        """Return our driver pods on a node."""
        return self._pods.by_index(node)

    def foreign_pods(self, node: str) -> tuple[str, ...]:
        """Return the driver pods of others on a node, by namespace/name."""
        return tuple(sorted(f"{pod.namespace}/{pod.name}" for pod in self._foreign.by_index(node)))

    async def patch(self, node: NodeRecord, patch: Mapping[str, Any]) -> NodeRecord:
        """Patch a node as it was read, and return it as it is now.

        Raises:
            ApiError: 409 when it changed meanwhile: the caller looks again.
        """
        stored = decode_node(await self._cluster.patch_node(node.name, node.resource_version, patch))
        self._written[node.name] = stored
        return stored
