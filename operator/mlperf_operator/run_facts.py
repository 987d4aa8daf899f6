"""From a stored run to the few facts that metrics are made of: pure, and cheap enough for thousands a scrape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mlperf_operator.api.v1alpha1 import MLPerfRunStatus
from mlperf_operator.observed import Raw, RunRecord, parse_time

MAX_LABEL = 128
"""Longest value of a label; what a run's pod reported is of any length."""

JUDGED = ("Succeeded", "ResultsValid", "AccuracyMet", "ExpectationsMet", "AuditsPassed")
"""Conditions that a finished run answers for."""

UNREADABLE = "Unreadable"


class ResultKey(NamedTuple):
    """What a later result replaces an earlier one of: its labels."""

    namespace: str
    node: str
    suite: str
    system: str
    benchmark: str
    variant: str
    scenario: str
    mode: str
    test_run: str
    power_setting: str


class ResultFacts(NamedTuple):
    """One result of a run."""

    key: ResultKey
    metric: tuple[str, str, float] | None
    """Name, unit and value."""
    valid: bool | None
    accuracy: Mapping[str, tuple[float, bool | None]]
    """By name the value, and whether it was reached."""


class RunFacts(NamedTuple):
    """A run."""

    uid: str
    namespace: str
    node: str
    suite: str
    state: str
    """Pending, Running, Suspended, Succeeded, Failed, Refused or Unreadable."""
    reason: str
    started: float | None
    completed: float | None
    """Both in seconds since the epoch."""
    running: tuple[tuple[str, float], ...]
    """Stages that run now, each with its start."""
    stages: tuple[tuple[str, float], ...]
    """Stages that ended, each with what it took in seconds."""
    conditions: Mapping[str, Raw]
    results: tuple[ResultFacts, ...]


def facts_of(record: RunRecord) -> RunFacts:
    """Return the facts of a run; one that cannot be read, as of another version of the API, only says so."""
    try:
        return _facts(record)
    except (AttributeError, KeyError, TypeError, ValueError):
        return RunFacts(record.uid, record.namespace, "", "", UNREADABLE, "", None, None, (), (), {}, ())


def durations(status: MLPerfRunStatus) -> tuple[float, dict[str, float]]:
    """Return what a run and each of its stages took, in seconds."""
    stages = {s.name: _seconds(s.started_at, s.finished_at) for s in status.stages if s.started_at and s.finished_at}
    return _seconds(status.start_time, status.completion_time), stages


def _seconds(start: str | None, end: str | None) -> float:
    first, last = _moment(start), _moment(end)
    # The clocks are those of the node and of whoever runs the operator.
    return max(0.0, last - first) if first is not None and last is not None else 0.0


def _facts(record: RunRecord) -> RunFacts:
    body = record.body
    spec, status = body.get("spec") or {}, body.get("status") or {}
    conditions = {str(c["type"]): c for c in status.get("conditions") or ()}
    stages = status.get("stages") or ()
    finished = _is_true(conditions, "Finished")
    return RunFacts(
        uid=record.uid,
        namespace=record.namespace,
        node=_label(status.get("node")),
        suite=_label(spec.get("suite")),
        state=_state(conditions, stages),
        reason=_label(conditions.get("Succeeded", {}).get("reason")),
        started=_moment(status.get("startTime")),
        completed=_moment(status.get("completionTime")) if finished else None,
        running=() if finished else tuple(_running(stages)),
        stages=tuple(_ended(stages)),
        conditions={kind: conditions[kind] for kind in JUDGED if kind in conditions},
        results=tuple(_results(record.namespace, spec, status)) if finished else (),
    )


def _state(conditions: Mapping[str, Raw], stages: Any) -> str:  # noqa: ANN401 - as stored
    if conditions.get("Accepted", {}).get("status") == "False":
        return "Refused"
    if _is_true(conditions, "Finished"):
        return "Succeeded" if _is_true(conditions, "Succeeded") else "Failed"
    if _is_true(conditions, "Suspended"):
        return "Suspended"
    return "Running" if any(stage.get("state") == "Running" for stage in stages) else "Pending"


def _is_true(conditions: Mapping[str, Raw], kind: str) -> bool:
    return conditions.get(kind, {}).get("status") == "True"


def _running(stages: Any) -> Iterator[tuple[str, float]]:  # noqa: ANN401 - as stored
    for stage in stages:
        started = _moment(stage.get("startedAt"))
        if stage.get("state") == "Running" and started is not None:
            yield _label(stage["name"]), started


def _ended(stages: Any) -> Iterator[tuple[str, float]]:  # noqa: ANN401 - as stored
    for stage in stages:
        if stage.get("startedAt") and stage.get("finishedAt"):
            yield _label(stage["name"]), _seconds(stage["startedAt"], stage["finishedAt"])


def _results(namespace: str, spec: Raw, status: Raw) -> Iterator[ResultFacts]:
    test_run = "true" if spec.get("testRun") else "false"
    power, node = _label(spec.get("powerSetting") or "MaxP"), _label(status.get("node"))
    for result in status.get("results") or ():
        measured = result["mode"] == "PerformanceOnly"
        metric = result.get("metric") if measured else None
        accuracy = () if measured else result.get("accuracy") or ()
        if not metric and not accuracy:
            continue
        validity = result.get("validity") if measured else None
        yield ResultFacts(
            ResultKey(
                namespace,
                node,
                _label(spec.get("suite")),
                _label(spec.get("system")),
                _label(result["benchmark"]),
                _label(result["variant"]),
                _label(result["scenario"]),
                _label(result["mode"]),
                test_run,
                power,
            ),
            (_label(metric["name"]), _label(metric["unit"]), float(metric["value"])) if metric else None,
            validity == "VALID" if validity else None,
            {_label(item["name"]): (float(item["value"]), item.get("passed")) for item in accuracy},
        )


def _label(value: object) -> str:
    return str(value)[:MAX_LABEL] if value is not None else ""


def _moment(text: str | None) -> float | None:
    moment = parse_time(text)
    return moment.timestamp() if moment is not None else None
