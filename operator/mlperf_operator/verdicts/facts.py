"""What the policies of a run's conditions look at, and what they return."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mlperf_operator.api.v1alpha1 import AuditStatus, ConditionStatus, MLPerfRun, ResultStatus, StageStatus
from mlperf_operator.limits import Refusal
from mlperf_operator.observed import Blocked, DriverView
from mlperf_operator.outcome import Outcome
from mlperf_operator.stages import Seen
from mlperf_operator.suites import Suite

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True)
class Facts:
    """What the policies look at."""

    run: MLPerfRun
    suite: Suite | None = None
    refusal: Refusal | None = None
    outcome: Outcome | None = None
    stages: tuple[StageStatus, ...] = ()
    seen: Seen = field(default_factory=Seen)
    """What preflight saw of the node."""
    results: tuple[ResultStatus, ...] | None = None
    """None while no report was read."""
    audits: tuple[AuditStatus, ...] = ()
    unverified: str = ""
    """Why the report that was read is not whole; nothing in it is then a success."""
    blocked: Blocked | None = None
    """Why the run has no Job yet."""
    driver: DriverView | None = None
    """How the driver stands on the run's node, where a driver pod watches it."""

    @property
    def is_verified(self) -> bool:
        """Whether the report was read whole, by its own count and digest."""
        return not self.unverified


@dataclass(frozen=True)
class Verdict:
    """A condition without its bookkeeping."""

    status: ConditionStatus
    reason: str
    message: str = ""


Policy = Callable[[Facts], Verdict]


def pending(facts: Facts) -> Verdict:
    """Return the verdict while there are no results, or when none will ever come."""
    outcome = facts.outcome
    if outcome is not None and outcome.reason == "ResultsNotCollected":
        return Verdict(UNKNOWN, "ResultsNotCollected", outcome.message)
    if facts.refusal is not None or (outcome is not None and outcome.ended):
        return Verdict(UNKNOWN, "NoResults", "the run ended without results")
    return Verdict(UNKNOWN, "Pending", "the run has no results yet")


def unverified(facts: Facts) -> Verdict:
    """Return the verdict about what is good as far as a report that is not whole can be read."""
    text = "what can be read of collect's report is good, but the report is not whole, so nothing is certain"
    return Verdict(UNKNOWN, "ReportIncomplete", f"{text}: {facts.unverified}")


def joined(parts: Iterable[str]) -> str:
    """Return what a message has to say, as one text."""
    return "; ".join(parts)
