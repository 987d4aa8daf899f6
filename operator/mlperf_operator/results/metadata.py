"""metadata.json: what NVIDIA's harness says about its own result."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from mlperf_operator.results.detail import finite
from mlperf_operator.results.metrics import unit_of
from mlperf_operator.results.model import MIN_DURATION_MS, Accuracy, Metric, ResultError

_KNOWN = ("result_validity", "scenario_key", "scenario", "test_mode", "accuracy", "benchmark_full", "benchmark_short")

_TARGET = re.compile(r"_k_(99(?:_9)?)(?![0-9_]*\d)")
"""The accuracy target in a config's name, such as A100_SXM4_40GBx8_TRT-custom_k_99_9_MaxP-Server."""

_MAX_SHOWN, _MAX_NOTES = 200, 20
"""Characters of a value, and sentences of a kind: the notes say that a file is spoiled, not all that is in it."""


@dataclass(frozen=True)
class Metadata:
    """What is kept of a metadata.json.

    Attributes:
        metric: The value under the key that `scenario_key` names.
        shortfalls: What the file says was not met, by its own keys.
        notes: Where the file contradicts itself, or is less than it seems, one sentence each.
    """

    variant: str | None
    benchmark: str | None
    scenario: str | None
    mode: str | None
    validity: Literal["VALID", "INVALID"] | None
    metric: Metric | None
    accuracy: tuple[Accuracy, ...]
    config_name: str | None
    early_stopping_met: bool | None
    min_duration_ms: float | None
    shortfalls: tuple[str, ...]
    notes: tuple[str, ...]


def parse_metadata(text: str) -> Metadata:
    """Read a metadata.json.

    Raises:
        ResultError: it is no JSON object, or not one of NVIDIA's harness.
    """
    repeated: list[str] = []
    try:
        body = json.loads(text, object_pairs_hook=partial(_object, repeated=repeated))
    except (ValueError, RecursionError) as error:
        raise ResultError(f"metadata.json is no JSON: {error}") from error
    if not isinstance(body, dict) or not any(key in body for key in _KNOWN):
        raise ResultError(f"metadata.json is not of NVIDIA's harness, it has none of {', '.join(_KNOWN)}")
    validity = (_text(body.get("result_validity")) or "").strip().upper()
    accuracy, contradictions = _accuracy(body)
    return Metadata(
        variant=_variant(body),
        benchmark=_text(body.get("benchmark_short")),
        scenario=_text(body.get("scenario")),
        mode=_text(body.get("test_mode")),
        validity="VALID" if validity == "VALID" else "INVALID" if validity == "INVALID" else None,
        metric=_metric(body),
        accuracy=accuracy,
        config_name=_text(body.get("config_name")),
        early_stopping_met=_flag(body.get("early_stopping_met")),
        min_duration_ms=finite(body.get("effective_min_duration_ms")),
        shortfalls=_shortfalls(body),
        notes=(*repeated[:_MAX_NOTES], *contradictions[:_MAX_NOTES], *_unmet_but_valid(body, validity)),
    )


def _object(pairs: list[tuple[str, Any]], repeated: list[str]) -> dict[str, Any]:
    """Return a JSON object; of a repeated key the last value, as JSON's readers take it, but INVALID stays."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            repeated.append(f"metadata.json has {key[:_MAX_SHOWN]} more than once, with different values")
        if key != "result_validity" or found.get(key) != "INVALID":
            found[key] = value
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _variant(body: dict[str, Any]) -> str | None:
    """Return benchmark_full; without it the short name and the target that the config's name holds."""
    full, short = _text(body.get("benchmark_full")), _text(body.get("benchmark_short"))
    target = _TARGET.search(_text(body.get("config_name")) or "")
    if full or not short or target is None:
        return full
    return f"{short}-{target[1].replace('_', '.')}"


def _metric(body: dict[str, Any]) -> Metric | None:
    key = _text(body.get("scenario_key"))
    value = finite(body.get(key)) if key else None
    if key is None or value is None:
        return None
    return Metric(key, None if key.startswith("early_stopping") and not value else value, unit_of(key))


def _shortfalls(body: dict[str, Any]) -> tuple[str, ...]:
    keys = ("early_stopping_met", "satisfies_query_constraint")
    found = [f"{key} is false" for key in keys if body.get(key) is False]
    duration = finite(body.get("effective_min_duration_ms"))
    if duration is not None and duration < MIN_DURATION_MS:
        found.append(f"effective_min_duration_ms is {duration:g}, below {MIN_DURATION_MS}")
    return tuple(found)


def _unmet_but_valid(body: dict[str, Any], validity: str) -> list[str]:
    # NVIDIA's harness counts a run with enough queries or with early stopping met; it needs one of the two.
    if validity == "VALID" and body.get("satisfies_query_constraint") is body.get("early_stopping_met") is False:
        return ["metadata.json says VALID, but neither the query constraint nor early stopping is met"]
    return []


def _accuracy(body: dict[str, Any]) -> tuple[tuple[Accuracy, ...], list[str]]:
    items: list[Accuracy] = []
    notes: list[str] = []
    listed = body.get("accuracy", [])
    for entry in listed if isinstance(listed, list) else [listed]:
        item = _item(entry, notes)
        items += [item] if item is not None else []
    said = body.get("accuracy_pass")
    if said is True and not items:
        notes.append("accuracy_pass is true, but there is no accuracy item")
    if said is True and any(item.passed is False for item in items):
        notes.append("accuracy_pass is true although an item did not pass; taken as not passed")
    if said is False and items and all(item.passed is not False for item in items):
        notes.append("accuracy_pass is false although no item failed; taken as not passed")
        items = [Accuracy(item.name, item.value, item.threshold, passed=False) for item in items]
    return tuple(items), notes


def _item(entry: object, notes: list[str]) -> Accuracy | None:
    """Return one accuracy item; any `false` wins, be it the file's word or the threshold's."""
    value = finite(entry.get("value")) if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or value is None:
        notes.append(f"an accuracy item has no value: {str(entry)[:_MAX_SHOWN]}")
        return None
    name = _text(entry.get("name")) or "accuracy"
    threshold, limit, said = finite(entry.get("threshold")), finite(entry.get("upper_limit")), entry.get("pass")
    reached = None if threshold is None else value >= threshold
    if limit is not None and reached is not False:
        reached = value <= limit
    passed = reached if not isinstance(said, bool) else said and reached is not False
    if isinstance(said, bool) and reached is not None and said != reached:
        bounds = [f"{sign} {bound:g}" for sign, bound in ((">=", threshold), ("<=", limit)) if bound is not None]
        notes.append(f"{name} {value:g} against {' and '.join(bounds)} is said to be pass={str(said).lower()}")
    return Accuracy(name, value, threshold, passed)
