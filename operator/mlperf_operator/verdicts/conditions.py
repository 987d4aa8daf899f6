"""The run's conditions: one pure policy each, facts in, status, reason and message out.

Here are those of a run's life; what is said about its results is in results.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlperf_operator.api.v1alpha1 import Condition, ConditionStatus, ConditionType, DriverPolicy, StageState
from mlperf_operator.observed import DriverView
from mlperf_operator.outcome import Phase
from mlperf_operator.resources.containers import RUN
from mlperf_operator.verdicts.facts import FALSE, TRUE, UNKNOWN, Facts, Policy, Verdict
from mlperf_operator.verdicts.results import VERDICTS


def _accepted(facts: Facts) -> Verdict:
    if facts.refusal is not None:
        return Verdict(FALSE, facts.refusal.reason, facts.refusal.message)
    return Verdict(TRUE, "Accepted", "the run is possible with this operator's settings")


def _driver_ready(facts: Facts) -> Verdict:
    if facts.suite is None:
        return _as_stored(facts, ConditionType.DRIVER_READY) or Verdict(UNKNOWN, "NotVerified", "nobody looked")
    if not facts.suite.uses_gpu:
        return Verdict(TRUE, "NotRequired", "the suite uses no GPU driver")
    if facts.run.spec.driver.policy is DriverPolicy.IGNORE:
        return Verdict(
            UNKNOWN, "Ignored", "driver.policy is Ignore: the driver is not judged; preflight still needs working GPUs"
        )
    preflight = next((stage for stage in facts.stages if stage.name == "preflight"), None)
    if preflight is not None and preflight.state is StageState.FAILED and facts.seen.gpu_findings != 0:
        return Verdict(FALSE, "PreflightFailed", preflight.message)
    if preflight is None or preflight.state in (StageState.PENDING, StageState.RUNNING):
        return _driver_before_preflight(facts)
    return Verdict(TRUE, "Verified", "preflight found the driver of the run's node working" + _on_node(facts.driver))


def _driver_before_preflight(facts: Facts) -> Verdict:
    driver, blocked = facts.driver, facts.blocked
    if blocked is not None and blocked.reason in DRIVER_REASONS:
        return Verdict(FALSE, blocked.reason, blocked.message)
    if driver is not None and driver.claimed and not driver.ready:
        # Also while something else keeps the run waiting, or its pod waits for the node to be ready again.
        return Verdict(UNKNOWN if driver.working else FALSE, driver.reason, f"node {driver.node}: {driver.message}")
    if driver is not None and driver.ready and f"{driver.version}.".startswith(f"{facts.run.spec.driver.version}."):
        return Verdict(TRUE, "NodeReady", "everything matches" + _on_node(driver))
    return Verdict(UNKNOWN, "NotVerified", "preflight verifies the driver in the run's pod")


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
        return Verdict(FALSE, facts.refusal.reason, "the run was refused")
    before = [stage for stage in facts.stages if stage.name != RUN]
    failed = next((stage for stage in before if stage.state is StageState.FAILED), None)
    if failed is not None:
        return Verdict(FALSE, "StageFailed", f"stage {failed.name}: {failed.message}")
    done = [stage for stage in before if stage.state in (StageState.COMPLETED, StageState.SKIPPED)]
    if before and len(done) == len(before):
        skipped = [stage.name for stage in before if stage.state is StageState.SKIPPED]
        return Verdict(TRUE, "Prepared", f"skipped as already done: {', '.join(skipped)}" if skipped else "")
    if facts.outcome is not None and facts.outcome.ended:
        return Verdict(FALSE, facts.outcome.reason, "the run ended before its stages did")
    return Verdict(FALSE, "Preparing", f"{len(done)} of {len(before)} stages are done")


def _suspended(facts: Facts) -> Verdict:
    if facts.outcome is not None and facts.outcome.phase is Phase.SUSPENDED:
        return Verdict(TRUE, facts.outcome.reason, facts.outcome.message)
    return Verdict(FALSE, "NotSuspended")


def _succeeded(facts: Facts) -> Verdict:
    if facts.refusal is not None:
        return Verdict(FALSE, facts.refusal.reason, facts.refusal.message)
    if facts.outcome is None:
        return Verdict(UNKNOWN, "Starting")
    status = {Phase.COMPLETED: TRUE, Phase.FAILED: FALSE}.get(facts.outcome.phase, UNKNOWN)
    return Verdict(status, facts.outcome.reason, facts.outcome.message)


def _finished(facts: Facts) -> Verdict:
    if facts.refusal is not None:
        return Verdict(TRUE, facts.refusal.reason, "the run was refused and never starts")
    if facts.outcome is not None and facts.outcome.ended:
        return Verdict(TRUE, facts.outcome.reason, "nothing more happens; Succeeded says how it ended")
    return Verdict(FALSE, "InProgress")


POLICIES: Mapping[ConditionType, Policy] = {
    ConditionType.ACCEPTED: _accepted,
    ConditionType.DRIVER_READY: _driver_ready,
    ConditionType.PREPARED: _prepared,
    ConditionType.SUSPENDED: _suspended,
    ConditionType.SUCCEEDED: _succeeded,
    ConditionType.FINISHED: _finished,
    **VERDICTS,
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
    return next((c.status for c in found if c.type is kind), UNKNOWN)
