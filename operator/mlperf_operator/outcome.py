"""How a run stands: pure reading of its Job and pods."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from mlperf_operator.api.v1alpha1 import MLPerfRun, StageState, StageStatus
from mlperf_operator.observed import ContainerRecord, Observed, PodRecord, format_time, parse_time
from mlperf_operator.resources.containers import COLLECT, GPU_RESOURCE, PREPARE_STAGES, RUN

IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
"""Waiting reasons of the kubelet that mean: no image."""

RUN_TIMEOUT_GRACE = timedelta(minutes=6)
"""How long after its deadline a pod may still be ending: collect's 300 s and a minute for the kubelet."""

POD_EXPECTED_AFTER = timedelta(seconds=5)
"""A Job without a pod for this long has a reason that its events tell."""


class Phase(StrEnum):
    """Where a run stands; internal, never shown."""

    NOT_STARTED = "NotStarted"
    SUSPENDED = "Suspended"
    ACTIVE = "Active"
    COLLECTING = "Collecting"
    COMPLETED = "Completed"
    FAILED = "Failed"


@dataclass(frozen=True)
class Outcome:
    """Where a run stands and why."""

    phase: Phase
    reason: str
    message: str

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in (Phase.COMPLETED, Phase.FAILED)


def stage_statuses(pod: PodRecord | None) -> list[StageStatus]:
    """Return the stages of the run's latest pod, in order."""
    return [_stage(pod, name) for name in (*PREPARE_STAGES, RUN)]


def _stage(pod: PodRecord | None, name: str) -> StageStatus:
    container = pod.container(name) if pod is not None else None
    if container is None or container.state == "Waiting":
        waiting = f"{container.reason}: {container.message}" if container and container.message else ""
        return StageStatus(name=name, state=StageState.PENDING, message=waiting[:1000])
    if container.state == "Running":
        return StageStatus(name=name, state=StageState.RUNNING, started_at=_text(container.started_at))
    said = termination(container)
    if container.exit_code == 0:
        state = StageState.SKIPPED if said.get("reason") == "Skipped" else StageState.COMPLETED
    else:
        state = StageState.FAILED
    return StageStatus(
        name=name,
        state=state,
        started_at=_text(container.started_at),
        finished_at=_text(container.finished_at),
        exit_code=container.exit_code,
        message=_sentence(container, said),
    )


def _text(moment: datetime | None) -> str | None:
    return format_time(moment) if moment is not None else None


def termination(container: ContainerRecord) -> dict[str, Any]:
    """Return the wrapper's termination message; empty when the wrapper could not write one."""
    try:
        said = json.loads(container.message)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _sentence(container: ContainerRecord, said: dict[str, Any]) -> str:
    text = str(said.get("message") or "")
    if container.exit_code == 0:
        return text
    if not said:
        text = f"{container.reason or 'Error'} {container.message}".strip()
    tail = str(said.get("tail") or "").strip()
    return f"{text}\n{tail}".strip()[:1200]


def outcome(run: MLPerfRun, observed: Observed, now: datetime) -> Outcome:
    """Say where an accepted run stands."""
    job = observed.job
    if job is None:
        return _without_job(run, observed, now)
    if job.outcome == "Complete":
        return _after_completion(observed)
    if job.outcome == "Failed":
        return _failure(observed)
    if job.suspend:
        return _suspended(run)
    return _running(run, observed, now)


def _without_job(run: MLPerfRun, observed: Observed, now: datetime) -> Outcome:
    if run.status.job_name is not None:
        text = "the run's Job was deleted while the run went on; create a new MLPerfRun"
        return Outcome(Phase.FAILED, "JobDeleted", text)
    blocked = observed.blocked
    if blocked is None:
        return Outcome(Phase.NOT_STARTED, "Starting", "the Job is being created")
    if now < start_deadline(run):
        return Outcome(Phase.NOT_STARTED, blocked.reason, blocked.message)
    text = f"not started within startTimeoutSeconds ({run.spec.start_timeout_seconds} s): {blocked.message}"
    return Outcome(Phase.FAILED, blocked.reason, text)


def start_deadline(run: MLPerfRun) -> datetime:
    """Return until when the run's Job has to be there."""
    created = parse_time(run.metadata.creation_timestamp) or datetime.fromtimestamp(0, UTC)
    return created + timedelta(seconds=run.spec.start_timeout_seconds)


def _suspended(run: MLPerfRun) -> Outcome:
    if run.spec.queue_name:
        return Outcome(Phase.SUSPENDED, "Queued", f"waits in queue {run.spec.queue_name} until Kueue admits it")
    return Outcome(Phase.SUSPENDED, "Suspended", "spec.suspend is true; set it to false to go on")


def _after_completion(observed: Observed) -> Outcome:
    if observed.report is not None:
        return Outcome(Phase.COMPLETED, "Completed", "every stage ended well and the results were collected")
    if observed.report_error:
        return Outcome(Phase.FAILED, "ResultsNotCollected", observed.report_error)
    return Outcome(Phase.COLLECTING, "ResultsNotCollected", "the Job is complete; its results are being read")


def _failure(observed: Observed) -> Outcome:
    job, pod = observed.job, observed.pod
    failed = failed_stage(pod)
    if pod is not None and failed is not None:
        reason, message = _explain(failed)
        return Outcome(Phase.FAILED, reason, message)
    if pod is not None and pod.reason == "DeadlineExceeded":
        return Outcome(Phase.FAILED, "RunTimeout", "the run took longer than runTimeoutSeconds; its pod was stopped")
    if pod is not None and pod.reason:
        return Outcome(Phase.FAILED, pod.reason, pod.message)
    reason, message = (job.reason, job.message) if job is not None else ("", "")
    return Outcome(Phase.FAILED, reason or "JobFailed", message or "the Job failed")


def failed_stage(pod: PodRecord | None) -> ContainerRecord | None:
    """Return the first container of the run that ended badly by itself."""
    if pod is None or pod.reason == "DeadlineExceeded":
        return None
    return next((c for c in pod.containers if c.name != COLLECT and c.state == "Terminated" and c.exit_code), None)


def _explain(container: ContainerRecord) -> tuple[str, str]:
    said = termination(container)
    reason = "OutOfMemory" if container.reason == "OOMKilled" else str(said.get("reason") or "StageCrashed")
    code = said.get("exitCode")
    command = f", its command {code}" if code is not None else ""
    text = f"stage {container.name} ended with exit code {container.exit_code}{command}: {_sentence(container, said)}"
    return reason, text


def _running(run: MLPerfRun, observed: Observed, now: datetime) -> Outcome:
    pod = observed.pod
    limit = timedelta(seconds=run.spec.run_timeout_seconds)
    since = observed.job.start_time if observed.job else None
    if since is not None and now > since + limit + RUN_TIMEOUT_GRACE:
        return Outcome(
            Phase.FAILED,
            "RunTimeout",
            "the run took longer than runTimeoutSeconds; its Job is suspended",
        )
    waiting = waiting_since(observed)
    reason, message = _why_waiting(observed)
    if waiting is not None and now >= waiting + timedelta(seconds=run.spec.start_timeout_seconds):
        text = f"not started within startTimeoutSeconds ({run.spec.start_timeout_seconds} s): {message}"
        return Outcome(Phase.FAILED, reason, text)
    if waiting is not None:
        return Outcome(Phase.ACTIVE, reason, message)
    current = current_stage(pod)
    return Outcome(Phase.ACTIVE, "Running", f"stage {current} is running" if current else "the pod is running")


def current_stage(pod: PodRecord | None) -> str | None:
    """Return the stage that runs now."""
    stages = stage_statuses(pod)
    return next((stage.name for stage in stages if stage.state is StageState.RUNNING), None)


def waiting_since(observed: Observed) -> datetime | None:
    """Return since when nothing of the run has been running, or None while something is."""
    job, pod = observed.job, observed.pod
    if job is None or job.suspend or job.outcome is not None:
        return None
    if pod is None or pod.phase in ("Failed", "Succeeded"):
        return job.start_time or job.created_at
    containers = [c for c in pod.containers if c.name != COLLECT]
    if any(c.state == "Running" for c in containers):
        return None
    ended = [c.finished_at for c in containers if c.finished_at is not None]
    return max(ended, default=pod.created_at)


def _why_waiting(observed: Observed) -> tuple[str, str]:
    pod = observed.pod
    if pod is None:
        return _why_no_pod(observed.job_warnings)
    if pod.unschedulable:
        reason = "GPUNotAllocatable" if f"Insufficient {GPU_RESOURCE}" in pod.unschedulable else "Unschedulable"
        return reason, pod.unschedulable
    for container in pod.containers:
        if container.state == "Waiting" and container.reason in IMAGE_REASONS:
            text = container.message or container.reason
            return "ImagePullFailed", f"container {container.name}: {text}"
    return "PodStarting", f"pod {pod.name} is starting"


def _why_no_pod(warnings: tuple[str, ...]) -> tuple[str, str]:
    message = warnings[-1] if warnings else "the Job has no pod yet"
    if "violates PodSecurity" in message:
        reason = "PodSecurityRefused"
        message += "; label the namespace for a PodSecurity level that permits the run, or use another namespace"
    elif "exceeded quota" in message:
        reason = "QuotaExceeded"
    elif warnings:
        reason = "PodRefused"
    else:
        reason = "PodNotCreated"
    return reason, message
