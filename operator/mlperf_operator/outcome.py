"""How a run stands: pure reading of its Job and pods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from mlperf_operator.api.v1alpha1 import Condition, ConditionStatus, ConditionType, MLPerfRun
from mlperf_operator.observed import ContainerRecord, JobRecord, Observed, PodRecord, parse_time
from mlperf_operator.resources.job import FAIL_CODES
from mlperf_operator.stages import current_stage, failed_stage, reason_of, sentence, termination
from mlperf_operator.suites import Suite
from mlperf_operator.waiting import terminating, waiting_since, why_waiting

RUN_TIMEOUT_GRACE = timedelta(minutes=6)
"""How long after its deadline a pod may still be ending: collect's 300 s and a minute for the kubelet."""

LAST_WORD_GRACE = timedelta(seconds=30)
"""How long a failed Job waits for its pod's last state, which comes by another watch."""

DEADLINE_EXCEEDED = "DeadlineExceeded"
SUSPENDED = "Suspended"


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


def outcome(run: MLPerfRun, observed: Observed, now: datetime, suite: Suite | None = None) -> Outcome:
    """Say where an accepted run stands; with its suite, also what its namespace would have to permit."""
    job = observed.job
    if job is None:
        return _without_job(run, observed, now)
    if job.outcome == "Complete":
        return _after_completion(observed)
    if job.outcome == "Failed":
        return _failure(run, job, observed.pod, now)
    if job.suspend or job.suspended:
        return _suspended(run, job)
    return _running(run, suite, observed, now)


def _without_job(run: MLPerfRun, observed: Observed, now: datetime) -> Outcome:
    if run.status.job_name is not None:
        text = "the run's Job was deleted while the run went on; create a new MLPerfRun"
        return Outcome(Phase.FAILED, "JobDeleted", text)
    blocked = observed.blocked
    if blocked is None:
        return Outcome(Phase.NOT_STARTED, "Starting", "the Job is being created")
    if run.spec.suspend and blocked.reason == SUSPENDED:
        return Outcome(Phase.SUSPENDED, SUSPENDED, blocked.message)
    if run.spec.suspend or _resumes(run) or now < start_deadline(run):
        return Outcome(Phase.NOT_STARTED, blocked.reason, blocked.message)
    text = f"not started within startTimeoutSeconds ({run.spec.start_timeout_seconds} s): {blocked.message}"
    return Outcome(Phase.FAILED, blocked.reason, text)


def _resumes(run: MLPerfRun) -> bool:
    """Say whether the status still says Suspended: the time to start is counted from when it says otherwise."""
    stored = _stored_suspended(run)
    return stored is not None and stored.status is ConditionStatus.TRUE


def _stored_suspended(run: MLPerfRun) -> Condition | None:
    return next((c for c in run.status.conditions if c.type is ConditionType.SUSPENDED), None)


def start_deadline(run: MLPerfRun) -> datetime:
    """Return until when the run's Job has to be there: counted from the creation, or from the end of a suspension."""
    created = parse_time(run.metadata.creation_timestamp) or datetime.fromtimestamp(0, UTC)
    suspended = _stored_suspended(run)
    resumed = suspended is not None and suspended.status is ConditionStatus.FALSE
    since = parse_time(suspended.last_transition_time) if suspended is not None and resumed else None
    return max(created, since or created) + timedelta(seconds=run.spec.start_timeout_seconds)


def _suspended(run: MLPerfRun, job: JobRecord) -> Outcome:
    if not job.suspend:
        # The start time is still that of before the suspension, so no clock may be read yet.
        return Outcome(Phase.SUSPENDED, "Resuming", "the Job controller resumes the Job")
    queue = run.spec.queue_name
    if queue and run.spec.suspend:
        text = f"waits in queue {queue}; of a queued run Kueue decides, so set spec.active of its Workload to hold it"
        return Outcome(Phase.SUSPENDED, "Queued", text)
    if queue:
        return Outcome(Phase.SUSPENDED, "Queued", f"waits in queue {queue} until Kueue admits it")
    return Outcome(Phase.SUSPENDED, SUSPENDED, "spec.suspend is true; set it to false to go on")


def _after_completion(observed: Observed) -> Outcome:
    if observed.report is not None and not observed.report.unverified:
        return Outcome(Phase.COMPLETED, "Completed", "every stage ended well and the results were collected")
    if observed.report_error:
        return Outcome(Phase.FAILED, "ResultsNotCollected", observed.report_error)
    if observed.pod is not None and not observed.pod.ended:
        return Outcome(Phase.COLLECTING, "Collecting", "the Job is complete; its pod has not reported yet")
    return Outcome(Phase.COLLECTING, "ResultsNotCollected", "the Job is complete; its results are being read")


def _failure(run: MLPerfRun, job: JobRecord, pod: PodRecord | None, now: datetime) -> Outcome:
    # A disruption is never what fails the Job (its failure policy): the word of the pod after it is to come, or lost.
    disrupted = pod is not None and pod.disrupted
    heard = pod is not None and pod.ended and not disrupted
    if not heard and job.ended_at is not None and now < job.ended_at + LAST_WORD_GRACE:
        return Outcome(Phase.ACTIVE, "Ending", "the Job failed; its pod is ending")
    reason, message = job.reason or "JobFailed", job.message or "the Job failed"
    if pod is not None and not disrupted:
        reason, message = _explain_pod(run, pod) or (reason, message)
    elif pod is not None:
        message += f"; the pod that followed {pod.name} is gone, by hand or with its node"
    elif run.status.pod_name is not None:
        message += f"; pod {run.status.pod_name} is gone, by hand or with its node"
    return Outcome(Phase.FAILED, reason, message)


def _explain_pod(run: MLPerfRun, pod: PodRecord) -> tuple[str, str] | None:
    """Return why a pod failed: the kubelet's word, then that of the stage."""
    failed = failed_stage(pod)
    if pod.reason == DEADLINE_EXCEEDED:
        return "RunTimeout", _timed_out(run, "its pod was stopped")
    if pod.reason:
        return pod.reason, pod.message or f"pod {pod.name} failed"
    if pod.deleting and (failed is None or failed.exit_code not in FAIL_CODES):
        return "PodDeleted", f"pod {pod.name} was deleted while the run went on; create a new MLPerfRun"
    return _explain_stage(failed) if failed is not None else None


def _timed_out(run: MLPerfRun, consequence: str) -> str:
    return f"the run took longer than runTimeoutSeconds ({run.spec.run_timeout_seconds} s); {consequence}"


def _explain_stage(container: ContainerRecord) -> tuple[str, str]:
    code = termination(container).get("exitCode")
    command = f", its command {code}" if code is not None else ""
    text = f"stage {container.name} ended with exit code {container.exit_code}{command}: {sentence(container)}"
    return reason_of(container), text


def _running(run: MLPerfRun, suite: Suite | None, observed: Observed, now: datetime) -> Outcome:
    pod = observed.pod
    # Also with a backoffLimit: what took too long once is not tried again.
    overrun = any(found.reason == DEADLINE_EXCEEDED for found in observed.pods)
    deadline = run_deadline(run, pod)
    if overrun or (deadline is not None and now >= deadline):
        return Outcome(Phase.FAILED, "RunTimeout", _timed_out(run, "its Job is stopped"))
    waiting = waiting_since(run, observed, now)
    if waiting is not None:
        reason, message = why_waiting(run, suite, observed)
        if now < waiting + timedelta(seconds=run.spec.start_timeout_seconds):
            return Outcome(Phase.ACTIVE, reason, message)
        text = f"not started within startTimeoutSeconds ({run.spec.start_timeout_seconds} s): {message}"
        return Outcome(Phase.FAILED, reason, text)
    if pod is not None and pod.deleting:
        return Outcome(Phase.ACTIVE, *terminating(pod))
    current = current_stage(pod)
    return Outcome(Phase.ACTIVE, "Running", f"stage {current} is running" if current else "the pod is ending")


def run_deadline(run: MLPerfRun, pod: PodRecord | None) -> datetime | None:
    """Return until when a pod that started must have ended, its own deadline and the time to end included."""
    if pod is None or pod.ended or pod.start_time is None:
        return None
    return pod.start_time + timedelta(seconds=run.spec.run_timeout_seconds) + RUN_TIMEOUT_GRACE
