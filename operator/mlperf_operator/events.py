"""The Events that tell a run's story in `kubectl describe mlr`: pure, from the old status to the new one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import (
    API_VERSION,
    KIND,
    Condition,
    ConditionStatus,
    ConditionType,
    MLPerfRun,
    MLPerfRunStatus,
    StageState,
    StageStatus,
)
from mlperf_operator.observed import format_time, parse_time

MAX_MESSAGE = 1024
"""Longest note that the API server accepts in an Event."""

_BAD_WHEN_FALSE = frozenset(
    {
        ConditionType.ACCEPTED,
        ConditionType.SUCCEEDED,
        ConditionType.RESULTS_VALID,
        ConditionType.ACCURACY_MET,
        ConditionType.EXPECTATIONS_MET,
        ConditionType.AUDITS_PASSED,
    }
)
_JUDGED = _BAD_WHEN_FALSE - {ConditionType.ACCEPTED, ConditionType.SUCCEEDED}
_TOLD = _BAD_WHEN_FALSE | {ConditionType.SUSPENDED}
_ENDED = frozenset({StageState.COMPLETED, StageState.SKIPPED})


@dataclass(frozen=True)
class Note:
    """One Event without its bookkeeping."""

    kind: str
    """Normal or Warning."""
    reason: str
    message: str


def notes(old: MLPerfRunStatus, new: MLPerfRunStatus) -> list[Note]:
    """Return what changed from the old status to the new one, in the order to tell it."""
    return [*_pod_notes(old, new), *_stage_notes(old, new), *_condition_notes(old, new)]


def _pod_notes(old: MLPerfRunStatus, new: MLPerfRunStatus) -> Iterator[Note]:
    if new.job_name is not None and old.job_name is None:
        yield Note("Normal", "JobCreated", f"created Job {new.job_name}")
    if new.pod_name is not None and old.pod_name is not None and new.pod_name != old.pod_name:
        yield Note("Warning", "PodReplaced", f"pod {new.pod_name} replaces {old.pod_name}; finished stages are kept")


def _stage_notes(old: MLPerfRunStatus, new: MLPerfRunStatus) -> Iterator[Note]:
    # One Event a stage, not two: the end of one is told with the begin of the next.
    before = {stage.name: stage.state for stage in old.stages}
    changed = [stage for stage in new.stages if stage.state is not before.get(stage.name)]
    ended = [stage for stage in changed if stage.state in _ENDED]
    begun = next((stage for stage in changed if stage.state is StageState.RUNNING), None)
    if begun is not None:
        previous = new.stages[: new.stages.index(begun)][-1:]
        told = [*ended, *(stage for stage in previous if stage.state in _ENDED and stage not in ended)]
        yield Note("Normal", "StageStarted", "; ".join([f"stage {begun.name} started", *_ends(told)]))
    else:
        # What was seen to run waits for the next one's begin, unless there is no next one.
        told = [s for s in ended if s is new.stages[-1] or before.get(s.name) is not StageState.RUNNING]
        if told:
            yield Note("Normal", "StageCompleted", "; ".join(_ends(told)))
    for stage in changed:
        if stage.state is StageState.FAILED:
            detail = f": {stage.message}" if stage.message else ""
            yield Note("Warning", "StageFailed", f"stage {stage.name} failed{detail}")


def _ends(stages: Sequence[StageStatus]) -> Iterator[str]:
    for stage in stages:
        start, end = parse_time(stage.started_at), parse_time(stage.finished_at)
        if stage.state is StageState.SKIPPED:
            yield f"{stage.name} was skipped"
        else:
            yield f"{stage.name} is done" + (f" after {_spoken(end - start)}" if start and end else "")


def _spoken(span: timedelta) -> str:
    minutes, seconds = divmod(max(0, int(span.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _condition_notes(old: MLPerfRunStatus, new: MLPerfRunStatus) -> Iterator[Note]:
    before = {condition.type: condition for condition in old.conditions}
    news = [c for c in new.conditions if c.type in _TOLD and _is_news(c, before.get(c.type))]
    end = next((c for c in news if c.type is ConditionType.SUCCEEDED), None)
    # Good verdicts are told together with the run's end, bad ones each by itself.
    good = [c for c in news if end is not None and c.type in _JUDGED and c.status is ConditionStatus.TRUE]
    for condition in news:
        if condition in good:
            continue
        bad = condition.status is ConditionStatus.FALSE and condition.type in _BAD_WHEN_FALSE
        message = condition.message or condition.reason
        if condition is end:
            message = "; ".join([message, *([new.summary] if new.summary else []), *(c.message for c in good)])
        yield Note("Warning" if bad else "Normal", f"{condition.type}{condition.status}", message)
    for condition in new.conditions:
        if condition.type is ConditionType.SUCCEEDED and _waits_for_new_reason(condition, before.get(condition.type)):
            yield Note("Warning", condition.reason, condition.message)


def _is_news(condition: Condition, stored: Condition | None) -> bool:
    if condition.status is ConditionStatus.UNKNOWN:
        return False
    if stored is None:
        return condition.status is ConditionStatus.TRUE or condition.type in _BAD_WHEN_FALSE
    return stored.status is not condition.status


_PROGRESS_REASONS = frozenset(
    {
        "Collecting",
        "DriverDraining",
        "DriverInstalling",
        "Ending",
        "PodNotCreated",
        "PodStarting",
        "PodTerminating",
        "Queued",
        "Resuming",
        "Running",
        "Starting",
        "Suspended",
        "WaitingForDeletion",
    }
)
"""Why a run is not finished, where nobody needs to do anything."""


def _waits_for_new_reason(condition: Condition, stored: Condition | None) -> bool:
    changed = stored is None or stored.reason != condition.reason
    return changed and condition.status is ConditionStatus.UNKNOWN and condition.reason not in _PROGRESS_REASONS


def node_event(name: str, uid: str, phase: str, reason: str, message: str, now: datetime) -> dict[str, Any]:
    """Build the Event of a node's driver. Events of nodes lie in namespace default, where `kubectl describe` looks."""
    moment = format_time(now)
    content = f"{uid}/{reason}/{message}/{moment}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{name}.{hashlib.sha256(content.encode()).hexdigest()[:16]}",
            "namespace": "default",
        },
        "involvedObject": {"kind": "Node", "name": name, "uid": uid, "apiVersion": "v1"},
        "type": "Normal" if phase in ("Ready", "Working") else "Warning",
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "source": {"component": naming.MANAGER},
        "reportingComponent": naming.MANAGER,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def event(run: MLPerfRun, note: Note, now: datetime, attempt: int | None) -> dict[str, Any]:
    """Build the Event. Its name is derived from its content, so that telling the same thing twice is refused."""
    content = f"{run.metadata.uid}/{attempt}/{note.reason}/{note.message}/{run.metadata.generation}"
    moment = format_time(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{run.metadata.name}.{hashlib.sha256(content.encode()).hexdigest()[:16]}",
            "namespace": run.metadata.namespace,
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": run.metadata.name,
            "namespace": run.metadata.namespace,
            "uid": run.metadata.uid,
        },
        "type": note.kind,
        "reason": note.reason,
        "message": note.message[:MAX_MESSAGE],
        "source": {"component": naming.MANAGER},
        "reportingComponent": naming.MANAGER,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
