"""The official primary metric of a scenario, by LoadGen's version."""

from __future__ import annotations

import re

from mlperf_operator.results.detail import DetailLog
from mlperf_operator.results.model import Metric
from mlperf_operator.results.summary import Summary

Version = tuple[int, int]

COMPLETED_SINCE: Version = (4, 1)
"""Server counts completed, and language models count tokens, from v4.1 on (submission checker, RESULT_FIELD)."""

EARLY_STOPPING_SINCE: Version = (2, 0)
"""The latency scenarios take the early-stopping estimate from v2.0 on."""

_LATENCY = {"SingleStream": "early_stopping_latency_ss", "MultiStream": "early_stopping_latency_ms"}
_LATENCY_BEFORE = {"SingleStream": "result_90.00_percentile_latency_ns", "MultiStream": "effective_samples_per_query"}

_UNITS = (("samples_per_query", "samples/query"), ("latency", "ns"), ("tokens", "tokens/s"), ("samples", "samples/s"))
_HEADLINES = re.compile(
    r"(completed tokens per second|tokens per second|(scheduled |completed )?samples per second|samples per query"
    r"|9[09](\.\d+)?(th|st|nd|rd)? percentile latency \(ns\))$",
    re.IGNORECASE,
)


def version_of(text: str | None) -> Version | None:
    """Return LoadGen's version, such as (4, 1) from `4.1 @ 2ed9555be0`; up to v1.0 it called itself .5a1."""
    found = re.match(r"v?(\d+)\.(\d+)", text or "")
    if found:
        return int(found[1]), int(found[2])
    return (1, 0) if (text or "").startswith(".5") else None


def unit_of(name: str) -> str:
    """Return the unit of a metric, by its key or headline."""
    plain = name.lower().replace(" ", "_")
    return next((unit for word, unit in _UNITS if word in plain), "")


def key_of(scenario: str | None, version: Version, detail: DetailLog) -> str | None:
    """Return the detail log's key of the official primary metric, None for a scenario that is not known.

    LoadGen has no scenario Interactive: it is Server with other latency limits.
    """
    tokens = version >= COMPLETED_SINCE
    if scenario == "Offline":
        has_tokens = tokens and detail.number("result_tokens_per_second") is not None
        return "result_tokens_per_second" if has_tokens else "result_samples_per_second"
    if scenario in ("Server", "Interactive"):
        if tokens and detail.number("result_completed_tokens_per_second") is not None:
            return "result_completed_tokens_per_second"
        return "result_completed_samples_per_sec" if tokens else "result_scheduled_samples_per_sec"
    names = _LATENCY if version >= EARLY_STOPPING_SINCE else _LATENCY_BEFORE
    return names.get(scenario or "")


def _guessed(scenario: str | None, detail: DetailLog) -> Version | None:
    """Return a version that the keys themselves prove, for a log whose head is missing."""
    if scenario == "Offline":
        return COMPLETED_SINCE
    return EARLY_STOPPING_SINCE if _LATENCY.get(scenario or "") in detail.values else None


def metric_from_detail(scenario: str | None, detail: DetailLog, summary: Summary) -> Metric | None:
    """Return the official primary metric of a detail log, None when the log does not reach that far."""
    version = version_of(detail.text("loadgen_version")) or _guessed(scenario, detail)
    if version is None:
        return None
    key = key_of(scenario, version, detail)
    if key is None:
        return None
    value = detail.number(key)
    if key == "effective_samples_per_query":
        value = (summary.headline or {}).get("Samples per query", value)
    if key.startswith("early_stopping"):
        # LoadGen writes 0 for "no estimate"; no query takes 0 ns. A run without a verdict has not got that far.
        value = value or summary.early_stopping_estimate or None
        if value is None and key not in detail.values and "result_validity" not in detail.values:
            return None
    elif value is None:
        return None
    return Metric(key, value, unit_of(key))


def metric_from_summary(scenario: str | None, summary: Summary) -> Metric | None:
    """Return the primary metric of a summary alone, under the name of its headline."""
    if summary.early_stopping_met is not None and scenario in _LATENCY:
        return Metric(_LATENCY[scenario], summary.early_stopping_estimate, "ns")
    known = {label: value for label, value in (summary.headline or {}).items() if _HEADLINES.match(label)}
    tokens = [label for label in known if "tokens" in label.lower()]
    label = next(iter(tokens or known), None)
    if label == "Samples per query":
        return Metric("effective_samples_per_query", known[label], unit_of(label))
    return Metric(label, known[label], unit_of(label)) if label is not None else None
