"""ExpectationsMet: results against spec.expectations and the operator's own figures, a pure policy.

A miss is a condition and never a failure; it changes nothing that LoadGen says.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from mlperf_operator.api.v1alpha1 import BaselinePolicy, Expectation, ResultStatus, TestMode, Validity
from mlperf_operator.suites import BUILT_IN
from mlperf_operator.verdicts.baseline import Baseline, Comparison, compare, load_baselines
from mlperf_operator.verdicts.facts import FALSE, TRUE, UNKNOWN, Facts, Verdict, joined, pending, unverified

LOOK_AT = (
    "look at clocks, power limit and temperature of every GPU (nvidia-smi -q), at what else uses the node, and at the "
    "values in config/ of the artifacts"
)
"""Where a result that is too slow comes from, as a rule."""


def expectations_met(facts: Facts) -> Verdict:
    """Say whether results keep to spec.expectations and, unless told to ignore them, to the operator's own figures."""
    expectations = facts.run.spec.expectations
    compares = facts.run.spec.baseline.policy is BaselinePolicy.COMPARE and _baseline_of(facts) is not None
    if not expectations and not compares:
        return Verdict(UNKNOWN, "NoExpectations", f"spec.expectations is empty{_why_no_baseline(facts)}")
    if facts.results is None:
        return pending(facts)
    missed = [text for text in (_miss(e, facts.results) for e in expectations) if text]
    compared = _compared(facts) if compares else []
    slow = [c.shortfall() for c in compared if c.is_met is False]
    short = " in the short run of spec.testRun" if facts.run.spec.test_run else ""
    below = f"{joined(slow)}{short}; more than the {_tolerance(facts)} % of spec.baseline; {LOOK_AT}" if slow else ""
    if missed:
        return Verdict(FALSE, "NotMet", joined([*missed, *([below] if below else [])]))
    if below:
        return Verdict(FALSE, "BelowBaseline", below)
    return _none_missed(facts, len(expectations), compared)


def _none_missed(facts: Facts, expected: int, compared: Sequence[Comparison]) -> Verdict:
    met = [c for c in compared if c.is_met]
    unmeasured = [c.label for c in compared if c.figure is not None and c.value is None]
    unknown = [c.label for c in compared if c.figure is None]
    parts = [f"{expected} of {expected} expectations are met"] if expected else []
    if met:
        parts.append(f"{len(met)} of {len(met)} results are at most {_tolerance(facts)} % slower than official ones")
    if unmeasured:
        parts.append(f"there is no VALID result to compare of {', '.join(unmeasured)}")
    if unknown:
        parts.append(f"no official figure is known for {', '.join(unknown)}")
    if unmeasured:
        return Verdict(UNKNOWN, "NotCompared", joined(parts))
    if not expected and not met:
        return Verdict(UNKNOWN, "NoExpectations", joined(["spec.expectations is empty", *parts]))
    return unverified(facts) if not facts.is_verified else Verdict(TRUE, "Met", joined(parts))


def _tolerance(facts: Facts) -> int:
    return facts.run.spec.baseline.tolerance_percent


def _baseline_of(facts: Facts) -> Baseline | None:
    baseline, suite = load_baselines().get(facts.run.spec.system), facts.run.spec.suite
    # As with the values of gpu_configs: an administrator's suite is a copy of a built-in one, as a rule.
    fits = baseline is not None and (suite in baseline.suites or suite not in BUILT_IN)
    return baseline if fits else None


def _why_no_baseline(facts: Facts) -> str:
    if facts.run.spec.baseline.policy is BaselinePolicy.IGNORE:
        return ", and spec.baseline.policy is Ignore"
    return f", and no official figures are known for {facts.run.spec.system} in {facts.run.spec.suite}"


def _compared(facts: Facts) -> list[Comparison]:
    """Return the performance results against the figures, but those that the user's own bounds speak of."""
    baseline = load_baselines()[facts.run.spec.system]
    spec = facts.run.spec
    measured = [r for r in facts.results or () if r.mode is TestMode.PERFORMANCE]
    found = [(r, compare(baseline, r, spec.power_setting, spec.baseline.tolerance_percent)) for r in measured]
    return [c for r, c in found if not any(_speaks_of(e, r, c) for e in spec.expectations)]


def _speaks_of(expectation: Expectation, result: ResultStatus, comparison: Comparison) -> bool:
    if (expectation.benchmark, expectation.scenario) != (result.benchmark, result.scenario):
        return False
    if result.metric is None or expectation.metric != result.metric.name:
        return False
    is_latency = comparison.figure is not None and comparison.figure.is_latency
    return (expectation.max if is_latency else expectation.min) is not None


def _miss(expectation: Expectation, results: Sequence[ResultStatus]) -> str:
    label = f"{expectation.benchmark} {expectation.scenario.value} {expectation.metric}"
    own = [
        (r, r.metric)
        for r in results
        if (r.benchmark, r.scenario) == (expectation.benchmark, expectation.scenario.value) and r.metric is not None
    ]
    found = [(r, metric) for r, metric in own if metric.name == expectation.metric]
    if not found:
        there = ", ".join(sorted({metric.name for _, metric in own}))
        return f"{label}: no such metric in the results" + (f"; there is {there}" if there else "")
    result, metric = found[0]
    if result.validity is not Validity.VALID:
        return f"{label}: the result is not VALID"
    value = Decimal(str(metric.value))
    if expectation.min is not None and value < Decimal(expectation.min):
        return f"{label}: {value} is below {expectation.min}"
    if expectation.max is not None and value > Decimal(expectation.max):
        return f"{label}: {value} is above {expectation.max}"
    return ""
