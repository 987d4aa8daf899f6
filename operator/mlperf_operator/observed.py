"""What the operator saw: slim frozen records of cluster objects, and the snapshot that one decision is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from sys import intern
from typing import Any

import msgspec

from mlperf_operator.api.v1alpha1 import KIND, AuditStatus, ResultStatus
from mlperf_operator.naming import RUN_LABEL, RUN_UID_LABEL

Raw = Mapping[str, Any]

JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
"""Set by the Job controller on a Job's pods."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """An MLPerfRun as stored: not yet checked."""

    namespace: str
    name: str
    uid: str
    text: bytes
    """Its JSON: thousands of finished runs would take four times the memory as objects."""

    @property
    def body(self) -> Raw:
        """The run as objects, made anew each time."""
        return dict(msgspec.json.decode(self.text))


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A Job of a run."""

    namespace: str
    name: str
    uid: str
    run: str
    run_uid: str
    deleting: bool
    suspend: bool
    suspended: bool
    """The Job controller's word: after a resume it stays True until the controller has set a new start time."""
    created_at: datetime
    start_time: datetime | None
    outcome: str | None
    """Complete, Failed or None while it goes on."""
    reason: str
    message: str
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """A container of a pod, init containers included."""

    name: str
    state: str
    """Waiting, Running or Terminated."""
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PodRecord:
    """A pod of a run."""

    namespace: str
    name: str
    uid: str
    job: str
    run: str
    run_uid: str
    node: str | None
    phase: str
    reason: str
    message: str
    created_at: datetime
    start_time: datetime | None
    deleting: bool
    unschedulable: str
    """The scheduler's message while no node fits, else empty."""
    disrupted: bool
    changed_at: datetime
    """When a condition or a container of it changed last; for a pod that has ended, when it did."""
    containers: tuple[ContainerRecord, ...]

    @property
    def ended(self) -> bool:
        """Whether the kubelet is done with it."""
        return self.phase in ("Succeeded", "Failed")

    def container(self, name: str) -> ContainerRecord | None:
        """Return the container of that name, or None before the kubelet reported it."""
        return next((c for c in self.containers if c.name == name), None)


@dataclass(frozen=True)
class Kept:
    """What became of a run's files, as `collect` said."""

    manifest_sha256: str | None = None
    uploaded_to: str | None = None
    upload_error: str | None = None


@dataclass(frozen=True)
class Report:
    """What `collect` reported for exactly this run's uid, verified by count and sha256 unless said otherwise."""

    results: tuple[ResultStatus, ...]
    audits: tuple[AuditStatus, ...] = ()
    kept: Kept = Kept()
    unverified: str = ""
    """Why only a part of the report could be read; it is what was measured, and never a success."""


@dataclass(frozen=True)
class Blocked:
    """Why the run's Job cannot be created yet; it may be possible later."""

    reason: str
    message: str


@dataclass(frozen=True)
class DriverView:
    """How the driver stands on a run's node, as the driver pod there said."""

    node: str
    ready: bool
    working: bool
    """Whether it is being made ready, so that nobody needs to do anything."""
    claimed: bool
    """Whether the run claimed the node: then the operator brings the driver, else it only looks."""
    reason: str
    message: str
    version: str | None
    fabric_manager: str | None
    managed_by: str | None


@dataclass(frozen=True)
class Observed:
    """The world as one reconciliation sees it."""

    job: JobRecord | None = None
    pods: tuple[PodRecord, ...] = ()
    """Pods of the run's Job, oldest first."""
    recovery_job: JobRecord | None = None
    recovery_pods: tuple[PodRecord, ...] = ()
    job_warnings: tuple[str, ...] = ()
    """Messages of the Job's warning events, read only while it has no pod."""
    unwatched: bool = False
    """Whether the Job was read by itself: somebody took its labels away, and no informer tells of its changes."""
    report: Report | None = None
    report_error: str = ""
    """Why there will never be a report although the Job is complete."""
    blocked: Blocked | None = None
    config_digest: str = ""
    driver: DriverView | None = None
    """None where no driver pod watches the run's node."""

    @property
    def pod(self) -> PodRecord | None:
        """The latest pod of the run's Job."""
        return self.pods[-1] if self.pods else None


_YEARS = range(1970, 3000)
"""Years that a time can be in: a timeout added to one near the calendar's end has no date."""


def parse_time(text: str | None) -> datetime | None:
    """Parse the API server's RFC 3339 time; None stays None, and what no clock can have said is None too.

    Who may write a status writes any text in the form of a date there: year 0, year 9999, no zone.
    """
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    if moment is None or moment.year not in _YEARS:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def format_time(moment: datetime) -> str:
    """Format a time as the API server does: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _created(meta: Raw) -> datetime:
    return parse_time(meta.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC)


def controller(meta: Raw, kind: str) -> Raw:
    """Return the owner of this kind that controls an object: labels are anybody's to copy, an owner is meant."""
    owners = meta.get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller") and owner["kind"] == kind), {})


def decode_run(body: Raw) -> RunRecord:
    """Keep of an MLPerfRun what reconciling needs."""
    meta = body["metadata"]
    slim = {key: value for key, value in meta.items() if key != "managedFields"}
    text = msgspec.json.encode({**body, "metadata": slim})
    return RunRecord(namespace=meta["namespace"], name=meta["name"], uid=meta["uid"], text=text)


def decode_job(body: Raw) -> JobRecord:
    """Keep of a Job what reconciling needs."""
    meta, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    owner = controller(meta, KIND)
    true = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    end = true.get("Complete") or true.get("Failed")
    return JobRecord(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        run=owner.get("name", ""),
        run_uid=owner.get("uid", ""),
        deleting="deletionTimestamp" in meta,
        suspend=bool(spec.get("suspend")),
        suspended="Suspended" in true,
        created_at=_created(meta),
        start_time=parse_time(status.get("startTime")),
        outcome=end["type"] if end else None,
        reason=end.get("reason", "") if end else "",
        message=end.get("message", "") if end else "",
        ended_at=parse_time(end.get("lastTransitionTime")) if end else None,
    )


def decode_pod(body: Raw) -> PodRecord:
    """Keep of a pod what reconciling needs."""
    meta, status = body["metadata"], body.get("status", {})
    labels = meta.get("labels", {})
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    containers = tuple(_decode_container(status) for status in statuses)
    return PodRecord(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        job=controller(meta, "Job").get("name", ""),
        run=labels.get(RUN_LABEL, ""),
        run_uid=labels.get(RUN_UID_LABEL, ""),
        node=body.get("spec", {}).get("nodeName"),
        phase=status.get("phase", "Pending"),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        created_at=_created(meta),
        start_time=parse_time(status.get("startTime")),
        deleting="deletionTimestamp" in meta,
        unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        disrupted=conditions.get("DisruptionTarget", {}).get("status") == "True",
        changed_at=_last_change(meta, conditions.values(), containers),
        containers=containers,
    )


def _last_change(meta: Raw, conditions: Iterable[Raw], containers: Iterable[ContainerRecord]) -> datetime:
    moments = [parse_time(condition.get("lastTransitionTime")) for condition in conditions]
    moments += [container.finished_at for container in containers]
    return max((moment for moment in moments if moment is not None), default=_created(meta))


def _decode_container(status: Raw) -> ContainerRecord:
    state = status.get("state", {})
    kind = next((key for key in ("terminated", "running", "waiting") if key in state), "waiting")
    facts = state.get(kind) or {}
    return ContainerRecord(
        # The same few words in every pod.
        name=intern(status["name"]),
        state=intern(kind.capitalize()),
        reason=intern(facts.get("reason", "")),
        message=facts.get("message", ""),
        exit_code=facts.get("exitCode"),
        started_at=parse_time(facts.get("startedAt")),
        finished_at=parse_time(facts.get("finishedAt")),
    )
