"""metadata.json: what NVIDIA's harness says about its own result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from mlperf_operator.results.metrics import unit_of
from mlperf_operator.results.model import Accuracy, Metric, ResultError


@dataclass(frozen=True)
class Metadata:
    """What is kept of a metadata.json.

    Attributes:
        metric: The value under the key that `scenario_key` names.
        contradictions: Where the file contradicts itself, one sentence each.
    """

    benchmark: str | None
    variant: str | None
    scenario: str | None
    mode: str | None
    validity: Literal["VALID", "INVALID"] | None
    metric: Metric | None
    accuracy: tuple[Accuracy, ...]
    config_name: str | None
    early_stopping_met: bool | None
    min_duration_ms: float | None
    contradictions: tuple[str, ...]


def parse_metadata(text: str) -> Metadata:
    """Read a metadata.json.

    Raises:
        ResultError: it is no JSON object.
    """
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ResultError(f"metadata.json is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise ResultError("metadata.json is no JSON object")
    validity = body.get("result_validity")
    accuracy, contradictions = _accuracy(body)
    stopping = body.get("early_stopping_met")
    return Metadata(
        benchmark=_text(body.get("benchmark_short")),
        variant=_text(body.get("benchmark_full")),
        scenario=_text(body.get("scenario")),
        mode=_text(body.get("test_mode")),
        validity=validity if validity in ("VALID", "INVALID") else None,
        metric=_metric(body),
        accuracy=accuracy,
        config_name=_text(body.get("config_name")),
        early_stopping_met=stopping if isinstance(stopping, bool) else None,
        min_duration_ms=_number(body.get("effective_min_duration_ms")),
        contradictions=contradictions,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _metric(body: dict[str, Any]) -> Metric | None:
    key = body.get("scenario_key")
    value = _number(body.get(key)) if isinstance(key, str) else None
    if value is None or not isinstance(key, str):
        return None
    return Metric(key, None if key.startswith("early_stopping") and not value else value, unit_of(key))


def _accuracy(body: dict[str, Any]) -> tuple[tuple[Accuracy, ...], tuple[str, ...]]:
    items = []
    contradictions = []
    listed = body.get("accuracy")
    for entry in listed if isinstance(listed, list) else ():
        value = _number(entry.get("value")) if isinstance(entry, dict) else None
        if value is None:
            contradictions.append(f"an accuracy item has no value: {entry!r}")
            continue
        threshold, said = _number(entry.get("threshold")), entry.get("pass")
        reached = None if threshold is None else value >= threshold
        limit = _number(entry.get("upper_limit"))
        if reached and limit is not None:
            reached = value <= limit
        passed = reached if not isinstance(said, bool) else said and reached is not False
        items.append(Accuracy(str(entry.get("name", "accuracy")), value, threshold, passed))
        if isinstance(said, bool) and reached is not None and said != reached:
            contradictions.append(f"{items[-1].name} {value:g} against {threshold:g} is said to pass={said}")
    if body.get("accuracy_pass") is True and any(item.passed is False for item in items):
        contradictions.append("accuracy_pass is true although an item did not pass; taken as not passed")
    if body.get("accuracy_pass") is False and items and all(item.passed is not False for item in items):
        contradictions.append("accuracy_pass is false although every item passed; taken as not passed")
        items = [Accuracy(item.name, item.value, item.threshold, passed=False) for item in items]
    return tuple(items), tuple(contradictions)
