"""Accounting for all that a run asked for: what `collect` reported, and why the rest is missing, pure.

`collect` sees files and no containers. Of a pair that it calls NotMeasured the pod may know more: its container ran out
of memory, was killed, or its time was over. That is told beside, never instead of, what was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlperf_operator.agent.causes import KILLED_CODES, Explained, because
from mlperf_operator.api.v1alpha1 import AuditStatus, Cause, MLPerfRun, ResultStatus
from mlperf_operator.observed import Observed, PodRecord
from mlperf_operator.outcome import Outcome
from mlperf_operator.resources.steps import requested_pairs
from mlperf_operator.stages import failed_stage
from mlperf_operator.suites import Suite

_BY_OUTCOME = {
    "OutOfMemory": Cause.OUT_OF_MEMORY,
    "RunTimeout": Cause.TIMED_OUT,
    "StageTimeout": Cause.TIMED_OUT,
    "ScratchFull": Cause.SCRATCH_FULL,
}
"""Reasons of a run's end that say why nothing more was measured (outcome.py)."""


@dataclass(frozen=True)
class Account:
    """One entry for each thing that was asked for, as far as it is known."""

    results: tuple[ResultStatus, ...] = ()
    audits: tuple[AuditStatus, ...] = ()


def account(run: MLPerfRun, suite: Suite | None, observed: Observed, reached: Outcome) -> Account:
    """Return the results and audits of a run; of one that has ended with nothing left out."""
    report = observed.report
    results = report.results if report is not None else ()
    audits = report.audits if report is not None else ()
    if not reached.ended:
        return Account(results, audits)
    why = _why(observed, reached)
    told = tuple(_retold(result, why) for result in results)
    return Account(
        (*told, *_absent_results(run, suite, told, why)), (*audits, *_absent_audits(run, suite, audits, why))
    )


def _why(observed: Observed, reached: Outcome) -> Explained:
    """Return why what was not measured was not."""
    if reached.reason == "ResultsNotCollected":
        return because(Cause.NO_RESULT, f"what was measured cannot be read: {reached.message}")
    part = observed.report.unverified if observed.report is not None else ""
    lost = f"collect's report is not whole ({part}); " if part else ""
    return because(_cause(observed.pod, reached), lost + reached.message)


def _cause(pod: PodRecord | None, reached: Outcome) -> Cause:
    known = _BY_OUTCOME.get(reached.reason)
    container = failed_stage(pod)
    if known is not None or container is None:
        return known or Cause.NOT_MEASURED
    if container.reason == "OOMKilled":
        return Cause.OUT_OF_MEMORY
    # The wrapper ends with 64 or 65; by a signal it was somebody else who ended it.
    return Cause.KILLED if container.exit_code in KILLED_CODES else Cause.NOT_MEASURED


def _retold(result: ResultStatus, why: Explained) -> ResultStatus:
    if result.cause is not Cause.NOT_MEASURED or why.cause is Cause.NOT_MEASURED:
        return result
    return result.model_copy(update={"cause": why.cause, "missing": why.sentence})


def _absent_results(
    run: MLPerfRun, suite: Suite | None, found: Sequence[ResultStatus], why: Explained
) -> Iterable[ResultStatus]:
    if suite is None:
        return
    named = {(result.benchmark, result.scenario, result.mode) for result in found}
    for benchmark, scenario in requested_pairs(run, suite):
        for mode in run.spec.test_modes:
            if (benchmark, scenario.value, mode) not in named:
                yield ResultStatus(
                    benchmark=benchmark,
                    variant=suite.variant(benchmark, run.spec.config_version),
                    scenario=scenario.value,
                    mode=mode,
                    cause=why.cause,
                    missing=why.sentence,
                )


def _absent_audits(
    run: MLPerfRun, suite: Suite | None, found: Sequence[AuditStatus], why: Explained
) -> Iterable[AuditStatus]:
    if suite is None:
        return
    named = {(audit.benchmark, audit.scenario, audit.test) for audit in found}
    for benchmark, scenario in requested_pairs(run, suite):
        for test in run.spec.audits:
            if (benchmark, scenario.value, test) not in named:
                yield AuditStatus(
                    test=test,
                    benchmark=benchmark,
                    variant=suite.variant(benchmark, run.spec.config_version),
                    scenario=scenario.value,
                    message=why.sentence,
                )
