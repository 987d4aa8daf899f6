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
    r"((completed )?tokens per second( \(inferred\))?|(scheduled |completed )?samples per second|samples per query"
    r"|9[09](\.\d+)?(th|st|nd|rd)? percentile latency \(ns\))$",
    re.IGNORECASE,
)


def version_of(text: str | None) -> Version | None:
    """Return LoadGen's version, such as (4, 1) from `4.1 @ 2ed9555be0`; up to v1.0 it called itself .5a1."""
    found = re.match(r"v?(\d{1,4})\.(\d{1,4})(?!\d)", text or "")
    if found:
        return int(found[1]), int(found[2])
    return (1, 0) if (text or "").startswith(".5") else None


def unit_of(name: str) -> str:
    """Return the unit of a metric, by its key or headline."""
    plain = name.lower().replace(" ", "_")
    return next((unit for word, unit in _UNITS if word in plain), "")


_TOKENS = {
    "Offline": ("result_tokens_per_second", "result_inferred_tokens_per_second"),
    "Server": ("result_completed_tokens_per_second", "result_inferred_completed_tokens_per_second"),
}
"""Of language models, from v4.0 on; inferred ones of gptj (submission checker, RESULT_FIELD_BENCHMARK_OVERWRITE)."""


def key_of(scenario: str | None, version: Version, detail: DetailLog) -> str | None:
    """Return the detail log's key of the official primary metric, None for a scenario that is not known.

    LoadGen has no scenario Interactive: it is Server with other latency limits.
    """
    scenario = "Server" if scenario == "Interactive" else scenario
    if scenario in _TOKENS:
        counts_tokens = version >= COMPLETED_SINCE
        tokens = [key for key in _TOKENS[scenario] if counts_tokens and detail.number(key) is not None]
        completed = "result_completed_samples_per_sec" if counts_tokens else "result_scheduled_samples_per_sec"
        return next(iter(tokens), "result_samples_per_second" if scenario == "Offline" else completed)
    if scenario == "SingleStream" and "early_stopping_ttft_result" in detail.values:
        # The estimate is of the first token there; llama3.1-8b-edge is judged by the whole answer (v5.1, as above).
        return _LATENCY_BEFORE[scenario]
    names = _LATENCY if version >= EARLY_STOPPING_SINCE else _LATENCY_BEFORE
    return names.get(scenario or "")


_OF_LANGUAGE_MODELS = (
    "early_stopping_ttft_result",
    "result_tokens_per_second",
    "result_completed_tokens_per_second",
    "result_inferred_tokens_per_second",
    "result_inferred_completed_tokens_per_second",
)
_COMPLETED_SINCE_COMMIT = "2024-06-04T"


def _version(scenario: str | None, detail: DetailLog, summary: Summary) -> Version | None:
    """Return the version whose rules the log follows; of a log whose head is missing the keys must prove it."""
    said = version_of(detail.text("loadgen_version"))
    if said == (4, 0) and _counts_completed(detail, summary):
        return COMPLETED_SINCE
    if said is None and scenario == "Offline":
        return COMPLETED_SINCE
    if said is None and _LATENCY.get(scenario or "") in detail.values:
        return EARLY_STOPPING_SINCE
    return said


def _counts_completed(detail: DetailLog, summary: Summary) -> bool:
    """Whether a LoadGen that calls itself 4.0, as it did until July 2024, counts as v4.1 does.

    Of language models it always does (submission checker, v4.0). Of others it does since June 2024
    (mlcommons/inference 1c3f8e7d), which its headline shows, or the date of its source.
    """
    if any(key in detail.values for key in _OF_LANGUAGE_MODELS):
        return True
    if summary.headline:
        return any(re.match("completed|tokens", label, re.IGNORECASE) for label in summary.headline)
    return (detail.text("loadgen_git_commit_date") or "") >= _COMPLETED_SINCE_COMMIT


def metric_from_detail(scenario: str | None, detail: DetailLog, summary: Summary) -> Metric | None:
    """Return the official primary metric of a detail log, None when the log does not reach that far."""
    version = _version(scenario, detail, summary)
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
    of_first_token = any("first token" in label for label in summary.headline or {})
    if summary.early_stopping_met is not None and scenario in _LATENCY and not of_first_token:
        return Metric(_LATENCY[scenario], summary.early_stopping_estimate, "ns")
    known = {label: value for label, value in (summary.headline or {}).items() if _HEADLINES.match(label)}
    tokens = [label for label in known if "tokens" in label.lower()]
    label = next(iter(tokens or known), None)
    if label == "Samples per query":
        return Metric("effective_samples_per_query", known[label], unit_of(label))
    return Metric(label, known[label], unit_of(label)) if label is not None else None


def why_no_metric(scenario: str | None, detail: DetailLog, summary: Summary) -> str:
    """Return in words why the logs of a performance run have no primary metric."""
    if scenario is None:
        return "no file names a scenario that is known"
    if not detail.values:
        return f"the summary has no headline that is one of {scenario}" if summary.headline else _UNSAID
    version = _version(scenario, detail, summary)
    if version is None:
        said = detail.text("loadgen_version")
        return f"which one it is depends on LoadGen's version, and the detail log says {said or 'none'}"
    key = key_of(scenario, version, detail)
    return f"the detail log has no number {key}, nor the summary a headline"


_UNSAID = "there is no detail log, and the summary has no headline"
