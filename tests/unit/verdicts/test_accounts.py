"""Everything that was asked for is accounted for when a run has ended, and nothing is invented before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlperf_operator.api.v1alpha1 import AuditStatus, ResultStatus
from mlperf_operator.observed import ContainerRecord, Observed, PodRecord, Report
from mlperf_operator.outcome import Outcome, Phase
from mlperf_operator.suites import BUILT_IN
from mlperf_operator.verdicts.accounts import account
from unit.core.builders import a100, done, failed, pod, result, up_to

SUITE = BUILT_IN["nvidia-v4.1"]
RUN = a100(benchmarks=[{"name": "bert", "scenarios": ["Offline"]}], audits=["TEST01"])
ACTIVE = Outcome(Phase.ACTIVE, "Running", "stage run is running")
COMPLETED = Outcome(Phase.COMPLETED, "Completed", "done")
FAILED = Outcome(Phase.FAILED, "StageFailed", "stage build ended with exit code 65")


def _entry(mode: str = "PerformanceOnly", **fields: Any) -> ResultStatus:
    return ResultStatus.model_validate(result(mode=mode, benchmark="bert", variant="bert-99", **fields))


UNMEASURED = _entry("AccuracyOnly", accuracy=[], cause="NotMeasured", missing="the run ended before")
AUDIT = AuditStatus.model_validate(
    {"test": "TEST01", "benchmark": "bert", "variant": "bert-99", "scenario": "Offline", "passed": True}
)


def _ended(container: ContainerRecord) -> PodRecord:
    return pod([*(done(c.name) for c in up_to("run")[:-1]), container], phase="Failed")


def _killed(code: int, reason: str = "Error") -> PodRecord:
    return _ended(replace(failed("run", code), reason=reason, message=""))


def test_while_a_run_goes_on_nothing_is_missing() -> None:
    assert account(RUN, SUITE, Observed(), ACTIVE).results == ()
    report = Report((UNMEASURED,), (AUDIT,))
    found = account(RUN, SUITE, Observed(report=report), ACTIVE)
    assert (found.results, found.audits) == ((UNMEASURED,), (AUDIT,))


def test_a_whole_report_is_left_as_it_is() -> None:
    report = Report((_entry(), UNMEASURED), (AUDIT,))
    found = account(RUN, SUITE, Observed(report=report), COMPLETED)
    assert (found.results, found.audits) == (report.results, report.audits)


def test_what_no_report_names_is_missing_with_the_runs_end() -> None:
    found = account(RUN, SUITE, Observed(), FAILED)
    assert [(r.variant, r.scenario, r.mode.value, r.cause) for r in found.results] == [
        ("bert-99", "Offline", "PerformanceOnly", "NotMeasured"),
        ("bert-99", "Offline", "AccuracyOnly", "NotMeasured"),
    ]
    assert all("stage build ended with exit code 65" in str(r.missing) for r in found.results)
    (audit,) = found.audits
    assert (audit.test.value, audit.passed) == ("TEST01", None)
    assert "stage build ended" in audit.message


def test_of_a_suite_that_is_gone_nobody_knows_what_is_missing() -> None:
    found = account(RUN, None, Observed(report=Report((_entry(),))), FAILED)
    assert (found.results, found.audits) == ((_entry(),), ())


@pytest.mark.parametrize(
    ("record", "reason", "cause"),
    [
        (_killed(137, "OOMKilled"), "OutOfMemory", "OutOfMemory"),
        (_killed(137, "OOMKilled"), "BackoffLimitExceeded", "OutOfMemory"),
        (_killed(137), "StageCrashed", "Killed"),
        (_killed(143), "StageCrashed", "Killed"),
        (_killed(143), "RunTimeout", "TimedOut"),
        (_killed(65), "StageTimeout", "TimedOut"),
        (_killed(65), "ScratchFull", "ScratchFull"),
        (_killed(65), "StageFailed", "NotMeasured"),
        (None, "PodDeleted", "NotMeasured"),
    ],
)
def test_the_pods_end_is_told_for_what_was_not_measured_alone(
    record: PodRecord | None, reason: str, cause: str
) -> None:
    crashed = _entry("AccuracyOnly", accuracy=[], cause="AccuracyScriptFailed", missing="it crashed")
    report = Report((_entry(), crashed, UNMEASURED), (AUDIT,))
    observed = Observed(pods=(record,) if record is not None else (), report=report)
    found = account(RUN, SUITE, observed, Outcome(Phase.FAILED, reason, "how it ended"))
    assert found.results[:2] == (_entry(), crashed)
    assert found.results[2].cause == cause
    assert ("how it ended" in str(found.results[2].missing)) is (cause != "NotMeasured")


def test_results_that_were_lost_are_said_to_be_lost() -> None:
    lost = Outcome(Phase.FAILED, "ResultsNotCollected", "the log is gone")
    found = account(RUN, SUITE, Observed(), lost)
    assert {r.cause for r in found.results} == {"NoResult"}
    assert "what was measured cannot be read: the log is gone" in str(found.results[0].missing)


def test_of_a_report_that_is_not_whole_the_rest_is_named() -> None:
    report = Report((_entry(),), unverified="collect's log is cut")
    found = account(RUN, SUITE, Observed(report=report), FAILED)
    assert found.results[0] == _entry()
    assert found.results[1].cause == "NotMeasured"
    assert "not whole (collect's log is cut)" in str(found.results[1].missing)
