"""An API server in memory with what reconcile relies on: names, uids, and a Job controller that makes one pod a Job."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.cluster import ApiError, Cluster, Resource
from mlperf_operator.inputs import InputsReader
from mlperf_operator.limits import Limits
from mlperf_operator.naming import RUN_UID_LABEL
from mlperf_operator.observe import Views
from mlperf_operator.observed import JobRecord, PodRecord, RunRecord, decode_job, decode_pod, decode_run, format_time
from mlperf_operator.plan import Inputs
from mlperf_operator.reconcile import Reconciler
from mlperf_operator.resources.containers import COLLECT, PREPARE_STAGES, RUN
from mlperf_operator.resources.job import Images
from mlperf_operator.suites import BUILT_IN, Suite
from unit.core.builders import IMAGES, NOW, UID, result

KEY = "bench/demo"
LIMITS = Limits(suites=BUILT_IN, host_paths=("/mnt/scratch",))
FILES = {"Makefile.docker": "prebuild:\n"}


class CrashError(Exception):
    """The operator died here."""


def _found(status: int, reason: str) -> ApiError:
    return ApiError(status, reason, reason)


@dataclass(frozen=True)
class Trouble:
    """What goes wrong with one request: before it takes effect, or after, when only the answer is lost."""

    error: Exception
    late: bool = False


@dataclass
class World:
    """Objects by kind and name, one clock, and faults that a test asks for."""

    now: datetime = NOW
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    fault: Exception | None = None
    fault_after: int = 0
    troubles: list[Trouble | None] = field(default_factory=list)
    """Of the requests to come, reads included, in order."""
    warnings: list[dict[str, Any]] = field(default_factory=list)
    pods_made: int = 0
    version: int = 100

    def put(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Store an object as the server would: with a uid and a resource version."""
        stored = copy.deepcopy(dict(body))
        self.version += 1
        meta = stored["metadata"]
        meta.setdefault("uid", f"{stored['kind'].lower()}-{self.version}")
        meta.setdefault("creationTimestamp", format_time(self.now))
        meta["resourceVersion"] = str(self.version)
        self.objects[stored["kind"], meta["name"]] = stored
        return copy.deepcopy(stored)

    def run(self) -> dict[str, Any]:
        """Return the run as stored."""
        return self.objects["MLPerfRun", "demo"]

    def condition(self, kind: str) -> tuple[str, str]:
        """Return a condition's status and reason."""
        found = next(c for c in self.run()["status"]["conditions"] if c["type"] == kind)
        return found["status"], found["reason"]

    @contextmanager
    def _request(self, write: str | None = None) -> Iterator[None]:
        if write is not None:
            self.writes.append(write)
            self._fail_if_due()
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None and not trouble.late:
            raise trouble.error
        yield
        if trouble is not None:
            raise trouble.error

    def _fail_if_due(self) -> None:
        if self.fault is not None:
            if self.fault_after == 0:
                fault, self.fault = self.fault, None
                raise fault
            self.fault_after -= 1

    # What reconcile calls; the signatures are Cluster's.

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        kind, name = body["kind"], body["metadata"]["name"]
        with self._request(f"create {kind} {name}"):
            if (kind, name) in self.objects:
                raise _found(409, "AlreadyExists")
            self.created.append(f"{kind} {name}")
            return self.put(body)

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        with self._request():
            return copy.deepcopy(self.objects.get((resource.kind, name)))

    async def delete(
        self, resource: Resource, namespace: str, name: str, uid: str, *, foreground: bool = False
    ) -> None:
        with self._request(f"delete {resource.kind} {name}" + " in the foreground" * foreground):
            self.objects.pop((resource.kind, name), None)

    async def set_job_suspend(self, namespace: str, name: str, uid: str, *, suspend: bool) -> None:
        with self._request(f"suspend {suspend}"):
            job = self.objects.get(("Job", name))
            if job is None or job["metadata"]["uid"] != uid:
                raise _found(404, "NotFound")
            job["spec"]["suspend"] = suspend
            self.put(job)

    async def apply_run_status(
        self, namespace: str, name: str, uid: str, resource_version: str, status: Mapping[str, Any]
    ) -> dict[str, Any]:
        with self._request("status"):
            body = self.objects.get(("MLPerfRun", name))
            if body is None or body["metadata"]["uid"] != uid:
                raise _found(404, "NotFound")
            if body["metadata"]["resourceVersion"] != resource_version:
                raise _found(409, "Conflict")
            body["status"] = copy.deepcopy(dict(status))
            return self.put(body)

    async def emit_event(self, body: Mapping[str, Any]) -> None:
        with self._request():
            if body["metadata"]["name"] not in {event["metadata"]["name"] for event in self.events}:
                self.events.append(dict(body))

    async def warnings_about_jobs(self, namespace: str) -> list[dict[str, Any]]:
        with self._request():
            uid = self.objects["Job", "demo"]["metadata"]["uid"]
            return [{"involvedObject": {"uid": uid}, **warning} for warning in self.warnings]

    async def list_in(self, resource: Resource, namespace: str, label_selector: str) -> list[dict[str, Any]]:
        name, _, value = label_selector.partition("=")
        with self._request():
            bodies = [copy.deepcopy(body) for (kind, _), body in self.objects.items() if kind == resource.kind]
            return [body for body in bodies if (body["metadata"].get("labels") or {}).get(name) == value]

    async def read_log(self, namespace: str, pod: str, container: str) -> str:
        with self._request():
            if pod not in self.logs:
                raise _found(404, "NotFound")
            return self.logs[pod]

    # What happens in the cluster by itself.

    def start_pod(self, job: str = "demo") -> str:
        """Make the Job's next pod, as the Job controller does."""
        self.pods_made += 1
        name = f"{job}-{self.pods_made}"
        labels = {
            **self.objects["Job", job]["spec"]["template"]["metadata"]["labels"],
            "batch.kubernetes.io/job-name": job,
        }
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "controller": True}
        meta = {"name": name, "namespace": "bench", "labels": labels, "ownerReferences": [owner]}
        self.put({"kind": "Pod", "metadata": meta, "spec": {"nodeName": "node-1"}, "status": {"phase": "Pending"}})
        return name

    def end_pod(self, name: str, *, uid: str = UID) -> None:
        """Let a pod end well, with collect's report for this uid."""
        lines = json.dumps({"kind": "result", "uid": uid, "result": result()}) + "\n"
        sha256 = hashlib.sha256(lines.encode()).hexdigest()
        closing = {"kind": "report", "uid": uid, "count": 1, "sha256": sha256}
        self.logs[name] = lines + json.dumps(closing) + "\n"
        ended = {"exitCode": 0, "startedAt": format_time(self.now), "finishedAt": format_time(self.now)}
        said = {**ended, "message": json.dumps(closing)}
        pod = self.objects["Pod", name]
        pod["status"] = {
            "phase": "Succeeded",
            "initContainerStatuses": [
                *({"name": stage, "state": {"terminated": ended}} for stage in PREPARE_STAGES),
                {"name": COLLECT, "state": {"terminated": said}},
            ],
            "containerStatuses": [{"name": RUN, "state": {"terminated": ended}}],
        }
        self.put(pod)

    def end_job(self, outcome: str = "Complete", reason: str = "", *, name: str = "demo") -> None:
        """Let a Job end."""
        job = self.objects["Job", name]
        end = {"type": outcome, "status": "True", "reason": reason, "lastTransitionTime": format_time(self.now)}
        job["status"] = {"conditions": [end], "startTime": format_time(self.now)}
        self.put(job)


R = TypeVar("R", JobRecord, PodRecord)


class _ByRun(Generic[R]):
    def __init__(self, records: list[R]) -> None:
        self._records: list[R] = records

    def by_index(self, value: str, /) -> list[R]:
        return [record for record in self._records if record.run_uid == value]


CHILDREN_POLICY = "policy-1"


class FixedPolicy:
    """An admission policy whose binding stays."""

    async def uid(self) -> str:
        return CHILDREN_POLICY


class FixedInputs:
    """Inputs without a cluster."""

    children_policy = FixedPolicy()

    def images(self, run: MLPerfRun, suite: Suite) -> Images:
        return IMAGES

    async def read(self, run: MLPerfRun, suite: Suite) -> Inputs:
        return Inputs(suite=suite, images=IMAGES, agent_files={"stage.py": ""}, override_files=FILES)


class Operator:
    """One life of the operator: its caches are taken from the world when it looks, or are as old as a test wants."""

    def __init__(self, world: World, limits: Limits = LIMITS) -> None:
        self.world = world
        self.runs: dict[str, RunRecord] = {}
        self.jobs: list[JobRecord] = []
        self.pods: list[PodRecord] = []
        views = Views(runs=self.runs, jobs=_ByRun(self.jobs), pods=_ByRun(self.pods))
        self.reconciler = Reconciler(
            cast("Cluster", world), views, limits, cast("InputsReader", FixedInputs()), now=lambda: world.now
        )

    def look(self, kinds: Collection[str] = ("MLPerfRun", "Job", "Pod")) -> None:
        """Let the informers catch up."""
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        for (kind, _), body in self.world.objects.items():
            if kind in found:
                found[kind].append(copy.deepcopy(body))
        if "MLPerfRun" in found:
            self.runs.clear()
            self.runs.update((KEY, decode_run(body)) for body in found["MLPerfRun"])
        if "Job" in found:
            self.jobs[:] = [decode_job(body) for body in found["Job"] if RUN_UID_LABEL in body["metadata"]["labels"]]
        if "Pod" in found:
            self.pods[:] = [decode_pod(body) for body in found["Pod"] if RUN_UID_LABEL in body["metadata"]["labels"]]

    async def reconcile(self, *, look: bool = True) -> timedelta | None:
        """Reconcile once, with caches that are up to date unless said otherwise."""
        if look:
            self.look()
        return await self.reconciler.reconcile(KEY)


def new_world(spec: Mapping[str, Any] | None = None) -> World:
    """Return a world with one run of the reference suite."""
    world = World()
    base = {
        "suite": "reference-cpu",
        "system": "CPU_REFERENCE",
        "benchmarks": [{"name": "digits", "scenarios": ["Offline"]}],
        "testModes": ["PerformanceOnly"],
    }
    world.put(
        {
            "apiVersion": "mlperf.dev/v1alpha1",
            "kind": "MLPerfRun",
            "metadata": {"name": "demo", "namespace": "bench", "uid": UID, "generation": 1},
            "spec": {**base, **(spec or {})},
            "status": {},
        }
    )
    return world
