"""Where faults are played: a fleet with an audit log, replicas behind their proxies, and a watcher beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from chaos import audit
from chaos.history import History, Json
from chaos.invariants import ours
from chaos.proxy import GROUP, FaultProxy, Upstream
from chaos.replica import LEASE, Replica
from fleet import requests, workload
from fleet.fleet import Fleet
from fleet.requests import JSON
from fleet.workload import SCRATCH
from mlperf_operator.cluster import CLAIMS, CONFIG_MAPS, JOBS, MLPERF_RUNS, PODS

REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEM = "chaos-system"
"""The operator's own namespace: its Lease."""

_RBAC = "rbac.authorization.k8s.io"
_KINDS = (JOBS, CONFIG_MAPS, PODS, CLAIMS)


def crd() -> Json:
    """Return the CRD that is checked in."""
    [file] = (REPOSITORY / "crds").glob("mlperf.dev_*.yaml")
    return dict(yaml.safe_load(file.read_text()))


class Lab:
    """One fleet, and what scenarios do there as its administrator."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.cluster = fleet.cluster
        self.folder = folder
        self.history = History()
        spec, certs = fleet.layout.read_spec(), fleet.layout.certs
        port = spec.ports.apiserver if spec is not None else 0
        self._upstream = Upstream(
            f"https://127.0.0.1:{port}", certs / "ca.crt", certs / "admin.crt", certs / "admin.key"
        )

    @classmethod
    @asynccontextmanager
    async def on(cls, fleet: Fleet, folder: Path) -> AsyncIterator[Lab]:
        """Make a fleet a lab: the replicas' rights, the operator's namespace, and the watcher."""
        lab = cls(fleet, folder)
        await lab._grant_rights()
        await lab.make_namespace(SYSTEM)
        recorder = asyncio.create_task(lab.history.record(fleet.cluster))
        try:
            yield lab
        finally:
            recorder.cancel()
            await asyncio.gather(recorder, return_exceptions=True)

    async def request(
        self, method: str, url: str, body: Json | None = None, *, query: dict[str, str] | None = None, kind: str = JSON
    ) -> Json:
        """Ask the API server as its administrator, past every proxy."""
        return await requests.ask(self.cluster, method, url, body, query=query, kind=kind)

    async def apply_crd(self, definition: Json) -> None:
        """Apply a CRD and wait until its objects are served."""
        await requests.apply(self.cluster, definition)
        url = requests.CRDS.url(None, definition["metadata"]["name"])
        async with asyncio.timeout(30):
            while not _established(await self.request("GET", url)):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.05)

    async def _grant_rights(self) -> None:
        """Give the replicas what the chart gives the operator, in all namespaces."""
        documents = yaml.safe_load_all((REPOSITORY / "manifests/operator.yaml").read_text())
        roles = {d["kind"]: d for d in documents if d and d["metadata"]["name"] == "mlperf-operator"}
        rules = [*roles["ClusterRole"]["rules"], *roles["Role"]["rules"]]
        meta = {"name": "mlperf-chaos"}
        role = {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": meta, "rules": rules}
        binding = {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "mlperf-chaos"},
            "subjects": [{"apiGroup": _RBAC, "kind": "Group", "name": GROUP}],
        }
        await requests.apply(self.cluster, role)
        await requests.apply(self.cluster, binding)

    async def make_namespace(self, name: str) -> None:
        """Make a namespace."""
        await requests.apply(self.cluster, workload.namespace(name))

    async def remove_namespace(self, name: str) -> None:
        """Delete a namespace; whoever wants to know when it is gone asks `namespace_gone`."""
        await self.request("DELETE", requests.NAMESPACES.url(None, name), {})

    async def namespace_gone(self, name: str) -> bool:
        """Say whether a namespace is gone."""
        return await self.cluster.get(requests.NAMESPACES, None, name) is None

    @asynccontextmanager
    async def replica(
        self,
        identity: str,
        *,
        lease: dict[str, float] = LEASE,
        clock: Path | None = None,
        forked: bool = True,
        **settings: str,
    ) -> AsyncIterator[tuple[Replica, FaultProxy]]:
        """Run a replica behind a proxy of its own; it is kept running until it is stopped."""
        async with FaultProxy(self._upstream, f"chaos-{identity}", self.folder) as proxy:
            named = {"NAMESPACE": SYSTEM, "ALLOWED_HOST_PATHS": SCRATCH, **settings}
            replica = Replica(identity, proxy.kubeconfig, self.folder, named, lease=lease)
            replica.clock, replica.forked = clock, forked
            replica.start()
            try:
                yield replica, proxy
            finally:
                await replica.stop()

    async def children(self, namespace: str) -> list[Json]:
        """Return the objects of the operator's making in a namespace, and the pods of its Jobs."""
        found: list[Json] = []
        for resource in _KINDS:
            listed = await self.request("GET", resource.url(namespace))
            found += [{**body, "kind": resource.kind} for body in listed["items"]]
        return ours(found)

    async def runs(self, namespace: str) -> list[Json]:
        """Return the runs of a namespace."""
        return list((await self.request("GET", MLPERF_RUNS.url(namespace)))["items"])

    def writes(self, since: datetime) -> list[audit.Write]:
        """Return what the replicas wrote since then, by the audit log."""
        return [w for w in audit.writes(self.fleet.audit_logs, since) if w.user.startswith("chaos-")]


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


def _established(definition: dict[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
