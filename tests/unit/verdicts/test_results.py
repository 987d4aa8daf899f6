"""What is said about a run's results: a table a policy, with every branch of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlperf_operator.api.v1alpha1 import AuditStatus, ConditionStatus, MLPerfRun, ResultStatus
from mlperf_operator.outcome import Outcome, Phase
from mlperf_operator.suites import BUILT_IN
from mlperf_operator.verdicts.expectations import expectations_met
from mlperf_operator.verdicts.facts import Facts, Policy
from mlperf_operator.verdicts.results import VERDICTS, accuracy_met, audits_passed, results_valid
from unit.core.builders import a100, result, run

T, F, U = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
COMPLETED = Outcome(Phase.COMPLETED, "Completed", "done")
RATES = {"Offline": "result_samples_per_second", "Server": "result_completed_samples_per_sec"}
SERVER = {"benchmarks": [{"name": "bert", "scenarios": ["Server"]}]}
OFFLINE = {"benchmarks": [{"name": "bert", "scenarios": ["Offline"]}]}
BOTH = {"benchmarks": [{"name": "bert", "scenarios": ["Offline", "Server"]}]}
PERFORMANCE, ACCURACY = {"testModes": ["PerformanceOnly"]}, {"testModes": ["AccuracyOnly"]}


def _bert(rate: float | None = 27500.0, scenario: str = "Offline", **fields: Any) -> dict[str, Any]:
    metric = {"name": RATES[scenario], "value": rate, "unit": "samples/s"} if rate is not None else None
    return result(scenario, benchmark="bert", **{"variant": "bert-99", "metric": metric, **fields})


def _f1(value: float = 90.4, **item: Any) -> dict[str, Any]:
    found = {"name": "F1", "value": value, "threshold": 89.96526, "passed": value >= 89.96526, **item}
    return result(mode="AccuracyOnly", benchmark="bert", variant="bert-99", accuracy=[found])


def _facts(owner: MLPerfRun, *results: dict[str, Any], **more: Any) -> Facts:
    typed = tuple(ResultStatus.model_validate(r) for r in results)
    facts = Facts(run=owner, suite=BUILT_IN[owner.spec.suite], outcome=COMPLETED, results=typed)
    return replace(facts, **more)


def _expect(**bounds: Any) -> dict[str, Any]:
    base = {"benchmark": "bert", "scenario": "Offline", "metric": RATES["Offline"]}
    return {"expectations": [{**base, **bounds}]}


def _audit(passed: bool | None = True, test: str = "TEST01", **fields: Any) -> AuditStatus:
    base = {"test": test, "benchmark": "bert", "variant": "bert-99", "scenario": "Offline", "passed": passed}
    return AuditStatus.model_validate({**base, **fields})


NO_CONFIG: dict[str, Any] = {
    "validity": None,
    "cause": "NoRegisteredConfig",
    "missing": "No registered config for bert",
}
CRASHED: dict[str, Any] = {"accuracy": [], "cause": "AccuracyScriptFailed", "missing": "the script failed"}
PART: dict[str, Any] = {"unverified": "collect's log is cut"}

Row = tuple[str, Facts, ConditionStatus, str, str]

RESULTS_VALID: list[Row] = [
    ("pending", _facts(a100(), outcome=None, results=None), U, "Pending", "no results yet"),
    ("ended without results", _facts(a100(), results=None), U, "NoResults", "ended without results"),
    ("not asked", _facts(a100(**OFFLINE, **ACCURACY), _f1()), U, "NotRequested", "PerformanceOnly"),
    ("valid", _facts(a100(**OFFLINE, **PERFORMANCE), _bert()), T, "Valid", "VALID for 1 of 1"),
    (
        "valid and short",
        _facts(a100(**OFFLINE, **PERFORMANCE), _bert(minDurationMet=False)),
        *(T, "Valid", "shorter than MLPerf's ten minutes, so no submission: bert-99 Offline"),
    ),
    (
        "valid without early stopping",
        _facts(a100(**OFFLINE, **PERFORMANCE), _bert(earlyStoppingMet=False)),
        *(T, "Valid", "early stopping was not met: bert-99 Offline"),
    ),
    (
        "valid with LoadGen's errors",
        _facts(a100(**OFFLINE, **PERFORMANCE), _bert(message="LoadGen logged errors (1), the first: bad")),
        *(T, "Valid", "VALID for 1 of 1; bert-99 Offline: LoadGen logged errors (1), the first: bad"),
    ),
    (
        "invalid, and one is missing",
        _facts(
            a100(**BOTH, **PERFORMANCE),
            _bert(**NO_CONFIG),
            _bert(scenario="Server", validity="INVALID", message="late"),
        ),
        *(F, "Invalid", "bert-99 Server (late); bert-99 Offline: NoRegisteredConfig: No registered config"),
    ),
    (
        "invalid without a reason",
        _facts(a100(**OFFLINE, **PERFORMANCE), _bert(validity="INVALID")),
        *(F, "Invalid", "LoadGen says INVALID: bert-99 Offline"),
    ),
    ("missing", _facts(a100(**OFFLINE, **PERFORMANCE), _bert(**NO_CONFIG)), F, "Missing", "NoRegisteredConfig: No"),
    (
        "no verdict and no cause",
        _facts(a100(**OFFLINE, **PERFORMANCE), _bert(validity=None)),
        *(F, "Missing", "no verdict in the logs"),
    ),
    ("not named", _facts(a100(**BOTH, **PERFORMANCE), _bert()), F, "Missing", "bert Server: not in the report"),
    (
        "of the other variant",
        _facts(a100(**OFFLINE, **PERFORMANCE, configVersion="HighAccuracy"), _bert()),
        *(F, "Missing", "bert Offline: not in the report"),
    ),
    (
        "a suite that is gone",
        _facts(a100(**BOTH, **PERFORMANCE), _bert(), suite=None),
        *(T, "Valid", "VALID for 1 of 1"),
    ),
    (
        "valid as far as it can be read",
        _facts(a100(**OFFLINE, **PERFORMANCE), _bert(), **PART),
        *(U, "ReportIncomplete", "collect's log is cut"),
    ),
]

ACCURACY_MET: list[Row] = [
    ("pending", _facts(a100(), outcome=None, results=None), U, "Pending", ""),
    ("not asked", _facts(a100(**OFFLINE, **PERFORMANCE), _bert()), U, "NotRequested", "AccuracyOnly"),
    ("met", _facts(a100(**OFFLINE, **ACCURACY), _f1()), T, "Met", "bert-99 Offline: F1 90.4 of 89.9653"),
    (
        "met without a threshold",
        _facts(a100(**OFFLINE, **ACCURACY), _f1(threshold=None)),
        *(T, "Met", "bert-99 Offline: F1 90.4"),
    ),
    ("below", _facts(a100(**OFFLINE, **ACCURACY), _f1(88.0)), F, "BelowThreshold", "F1 88 is below 89.9653"),
    (
        "too high",
        _facts(a100(**OFFLINE, **ACCURACY), _f1(99.0, passed=False)),
        *(F, "BelowThreshold", "F1 99 did not pass"),
    ),
    (
        "the script crashed",
        _facts(a100(**OFFLINE, **ACCURACY), {**_f1(), **CRASHED}),
        *(F, "Missing", "AccuracyScriptFailed: the script failed"),
    ),
    (
        "no accuracy and no cause",
        _facts(a100(**OFFLINE, **ACCURACY), {**_f1(), "accuracy": []}),
        *(F, "Missing", "no accuracy in the logs"),
    ),
    (
        "no threshold",
        _facts(a100(**OFFLINE, **ACCURACY), _f1(threshold=None, passed=None)),
        U,
        "NoThreshold",
        "F1 90.4",
    ),
    ("as far as it can be read", _facts(a100(**OFFLINE, **ACCURACY), _f1(), **PART), U, "ReportIncomplete", "cut"),
]

SLOW = "27385 that such a system reached officially (v2.0 Fujitsu"
EXPECTATIONS_MET: list[Row] = [
    ("pending", _facts(a100(), outcome=None, results=None), U, "Pending", ""),
    (
        "nothing to hold it against",
        _facts(run(), result()),
        *(U, "NoExpectations", "no official figures are known for CPU_REFERENCE in reference-cpu"),
    ),
    (
        "nothing is to be held against anything",
        _facts(a100(baseline={"policy": "Ignore"}), _bert(1.0)),
        *(U, "NoExpectations", "spec.baseline.policy is Ignore"),
    ),
    ("as fast as others", _facts(a100(**OFFLINE), _bert()), T, "Met", "1 of 1 results are at most 10 % slower"),
    ("within the tolerance", _facts(a100(**OFFLINE), _bert(24646.5)), T, "Met", ""),
    ("three times too slow", _facts(a100(**OFFLINE), _bert(9100.0)), F, "BelowBaseline", f"67 % below the {SLOW}"),
    ("what to look at", _facts(a100(**OFFLINE), _bert(9100.0)), F, "BelowBaseline", "clocks, power limit"),
    (
        "too slow in an administrator's copy of the suite",
        _facts(a100(**OFFLINE), _bert(9100.0), run=a100(suite="own", **OFFLINE)),
        *(F, "BelowBaseline", SLOW),
    ),
    (
        "outside the tolerance",
        _facts(a100(**OFFLINE, baseline={"tolerancePercent": 9}), _bert(24646.5)),
        *(F, "BelowBaseline", "more than the 9 % of spec.baseline"),
    ),
    (
        "in the short run",
        _facts(a100(**OFFLINE, testRun=True), _bert(9100.0)),
        *(F, "BelowBaseline", "in the short run of spec.testRun"),
    ),
    (
        "an INVALID result is not compared",
        _facts(a100(**SERVER), _bert(30000.0, "Server", validity="INVALID")),
        *(U, "NotCompared", "no VALID result to compare of bert-99 Server"),
    ),
    (
        "a missing result is not compared",
        _facts(a100(**BOTH), _bert(), _bert(None, "Server", **NO_CONFIG)),
        *(U, "NotCompared", "bert-99 Server"),
    ),
    (
        "no figure for the pair",
        _facts(a100(), result("SingleStream", benchmark="bert", variant="bert-99")),
        *(U, "NoExpectations", "no official figure is known for bert-99 SingleStream"),
    ),
    (
        "another metric than the figure's",
        _facts(a100(**OFFLINE), _bert(metric={"name": "other", "value": 1.0, "unit": "samples/s"})),
        *(U, "NotCompared", "there is no VALID result to compare of bert-99 Offline"),
    ),
    (
        "with another power setting",
        _facts(a100(**OFFLINE, powerSetting="MaxQ", securityProfile="HarnessParity"), _bert(9100.0)),
        *(U, "NoExpectations", "no official figure"),
    ),
    (
        "met, and one without a figure",
        _facts(a100(), _bert(), result("SingleStream", benchmark="bert", variant="bert-99")),
        *(T, "Met", "no official figure is known for bert-99 SingleStream"),
    ),
    (
        "the user's own bound takes the figure's place",
        _facts(a100(**OFFLINE, **_expect(min="9000")), _bert(9100.0)),
        *(T, "Met", "1 of 1 expectations are met"),
    ),
    (
        "a bound on the other side does not",
        _facts(a100(**OFFLINE, **_expect(max="90000")), _bert(9100.0)),
        *(F, "BelowBaseline", SLOW),
    ),
    (
        "both are missed",
        _facts(a100(**BOTH, **_expect(min="28000")), _bert(27500.0), _bert(7000.0, "Server")),
        *(F, "NotMet", "27500.0 is below 28000; bert-99 Server: 7000"),
    ),
    (
        "a bound on another pair does not",
        _facts(a100(**BOTH, **_expect(min="9000")), _bert(9100.0), _bert(7000.0, "Server")),
        *(F, "BelowBaseline", "bert-99 Server: 7000"),
    ),
    (
        "a bound on another metric does not",
        _facts(a100(**OFFLINE, **_expect(min="1", metric="other")), _bert(9100.0)),
        *(
            F,
            "NotMet",
            "no such metric in the results; there is result_samples_per_second; "
            f"bert-99 Offline: 9100 samples/s is 67 % below the {SLOW}",
        ),
    ),
    (
        "above a bound",
        _facts(run(_expect(max="1000", benchmark="digits")), result()),
        *(F, "NotMet", "1234.5 is above 1000"),
    ),
    ("no such metric", _facts(run(_expect(min="1", metric="m")), result()), F, "NotMet", "no such metric"),
    (
        "an INVALID result meets nothing",
        _facts(run(_expect(min="1", benchmark="digits")), result(validity="INVALID")),
        *(F, "NotMet", "the result is not VALID"),
    ),
    (
        "as far as it can be read",
        _facts(a100(**OFFLINE), _bert(), **PART),
        *(U, "ReportIncomplete", "collect's log is cut"),
    ),
]

AUDITED = {**OFFLINE, "audits": ["TEST01", "TEST05"]}
AUDITS_PASSED: list[Row] = [
    ("not asked", _facts(a100(), _bert()), U, "NotRequested", "spec.audits is empty"),
    ("pending", _facts(a100(**AUDITED), outcome=None, results=None), U, "Pending", ""),
    (
        "passed",
        _facts(a100(**AUDITED), _bert(), audits=(_audit(), _audit(test="TEST05"))),
        *(T, "Passed", "2 of 2 compliance tests passed"),
    ),
    (
        "failed, and one is missing",
        _facts(a100(**AUDITED), _bert(), audits=(_audit(False, message="TEST FAIL"),)),
        *(F, "Failed", "TEST01 of bert-99 Offline: TEST FAIL; TEST05 of bert Offline: not in the report"),
    ),
    (
        "failed without a word",
        _facts(a100(**AUDITED), _bert(), audits=(_audit(False), _audit(test="TEST05"))),
        *(F, "Failed", "did not pass"),
    ),
    (
        "not judged",
        _facts(a100(**AUDITED), _bert(), audits=(_audit(None), _audit(test="TEST05"))),
        *(F, "Missing", "TEST01 of bert-99 Offline: was not judged"),
    ),
    ("of a suite that is gone", _facts(a100(**AUDITED), _bert(), suite=None), F, "Missing", "not in the report"),
    (
        "of a suite that is gone, passed",
        _facts(a100(**AUDITED), _bert(), suite=None, audits=(_audit(),)),
        *(T, "Passed", "1 of 1"),
    ),
    (
        "as far as it can be read",
        _facts(a100(**AUDITED), _bert(), audits=(_audit(), _audit(test="TEST05")), **PART),
        *(U, "ReportIncomplete", "cut"),
    ),
]

TABLES = {
    results_valid: RESULTS_VALID,
    accuracy_met: ACCURACY_MET,
    expectations_met: EXPECTATIONS_MET,
    audits_passed: AUDITS_PASSED,
}


@pytest.mark.parametrize(
    ("policy", "row"),
    [pytest.param(policy, row, id=f"{policy.__name__}-{row[0]}") for policy, rows in TABLES.items() for row in rows],
)
def test_a_verdict_says_what_the_facts_say(policy: Policy, row: Row) -> None:
    _, facts, status, reason, word = row
    found = policy(facts)
    assert (found.status, found.reason) == (status, reason), found.message
    assert word in found.message


def test_every_verdict_is_in_a_table() -> None:
    assert set(TABLES) == set(VERDICTS.values())
