"""The run's conditions: one pure policy each, facts in, status, reason and message out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from mlperf_operator.acceptance import Refusal
from mlperf_operator.api.v1alpha1 import (
    Condition,
    ConditionStatus,
    ConditionType,
    DriverPolicy,
    EnvironmentStrategy,
    Expectation,
    MLPerfRun,
    ResultStatus,
    StageState,
    StageStatus,
    TestMode,
    Validity,
)
from mlperf_operator.observed import Blocked, DriverView
from mlperf_operator.outcome import Outcome, Phase
from mlperf_operator.resources.containers import RUN
from mlperf_operator.resources.stage_plan import requested_pairs
from mlperf_operator.suites import Suite


@dataclass(frozen=True)
class Facts:
    """What the policies look at."""

    run: MLPerfRun
    suite: Suite | None = None
    refusal: Refusal | None = None
    outcome: Outcome | None = None
    stages: tuple[StageStatus, ...] = ()
    results: tuple[ResultStatus, ...] | None = None
    """None while no verified report was read."""
    blocked: Blocked | None = None
    """Why the run has no Job yet."""
    driver: DriverView | None = None
    """How the driver stands on the run's node, where a driver pod watches it."""


@dataclass(frozen=True)
class Verdict:
    """A condition without its bookkeeping."""

    status: ConditionStatus
    reason: str
    message: str = ""


Policy = Callable[[Facts], Verdict]

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def _accepted(facts: Facts) -> Verdict:
    if facts.refusal is not None:
        return Verdict(_FALSE, facts.refusal.reason, facts.refusal.message)
    snapshot = facts.run.spec.environment.strategy is EnvironmentStrategy.SNAPSHOT
    if facts.suite is not None and facts.suite.prebuild is not None and snapshot:
        text = (
            "the run is possible if its image has what the tree's own prebuild installs: Snapshot, which would carry "
            "that over, is not built yet; name such an image and set environment.strategy to Image"
        )
        return Verdict(_TRUE, "AcceptedWithoutSnapshot", text)
    return Verdict(_TRUE, "Accepted", "the run is possible with this operator's settings")


def _driver_ready(facts: Facts) -> Verdict:
    if facts.suite is None:
        return _as_stored(facts, ConditionType.DRIVER_READY) or Verdict(_UNKNOWN, "NotVerified", "nobody looked")
    if not facts.suite.uses_gpu:
        return Verdict(_TRUE, "NotRequired", "the suite uses no GPU driver")
    if facts.run.spec.driver.policy is DriverPolicy.IGNORE:
        return Verdict(
            _UNKNOWN, "Ignored", "driver.policy is Ignore: the driver is not judged; preflight still needs working GPUs"
        )
    preflight = next((stage for stage in facts.stages if stage.name == "preflight"), None)
    if preflight is not None and preflight.state is StageState.FAILED:
        return Verdict(_FALSE, "PreflightFailed", preflight.message)
    if preflight is None or preflight.state in (StageState.PENDING, StageState.RUNNING):
        return _driver_before_preflight(facts)
    return Verdict(_TRUE, "Verified", "preflight found the driver of the run's node working" + _on_node(facts.driver))


def _driver_before_preflight(facts: Facts) -> Verdict:
    driver, blocked = facts.driver, facts.blocked
    if blocked is not None and blocked.reason in DRIVER_REASONS:
        return Verdict(_FALSE, blocked.reason, blocked.message)
    if driver is not None and driver.claimed and not driver.ready:
        # Also while something else keeps the run waiting, or its pod waits for the node to be ready again.
        return Verdict(_UNKNOWN if driver.working else _FALSE, driver.reason, f"node {driver.node}: {driver.message}")
    if driver is not None and driver.ready and f"{driver.version}.".startswith(f"{facts.run.spec.driver.version}."):
        return Verdict(_TRUE, "NodeReady", "everything matches" + _on_node(driver))
    return Verdict(_UNKNOWN, "NotVerified", "preflight verifies the driver in the run's pod")


def _on_node(driver: DriverView | None) -> str:
    """Return what the driver pod of the node proves beyond what a run's pod can see."""
    if driver is None:
        return "; what only the host shows, such as the fabric manager's version, nobody compared"
    if not driver.ready:
        return f"; node {driver.node} itself says {driver.reason}: {driver.message}".rstrip(": ")
    fabric = f" and fabric manager {driver.fabric_manager}" if driver.fabric_manager else ""
    return f": node {driver.node} has driver {driver.version}{fabric}"


DRIVER_REASONS = frozenset(
    {
        "FabricManagerMissing",
        "GPUInUse",
        "NoNodeFits",
        "NoNodeOptedIn",
        "NodeClaimsFull",
        "NodeDriverConflict",
        "NodeManaged",
        "NodeNotOptedIn",
    }
)
"""What a run may wait for where no node is on its way to the driver that it wants."""


def _as_stored(facts: Facts, kind: ConditionType) -> Verdict | None:
    # A run of a suite that the administrator took away goes on; what only the suite tells stays as it was said.
    stored = next((c for c in facts.run.status.conditions if c.type is kind), None)
    return Verdict(stored.status, stored.reason, stored.message) if stored is not None else None


def _prepared(facts: Facts) -> Verdict:
    if facts.refusal is not None:
        return Verdict(_FALSE, facts.refusal.reason, "the run was refused")
    before = [stage for stage in facts.stages if stage.name != RUN]
    failed = next((stage for stage in before if stage.state is StageState.FAILED), None)
    if failed is not None:
        return Verdict(_FALSE, "StageFailed", f"stage {failed.name}: {failed.message}")
    done = [stage for stage in before if stage.state in (StageState.COMPLETED, StageState.SKIPPED)]
    if before and len(done) == len(before):
        skipped = [stage.name for stage in before if stage.state is StageState.SKIPPED]
        return Verdict(_TRUE, "Prepared", f"skipped as already done: {', '.join(skipped)}" if skipped else "")
    if facts.outcome is not None and facts.outcome.ended:
        return Verdict(_FALSE, facts.outcome.reason, "the run ended before its stages did")
    return Verdict(_FALSE, "Preparing", f"{len(done)} of {len(before)} stages are done")


def _suspended(facts: Facts) -> Verdict:
    if facts.outcome is not None and facts.outcome.phase is Phase.SUSPENDED:
        return Verdict(_TRUE, facts.outcome.reason, facts.outcome.message)
    return Verdict(_FALSE, "NotSuspended")


def _succeeded(facts: Facts) -> Verdict:
    if facts.refusal is not None:
        return Verdict(_FALSE, facts.refusal.reason, facts.refusal.message)
    if facts.outcome is None:
        return Verdict(_UNKNOWN, "Starting")
    status = {Phase.COMPLETED: _TRUE, Phase.FAILED: _FALSE}.get(facts.outcome.phase, _UNKNOWN)
    return Verdict(status, facts.outcome.reason, facts.outcome.message)


def _finished(facts: Facts) -> Verdict:
    if facts.refusal is not None:
        return Verdict(_TRUE, facts.refusal.reason, "the run was refused and never starts")
    if facts.outcome is not None and facts.outcome.ended:
        return Verdict(_TRUE, facts.outcome.reason, "nothing more happens; Succeeded says how it ended")
    return Verdict(_FALSE, "InProgress")


def _pending(facts: Facts) -> Verdict:
    outcome = facts.outcome
    if outcome is not None and outcome.reason == "ResultsNotCollected":
        return Verdict(_UNKNOWN, "ResultsNotCollected", outcome.message)
    if facts.refusal is not None or (outcome is not None and outcome.ended):
        return Verdict(_UNKNOWN, "NoResults", "the run ended without results")
    return Verdict(_UNKNOWN, "Pending", "the run has no results yet")


def _results_valid(facts: Facts) -> Verdict:
    if facts.results is None:
        return _pending(facts)
    measured = [result for result in facts.results if result.mode is TestMode.PERFORMANCE]
    absent = _absent(facts, TestMode.PERFORMANCE, measured)
    if not measured and not absent:
        return Verdict(_UNKNOWN, "NotRequested", "testModes does not hold PerformanceOnly")
    missing = [f"{_label(r)}: {r.missing or 'no verdict in the logs'}" for r in measured if r.validity is None]
    missing += absent
    invalid = [_with_reason(r) for r in measured if r.validity is Validity.INVALID]
    if invalid:
        return Verdict(_FALSE, "Invalid", "LoadGen says INVALID: " + _lines([*invalid, *missing]))
    if missing:
        return Verdict(_FALSE, "Missing", _lines(missing))
    short = [_label(r) for r in measured if r.min_duration_met is False]
    note = f"; shorter than MLPerf's ten minutes, so no submission: {', '.join(short)}" if short else ""
    return Verdict(_TRUE, "Valid", f"LoadGen says VALID for {len(measured)} of {len(measured)}{note}")


def _absent(facts: Facts, mode: TestMode, measured: Sequence[ResultStatus]) -> list[str]:
    """Return what was asked for and is not even named in the report."""
    if facts.suite is None or mode not in facts.run.spec.test_modes:
        return []
    named = {(result.benchmark, result.scenario) for result in measured}
    pairs = [(benchmark, scenario.value) for benchmark, scenario in requested_pairs(facts.run, facts.suite)]
    return [
        f"{benchmark} {scenario}: not in the report"
        for benchmark, scenario in pairs
        if (benchmark, scenario) not in named
    ]


def _accuracy_met(facts: Facts) -> Verdict:
    if facts.results is None:
        return _pending(facts)
    measured = [result for result in facts.results if result.mode is TestMode.ACCURACY]
    absent = _absent(facts, TestMode.ACCURACY, measured)
    if not measured and not absent:
        return Verdict(_UNKNOWN, "NotRequested", "testModes does not hold AccuracyOnly")
    missing = [f"{_label(r)}: {r.missing or 'no accuracy in the logs'}" for r in measured if not r.accuracy]
    missing += absent
    items = [(result, item) for result in measured for item in result.accuracy]
    failed = [
        f"{_label(r)}: {item.name} {item.value:g} is below {item.threshold:g}"
        if item.threshold is not None
        else f"{_label(r)}: {item.name} {item.value:g} did not pass"
        for r, item in items
        if item.passed is False
    ]
    if failed:
        return Verdict(_FALSE, "BelowThreshold", _lines([*failed, *missing]))
    if missing:
        return Verdict(_FALSE, "Missing", _lines(missing))
    unjudged = [f"{_label(r)}: {item.name} {item.value:g}" for r, item in items if item.passed is None]
    if unjudged:
        return Verdict(_UNKNOWN, "NoThreshold", "no threshold is known for " + _lines(unjudged))
    passed = [f"{_label(r)}: {item.name} {item.value:g}" for r, item in items]
    return Verdict(_TRUE, "Met", _lines(passed))


def _expectations_met(facts: Facts) -> Verdict:
    expectations = facts.run.spec.expectations
    if not expectations:
        return Verdict(_UNKNOWN, "NoExpectations", "spec.expectations is empty")
    if facts.results is None:
        return _pending(facts)
    missed = [text for text in (_miss(e, facts.results) for e in expectations) if text]
    if missed:
        return Verdict(_FALSE, "NotMet", _lines(missed))
    return Verdict(_TRUE, "Met", f"{len(expectations)} of {len(expectations)} expectations are met")


def _miss(expectation: Expectation, results: Sequence[ResultStatus]) -> str:
    label = f"{expectation.benchmark} {expectation.scenario.value} {expectation.metric}"
    metrics = [
        r.metric
        for r in results
        if (r.benchmark, r.scenario) == (expectation.benchmark, expectation.scenario.value)
        and r.metric is not None
        and r.metric.name == expectation.metric
    ]
    if not metrics:
        return f"{label}: no such metric in the results"
    value = Decimal(str(metrics[0].value))
    if expectation.min is not None and value < Decimal(expectation.min):
        return f"{label}: {value} is below {expectation.min}"
    if expectation.max is not None and value > Decimal(expectation.max):
        return f"{label}: {value} is above {expectation.max}"
    return ""


def _label(result: ResultStatus) -> str:
    return f"{result.variant} {result.scenario}"


def _with_reason(result: ResultStatus) -> str:
    return f"{_label(result)} ({result.message})" if result.message else _label(result)


def _lines(parts: Iterable[str]) -> str:
    return "; ".join(parts)


POLICIES: dict[ConditionType, Policy] = {
    ConditionType.ACCEPTED: _accepted,
    ConditionType.DRIVER_READY: _driver_ready,
    ConditionType.PREPARED: _prepared,
    ConditionType.SUSPENDED: _suspended,
    ConditionType.SUCCEEDED: _succeeded,
    ConditionType.FINISHED: _finished,
    ConditionType.RESULTS_VALID: _results_valid,
    ConditionType.ACCURACY_MET: _accuracy_met,
    ConditionType.EXPECTATIONS_MET: _expectations_met,
}

MAX_MESSAGE = 4096


def conditions(facts: Facts, now: str) -> list[Condition]:
    """Return the run's conditions; lastTransitionTime moves only where status differs from the stored one."""
    stored = {condition.type: condition for condition in facts.run.status.conditions}
    return [
        _condition(kind, policy(facts), stored.get(kind), facts.run.metadata.generation, now)
        for kind, policy in POLICIES.items()
    ]


def _condition(kind: ConditionType, verdict: Verdict, stored: Condition | None, generation: int, now: str) -> Condition:
    unmoved = stored is not None and stored.status is verdict.status
    return Condition(
        type=kind,
        status=verdict.status,
        reason=verdict.reason,
        message=verdict.message[:MAX_MESSAGE],
        observed_generation=generation,
        last_transition_time=stored.last_transition_time if stored is not None and unmoved else now,
    )


def status_of(found: Sequence[Condition], kind: ConditionType) -> ConditionStatus:
    """Return a condition's status, Unknown when it is not there."""
    return next((c.status for c in found if c.type is kind), _UNKNOWN)
