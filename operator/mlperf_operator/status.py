"""next_status: what the run's status should say, from what was observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import (
    Artifacts,
    ConditionStatus,
    ConditionType,
    DriverStatus,
    GpuStatus,
    Metric,
    MLPerfRun,
    MLPerfRunStatus,
    ResultStatus,
    StageState,
    StageStatus,
    TestMode,
)
from mlperf_operator.limits import Refusal
from mlperf_operator.observed import Kept, Observed, PodRecord, Report, format_time
from mlperf_operator.outcome import Outcome, outcome
from mlperf_operator.resources.volumes import artifacts
from mlperf_operator.stages import Seen, interrupted, seen, stage_statuses
from mlperf_operator.suites import Suite
from mlperf_operator.verdicts.accounts import account
from mlperf_operator.verdicts.conditions import conditions, status_of
from mlperf_operator.verdicts.facts import Facts


def is_finished(status: MLPerfRunStatus) -> bool:
    """Say whether the run has ended; an end is never taken back."""
    return status_of(status.conditions, ConditionType.FINISHED) is ConditionStatus.TRUE


def refused_status(run: MLPerfRun, refusal: Refusal, now: datetime) -> MLPerfRunStatus:
    """Return the status of a run that can never start."""
    moment = format_time(now)
    return MLPerfRunStatus(
        observed_generation=run.metadata.generation,
        completion_time=moment,
        benchmarks=_benchmarks(run),
        conditions=conditions(Facts(run=run, refusal=refusal), moment),
        summary=refusal.reason,
    )


def next_status(run: MLPerfRun, suite: Suite | None, observed: Observed, now: datetime) -> MLPerfRunStatus:
    """Return the status of an accepted run that has not finished yet; its suite may be gone once it has a Job."""
    moment = format_time(now)
    reached = outcome(run, observed, now, suite)
    stages, found = tuple(_stages(run, observed, now)), seen(observed.pod)
    report, accounted = observed.report, account(run, suite, observed, reached)
    results = accounted.results if report is not None else None
    facts = Facts(
        run=run,
        suite=suite,
        outcome=reached,
        stages=stages,
        seen=found,
        results=results,
        audits=accounted.audits,
        unverified=report.unverified if report is not None else "",
        blocked=observed.blocked,
        driver=observed.driver,
    )
    old, pod = run.status, observed.pod
    return MLPerfRunStatus(
        observed_generation=run.metadata.generation,
        start_time=old.start_time or moment,
        completion_time=moment if reached.ended else None,
        job_name=naming.job_name(run) if observed.job is not None else old.job_name,
        pod_name=pod.name if pod is not None else old.pod_name,
        attempts=_attempts(old, observed),
        config_digest=old.config_digest or observed.config_digest or None,
        artifacts=_artifacts(run, report, reached),
        conditions=conditions(facts, moment),
        stages=list(stages),
        stage=_stage_column(stages, reached),
        benchmarks=_benchmarks(run),
        node=(pod.node if pod is not None else None) or old.node or _claimed_node(observed),
        driver=_driver(old, observed, found),
        gpu=_gpu(old, observed, found),
        results=list(accounted.results),
        audits=list(accounted.audits),
        summary=summarize(results) if results is not None else None,
    )


_NO_WORD_OF_A_COPY = (
    "the run ended, and collect did not say that the copy is whole; `mlperf-operator artifacts upload` completes it "
    "from the results volume"
)
"""Of a collect that was killed meanwhile, with its node or at the end of its grace, or that never ran."""


def _artifacts(run: MLPerfRun, report: Report | None, reached: Outcome) -> Artifacts:
    kept = report.kept if report is not None else Kept()
    if reached.ended and run.spec.upload is not None and not (kept.uploaded_to or kept.upload_error):
        kept = replace(kept, upload_error=_NO_WORD_OF_A_COPY)
    changes = {
        "manifest_sha256": kept.manifest_sha256,
        "uploaded_to": kept.uploaded_to,
        "upload_error": kept.upload_error,
    }
    return artifacts(run).model_copy(update=changes)


def _stages(run: MLPerfRun, observed: Observed, now: datetime) -> list[StageStatus]:
    # A pod that is gone (suspended, evicted) takes its stages along; what they said stays until the next pod speaks.
    before = run.status.stages
    if any(stage.started_at for stage in before) and not _has_spoken(observed.pod):
        return [interrupted(stage, now) for stage in before]
    return stage_statuses(observed.pod)


def _claimed_node(observed: Observed) -> str | None:
    # Kept when a suspended run gives its claim back, so that one run never makes more than one node change.
    return observed.driver.node if observed.driver is not None and observed.driver.claimed else None


def _driver(old: MLPerfRunStatus, observed: Observed, found: Seen) -> DriverStatus | None:
    # What the run itself saw counts more than what the driver pod, which may be replacing it, said of the node.
    told = observed.driver
    known = (old.driver if _is_known_node(old, observed) else None) or DriverStatus()
    if told is not None and _is_elsewhere(told.node, observed.pod):
        told = None
    status = DriverStatus(
        version=found.driver or (told.version if told is not None else None) or known.version,
        fabric_manager_version=told.fabric_manager if told is not None else known.fabric_manager_version,
        managed_by=told.managed_by if told is not None else known.managed_by,
    )
    return status if status != DriverStatus() else None


def _gpu(old: MLPerfRunStatus, observed: Observed, found: Seen) -> GpuStatus | None:
    known = (old.gpu if _is_known_node(old, observed) else None) or GpuStatus()
    count = found.count if found.count is not None else known.count
    status = GpuStatus(product=found.product or known.product, count=count)
    return status if status != GpuStatus() else None


def _is_known_node(old: MLPerfRunStatus, observed: Observed) -> bool:
    """Say whether what is known of the node is still of the run's node: another pod may be on another one."""
    return old.node is None or not _is_elsewhere(old.node, observed.pod)


def _is_elsewhere(node: str, pod: PodRecord | None) -> bool:
    return pod is not None and pod.node is not None and pod.node != node


def _has_spoken(pod: PodRecord | None) -> bool:
    return pod is not None and any(container.state != "Waiting" for container in pod.containers)


def _attempts(old: MLPerfRunStatus, observed: Observed) -> int | None:
    known = old.attempts or 0
    names = [pod.name for pod in observed.pods]
    new = names[names.index(old.pod_name) + 1 :] if old.pod_name in names else names
    return known + len(new) or None


def _stage_column(stages: Sequence[StageStatus], reached: Outcome) -> str | None:
    for state in (StageState.FAILED, StageState.RUNNING):
        found = next((stage.name for stage in stages if stage.state is state), None)
        if found is not None:
            return found
    done = [stage.name for stage in stages if stage.state in (StageState.COMPLETED, StageState.SKIPPED)]
    return done[-1] if done else reached.reason


def _benchmarks(run: MLPerfRun) -> str:
    return ",".join(request.name for request in run.spec.benchmarks)


def summarize(results: Sequence[ResultStatus]) -> str:
    """Return one line with every performance result, such as `bert-99 Offline 27500 samples/s`."""
    measured = [r for r in results if r.mode is TestMode.PERFORMANCE]
    variants = {r.variant for r in measured}
    parts = []
    for result in measured:
        label = result.scenario if len(variants) == 1 else f"{result.variant} {result.scenario}"
        parts.append(f"{label} {_metric(result.metric)}")
    return ", ".join(parts) or "no performance result"


def _metric(metric: Metric | None) -> str:
    if metric is None:
        return "none"
    if metric.unit == "ns":
        return f"{metric.value / 1e6:.4g} ms"
    return f"{metric.value:.6g} {metric.unit}"
