"""A node's report: how its driver stands and why, kept in an annotation of the node for people and for waiting runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import ValidationError, field_validator

from mlperf_operator import naming
from mlperf_operator.driver_report import NodeReport
from mlperf_operator.models import Lenient
from mlperf_operator.observed import format_time, parse_time

RETRY_CAP = timedelta(minutes=10)


class Phase(StrEnum):
    """Where a node stands on its way to a driver."""

    READY = "Ready"
    WORKING = "Working"
    """Something goes on; nobody needs to do anything."""
    WAITING = "Waiting"
    """Something that may pass stands in the way."""
    FAILED = "Failed"


class NodeState(Lenient):
    """What the node's annotation says."""

    phase: Phase
    reason: str
    message: str = ""
    version: str | None = None
    """The version that is wanted."""
    since: str = ""
    attempts: int = 0
    """How often it failed in a row."""
    retry_at: str | None = None
    driver: str | None = None
    fabric_manager: str | None = None
    gpus: int = 0
    product: str | None = None
    managed_by: str | None = None

    @field_validator("since", "retry_at")
    @classmethod
    def _is_a_moment(cls, text: str | None) -> str | None:
        if text and (parse_time(text) is None or datetime.fromisoformat(text).tzinfo is None):
            raise ValueError("no time, or one without its time zone")
        return text

    @property
    def due(self) -> datetime | None:
        """When a node that failed is tried again."""
        return parse_time(self.retry_at)


def read(annotations: Mapping[str, str]) -> NodeState | None:
    """Return a node's report, or None where there is none that can be read."""
    try:
        return NodeState.model_validate_json(annotations.get(naming.DRIVER_REPORT_ANNOTATION) or "")
    except ValidationError:
        return None


def write(state: NodeState | None) -> str | None:
    """Return the annotation's value."""
    return state.model_dump_json(by_alias=True, exclude_none=True) if state is not None else None


def of_report(phase: Phase, version: str | None, report: NodeReport) -> NodeState:
    """Return a state with what a driver pod reported."""
    return NodeState(
        phase=phase,
        reason=report.reason,
        message=report.message,
        version=version,
        driver=report.driver,
        fabric_manager=report.fabric_manager,
        gpus=report.gpus,
        product=report.product,
        managed_by=report.managed_by,
    )


def follow(before: NodeState | None, state: NodeState, now: datetime) -> NodeState:
    """Return the state with the moment since when it is so."""
    same = before is not None and (before.reason, before.version) == (state.reason, state.version)
    since = (before.since if before is not None and same else "") or format_time(now)
    return state.model_copy(update={"since": since})


def failed(before: NodeState | None, state: NodeState, now: datetime, pause: timedelta) -> NodeState:
    """Return the state of a node that failed once more, and when it is tried again: the pause doubles each time."""
    attempts = before.attempts + 1 if before is not None and before.version == state.version else 1
    return again(state, attempts, now, pause * 2 ** min(attempts - 1, 10))


def again(state: NodeState, attempts: int, now: datetime, pause: timedelta) -> NodeState:
    """Return the state of a node that is tried again after a pause, which is never longer than RETRY_CAP."""
    return state.model_copy(update={"attempts": attempts, "retry_at": format_time(now + min(pause, RETRY_CAP))})
