"""An API server in memory with what drivers need: nodes, pods, DaemonSets and runs, and one life of the operator."""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.catalogue import DriverSettings
from mlperf_operator.cluster import ApiError, Cluster, Resource
from mlperf_operator.driver_keeper import DriverKeeper
from mlperf_operator.informer import Informer
from mlperf_operator.inputs import NotReadyError
from mlperf_operator.node_reconcile import NodeReconciler
from mlperf_operator.node_view import NodeView
from mlperf_operator.nodes.records import (
    DriverPodRecord,
    ForeignPodRecord,
    NodeRecord,
    decode_driver_pod,
    decode_foreign_pod,
    decode_node,
)
from mlperf_operator.observed import Blocked, RunRecord, decode_run
from mlperf_operator.resources.driver_daemonset import DriverImages, Home
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import NOW
from unit.nodes.builders import SETTINGS
from unit.reconcile.world import Trouble

SYSTEM = "mlperf-system"
DRIVER_OWNER = "mlperf-operator-driver"
NVIDIA = BUILT_IN["nvidia-v4.1"]
Body = dict[str, Any]


def merged(base: Any, patch: Any) -> Any:
    """Return what a JSON merge patch makes of a document."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    found = dict(base) if isinstance(base, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


@dataclass
class Api:
    """Objects by kind, namespace and name, one clock, and what a test wants to go wrong."""

    now: datetime = NOW
    objects: dict[tuple[str, str, str], Body] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    """Last line of a driver pod's log, by its name."""
    requests: list[str] = field(default_factory=list)
    events: list[Body] = field(default_factory=list)
    troubles: list[Trouble | None] = field(default_factory=list)
    """Of the requests to come, in order."""
    meanwhile: list[Callable[[], None]] = field(default_factory=list)
    """What happens before each of the requests to come, in order."""
    on_patch: Callable[[Body, Body], None] = lambda _before, _after: None
    budgets: set[str] = field(default_factory=set)
    """Pods that a disruption budget protects."""
    version: int = 100

    def put(self, body: Mapping[str, Any]) -> Body:
        """Store an object as the server would."""
        stored = copy.deepcopy(dict(body))
        self.version += 1
        meta = stored["metadata"]
        meta.setdefault("uid", f"{stored['kind'].lower()}-{self.version}")
        meta["resourceVersion"] = str(self.version)
        self.objects[stored["kind"], meta.get("namespace", ""), meta["name"]] = stored
        return copy.deepcopy(stored)

    def clock(self) -> float:
        """Return the present time in seconds."""
        return self.now.timestamp()

    def all(self, kind: str) -> list[Body]:
        """Return every object of a kind."""
        return [body for (found, _, _), body in self.objects.items() if found == kind]

    def node(self, name: str = "node-1") -> Body:
        """Return a node as stored."""
        return self.objects["Node", "", name]

    def writes(self) -> list[str]:
        """Return the requests so far that change something."""
        return [request for request in self.requests if not request.startswith(("GET", "event"))]

    @contextmanager
    def _request(self, words: str) -> Iterator[None]:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        self.requests.append(words)
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None and not trouble.late:
            raise trouble.error
        yield
        if trouble is not None:
            raise trouble.error

    # What the operator calls; the signatures are Cluster's.

    async def patch_node(self, name: str, resource_version: str, patch: Mapping[str, Any]) -> Body:
        with self._request(f"patch {name}"):
            before = self.objects.get(("Node", "", name))
            if before is None:
                raise ApiError(404, "NotFound", f"nodes {name} not found")
            if before["metadata"]["resourceVersion"] != resource_version:
                raise ApiError(409, "Conflict", "the object has been modified")
            after: Body = merged(before, patch)
            self.on_patch(before, after)
            return self.put(after)

    async def get(self, resource: Resource, namespace: str, name: str) -> Body | None:
        with self._request(f"GET {resource.kind} {name}"):
            return copy.deepcopy(self.objects.get((resource.kind, namespace, name)))

    async def apply(self, body: Mapping[str, Any]) -> Body:
        name = body["metadata"]["name"]
        with self._request(f"apply {name}"):
            before = self.objects.get((body["kind"], SYSTEM, name))
            meta = {**body["metadata"], **({"uid": before["metadata"]["uid"]} if before else {})}
            return self.put({**body, "metadata": meta})

    async def evict(self, namespace: str, name: str, uid: str) -> None:
        with self._request(f"evict {namespace}/{name}"):
            if name in self.budgets:
                raise ApiError(429, "TooManyRequests", "it would violate the pod's disruption budget")
            if self.objects.get(("Pod", namespace, name), {}).get("metadata", {}).get("uid") == uid:
                del self.objects["Pod", namespace, name]

    async def pods_on(self, node: str) -> list[Body]:
        with self._request(f"GET pods on {node}"):
            pods = [pod for pod in self.all("Pod") if pod.get("spec", {}).get("nodeName") == node]
            return copy.deepcopy([p for p in pods if p.get("status", {}).get("phase") not in ("Succeeded", "Failed")])

    async def list_in(self, resource: Resource, namespace: str, label_selector: str) -> list[Body]:
        key, _, value = label_selector.partition("=")
        with self._request(f"GET {resource.plural}"):
            found = [body for body in self.all(resource.kind) if body["metadata"]["namespace"] == namespace]
            return copy.deepcopy([body for body in found if body["metadata"]["labels"].get(key) == value])

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        with self._request(f"delete {resource.kind} {name}"):
            found = self.objects.get((resource.kind, namespace, name))
            if found is not None and found["metadata"]["uid"] == uid:
                del self.objects[resource.kind, namespace, name]

    async def read_log(self, namespace: str, pod: str, container: str, *, last_lines: int | None = None) -> str:
        assert (namespace, container, last_lines) == (SYSTEM, "verify", 1)
        with self._request(f"GET log of {pod}"):
            if pod not in self.logs:
                raise ApiError(400, "BadRequest", "container is waiting to start")
            return self.logs[pod] + "\n"

    async def emit_event(self, body: Mapping[str, Any]) -> None:
        with self._request(f"event {body['reason']}"):
            self.events.append(dict(body))


T = TypeVar("T")
R = TypeVar("R", DriverPodRecord, ForeignPodRecord)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, as none does against an API in memory."""
    try:
        work.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    raise AssertionError("it waits")


class _ByNode(Generic[R]):
    def __init__(self) -> None:
        self.records: list[R] = []

    def by_index(self, value: str, /) -> tuple[R, ...]:
        return tuple(record for record in self.records if record.node == value)


class Operator:
    """One life of the operator; its caches are as old as its last looks."""

    def __init__(self, api: Api, settings: DriverSettings = SETTINGS) -> None:
        self.api = api
        self.nodes: dict[str, NodeRecord] = {}
        self.runs: dict[str, RunRecord] = {}
        self.pods: _ByNode[DriverPodRecord] = _ByNode()
        self.foreign: _ByNode[ForeignPodRecord] = _ByNode()
        cluster = cast("Cluster", api)
        pods, foreign = cast("Informer[DriverPodRecord]", self.pods), cast("Informer[ForeignPodRecord]", self.foreign)
        self.view = NodeView(cluster, self.nodes, pods, foreign)
        self.keeper = DriverKeeper(cluster, self.view, self.runs, settings, clock=self.api.clock)
        images = DriverImages("operator:1", "IfNotPresent")
        self.reconciler = NodeReconciler(
            cluster, self.view, self.keeper, settings, images, Home(SYSTEM, DRIVER_OWNER), now=lambda: self.api.now
        )
        self.look()

    def look(self, *kinds: str) -> None:
        """Let the informers of these kinds, or all, catch up."""
        every = not kinds
        if every or "Node" in kinds:
            self.nodes.clear()
            self.nodes.update((f"/{body['metadata']['name']}", decode_node(body)) for body in self._bodies("Node"))
        if every or "MLPerfRun" in kinds:
            self.runs.clear()
            records = map(decode_run, self._bodies("MLPerfRun"))
            self.runs.update((f"{record.namespace}/{record.name}", record) for record in records)
        if every or "Pod" in kinds:
            pods = [(body["metadata"].get("labels", {}), body) for body in self._bodies("Pod")]
            ours = [body for labels, body in pods if labels.get(naming.COMPONENT_LABEL) == naming.DRIVER_AGENT]
            self.pods.records = [decode_driver_pod(body) for body in ours if body["metadata"]["namespace"] == SYSTEM]
            others = [body for labels, body in pods if labels.get(naming.COMPONENT_LABEL) == "nvidia-driver"]
            self.foreign.records = [decode_foreign_pod(body) for body in others]

    def _bodies(self, kind: str) -> list[Body]:
        return copy.deepcopy(self.api.all(kind))

    async def reconcile(self, name: str = "node-1", *, look: bool = True) -> timedelta | None:
        """Reconcile a node once."""
        if look:
            self.look()
        return await self.reconciler.reconcile(name)

    async def driver_for(self, key: str, *, look: bool = True) -> str | Blocked | None:
        """Ask for a run's driver once."""
        if look:
            self.look()
        run = MLPerfRun.model_validate(self.runs[key].body)
        try:
            return await self.keeper.driver_for(run, NVIDIA)
        except NotReadyError as error:
            return error.blocked


def new_node(api: Api, name: str = "node-1", opt_in: str | None = "install", **labels: str) -> Body:
    """Store a Ready node without a GPU that is allocatable."""
    own = {naming.DRIVER_OPT_IN_LABEL: opt_in} if opt_in else {}
    return api.put(
        {
            "kind": "Node",
            "metadata": {"name": name, "labels": {**own, **labels}, "annotations": {}},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {}},
        }
    )


def new_run(api: Api, name: str = "a", version: str = "550", **spec: Any) -> str:
    """Store a run that wants a driver, and return its key."""
    driver = {"policy": "Ensure", "version": version, **spec.pop("driver", {})}
    base = {
        "suite": "nvidia-v4.1",
        "system": "A100_SXM4_40GBx8",
        "benchmarks": [{"name": "bert"}],
        "scratch": {"claimName": "scratch"},
    }
    meta = {"name": name, "namespace": "bench", "uid": f"uid-{name}", "creationTimestamp": "2026-01-02T03:04:05Z"}
    api.put({"kind": "MLPerfRun", "metadata": meta, "spec": {**base, "driver": driver, **spec}, "status": {}})
    return f"bench/{name}"


def finish(api: Api, name: str) -> None:
    """Let a run have ended."""
    run = api.objects["MLPerfRun", "bench", name]
    run["status"]["conditions"] = [{"type": "Finished", "status": "True"}]
    api.put(run)


def gpu_pod(api: Api, name: str = "train", node: str = "node-1", **changes: Any) -> Body:
    """Store somebody's pod with a GPU."""
    limits = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    meta = {"name": name, "namespace": "team", "labels": changes.pop("labels", {})}
    spec = {"nodeName": node, "containers": [limits], **changes}
    return api.put({"kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Running"}})
