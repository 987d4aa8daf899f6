"""The verdicts about a run's results: ResultsValid, AccuracyMet and AuditsPassed; ExpectationsMet has its own file.

What LoadGen says, MLPerf's ten-minute rule and early stopping are three facts; each is told, none stands for another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlperf_operator.api.v1alpha1 import (
    AccuracyItem,
    AuditStatus,
    ConditionType,
    ResultStatus,
    TestMode,
    Validity,
)
from mlperf_operator.resources.steps import requested_pairs
from mlperf_operator.verdicts.expectations import expectations_met
from mlperf_operator.verdicts.facts import FALSE, TRUE, UNKNOWN, Facts, Policy, Verdict, joined, pending, unverified


def results_valid(facts: Facts) -> Verdict:
    """Say whether LoadGen calls every performance result VALID."""
    if facts.results is None:
        return pending(facts)
    measured = [result for result in facts.results if result.mode is TestMode.PERFORMANCE]
    absent = _absent(facts, TestMode.PERFORMANCE, measured)
    if not measured and not absent:
        return Verdict(UNKNOWN, "NotRequested", "testModes does not hold PerformanceOnly")
    missing = [f"{_label(r)}: {_missing(r, 'no verdict in the logs')}" for r in measured if r.validity is None]
    missing += absent
    invalid = [_with_reason(r) for r in measured if r.validity is Validity.INVALID]
    if invalid:
        return Verdict(FALSE, "Invalid", "LoadGen says INVALID: " + joined([*invalid, *missing]))
    if missing:
        return Verdict(FALSE, "Missing", joined(missing))
    if not facts.is_verified:
        return unverified(facts)
    return Verdict(TRUE, "Valid", f"LoadGen says VALID for {len(measured)} of {len(measured)}{_beside(measured)}")


def _beside(measured: Sequence[ResultStatus]) -> str:
    """Return what else is known of results that LoadGen calls VALID."""
    short = [_label(r) for r in measured if r.min_duration_met is False]
    unsure = [_label(r) for r in measured if r.early_stopping_met is False]
    notes = [f"shorter than MLPerf's ten minutes, so no submission: {', '.join(short)}"] if short else []
    notes += [f"early stopping was not met: {', '.join(unsure)}"] if unsure else []
    notes += [f"{_label(r)}: {r.message}" for r in measured if r.message]
    return "".join(f"; {note}" for note in notes)


def accuracy_met(facts: Facts) -> Verdict:
    """Say whether every accuracy item reaches its threshold."""
    if facts.results is None:
        return pending(facts)
    measured = [result for result in facts.results if result.mode is TestMode.ACCURACY]
    absent = _absent(facts, TestMode.ACCURACY, measured)
    if not measured and not absent:
        return Verdict(UNKNOWN, "NotRequested", "testModes does not hold AccuracyOnly")
    missing = [f"{_label(r)}: {_missing(r, 'no accuracy in the logs')}" for r in measured if not r.accuracy]
    missing += absent
    items = [(result, item) for result in measured for item in result.accuracy]
    failed = [f"{_label(r)}: {_shortfall(item)}" for r, item in items if item.passed is False]
    if failed:
        return Verdict(FALSE, "BelowThreshold", joined([*failed, *missing]))
    if missing:
        return Verdict(FALSE, "Missing", joined(missing))
    unjudged = [f"{_label(r)}: {item.name} {item.value:g}" for r, item in items if item.passed is None]
    if unjudged:
        return Verdict(UNKNOWN, "NoThreshold", "no threshold is known for " + joined(unjudged))
    met = Verdict(TRUE, "Met", joined(_reached(r) for r in measured))
    return met if facts.is_verified else unverified(facts)


def _shortfall(item: AccuracyItem) -> str:
    if item.threshold is not None and item.value < item.threshold:
        return f"{item.name} {item.value:g} is below {item.threshold:g}"
    return f"{item.name} {item.value:g} did not pass"


def _reached(result: ResultStatus) -> str:
    items = (
        f"{item.name} {item.value:g}" + (f" of {item.threshold:g}" if item.threshold is not None else "")
        for item in result.accuracy
    )
    return f"{_label(result)}: {', '.join(items)}"


def audits_passed(facts: Facts) -> Verdict:
    """Say whether every requested compliance test passed."""
    if not facts.run.spec.audits:
        return Verdict(UNKNOWN, "NotRequested", "spec.audits is empty")
    if facts.results is None:
        return pending(facts)
    failed = [f"{_of(a)}: {a.message or 'did not pass'}" for a in facts.audits if a.passed is False]
    missing = [f"{_of(a)}: {a.message or 'was not judged'}" for a in facts.audits if a.passed is None]
    missing += _absent_audits(facts)
    if failed:
        return Verdict(FALSE, "Failed", joined([*failed, *missing]))
    if missing:
        return Verdict(FALSE, "Missing", joined(missing))
    if not facts.is_verified:
        return unverified(facts)
    return Verdict(TRUE, "Passed", f"{len(facts.audits)} of {len(facts.audits)} compliance tests passed")


def _absent_audits(facts: Facts) -> list[str]:
    if facts.suite is None:
        return [] if facts.audits else ["not in the report"]
    named = {(a.test, a.benchmark, a.scenario) for a in facts.audits}
    return [
        f"{test} of {benchmark} {scenario.value}: not in the report"
        for benchmark, scenario in requested_pairs(facts.run, facts.suite)
        for test in facts.run.spec.audits
        if (test, benchmark, scenario.value) not in named
    ]


def _of(audit: AuditStatus) -> str:
    return f"{audit.test.value} of {audit.variant} {audit.scenario}"


def _absent(facts: Facts, mode: TestMode, measured: Sequence[ResultStatus]) -> list[str]:
    """Return what was asked for and is not even named in the report, such as a result of the other variant."""
    if facts.suite is None or mode not in facts.run.spec.test_modes:
        return []
    version, suite = facts.run.spec.config_version, facts.suite
    named = {(result.benchmark, result.variant, result.scenario) for result in measured}
    pairs = [(benchmark, scenario.value) for benchmark, scenario in requested_pairs(facts.run, suite)]
    return [
        f"{benchmark} {scenario}: not in the report"
        for benchmark, scenario in pairs
        if (benchmark, suite.variant(benchmark, version), scenario) not in named
    ]


def _missing(result: ResultStatus, otherwise: str) -> str:
    cause = f"{result.cause.value}: " if result.cause is not None else ""
    return cause + (result.missing or otherwise)


def _label(result: ResultStatus) -> str:
    return f"{result.variant} {result.scenario}"


def _with_reason(result: ResultStatus) -> str:
    return f"{_label(result)} ({result.message})" if result.message else _label(result)


VERDICTS: Mapping[ConditionType, Policy] = {
    ConditionType.RESULTS_VALID: results_valid,
    ConditionType.ACCURACY_MET: accuracy_met,
    ConditionType.EXPECTATIONS_MET: expectations_met,
    ConditionType.AUDITS_PASSED: audits_passed,
}
