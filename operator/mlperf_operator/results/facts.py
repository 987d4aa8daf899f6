"""What LoadGen's logs say beside verdict and primary metric: limits, latencies, recommendations.

The detail log is exact and comes first; the summary, which rounds, stands in for what it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mlperf_operator.results.detail import DetailLog
from mlperf_operator.results.model import LoadgenFacts, Percentile
from mlperf_operator.results.summary import Summary

_QUERY_LATENCY = re.compile(r"result_(\d+\.\d+)_percentile_per_query_latency_ns")
_LATENCY = re.compile(r"result_(\d+\.\d+)_percentile_latency_ns")
_FIRST_TOKEN = re.compile(r"result_first_token_(\d+\.\d+)_percentile_latency_ns")
_OUTPUT_TOKEN = re.compile(r"result_time_per_output_token_(\d+\.\d+)_percentile_ns")
_STAT = re.compile(r"(\d+(?:\.\d+)?) percentile latency \(ns\)")
_FIRST_TOKEN_STAT = re.compile(r"(\d+(?:\.\d+)?) percentile first token latency \(ns\)")
_OUTPUT_TOKEN_STAT = re.compile(r"(\d+(?:\.\d+)?) percentile time (?:to|per) output token \(ns\)")


def facts_of(summary: Summary, detail: DetailLog) -> LoadgenFacts:
    """Return what the logs of one run say."""

    def number(*keys: str, parameter: str = "") -> float | None:
        found = next((value for key in keys if (value := detail.number(key)) is not None), None)
        return found if found is not None else summary.parameters.get(parameter)

    def met(key: str, constraint: str) -> bool | None:
        found = detail.flag(key)
        return found if found is not None else summary.constraints.get(constraint)

    return LoadgenFacts(
        requested_qps=number("requested_server_target_qps", "requested_offline_expected_qps"),
        target_qps=number("effective_target_qps", parameter="target_qps"),
        target_latency_ns=number("effective_target_latency_ns", parameter="target_latency (ns)") or None,
        target_latency_percentile=number("effective_target_latency_percentile"),
        ttft_limit_ns=number("requested_server_ttft_latency", parameter="ttft_latency (ns)"),
        tpot_limit_ns=number("requested_server_tpot_latency", parameter="tpot_latency (ns)"),
        min_duration_ms=number("effective_min_duration_ms", parameter="min_duration (ms)"),
        min_query_count=number("effective_min_query_count", parameter="min_query_count"),
        samples_per_query=number("effective_samples_per_query", parameter="samples_per_query"),
        query_count=number("result_query_count"),
        overlatency_query_count=number("result_overlatency_query_count"),
        scheduled_samples_per_second=_rate(summary, detail, "scheduled"),
        completed_samples_per_second=_rate(summary, detail, "completed"),
        latencies=_logged(detail, _QUERY_LATENCY) or _percentiles(detail, _LATENCY, summary, _STAT),
        first_token_latencies=_percentiles(detail, _FIRST_TOKEN, summary, _FIRST_TOKEN_STAT),
        output_token_times=_percentiles(detail, _OUTPUT_TOKEN, summary, _OUTPUT_TOKEN_STAT),
        performance_constraints_met=met("result_perf_constraints_met", "performance constraints"),
        min_duration_met=met("result_min_duration_met", "min duration"),
        min_queries_met=met("result_min_queries_met", "min queries"),
        early_stopping_met=met("early_stopping_met", "early stopping"),
        recommendations=summary.recommendations or detail.lines("result_invalid_reason"),
        early_stopping=summary.early_stopping or detail.lines(*EARLY_STOPPING_TEXTS),
        error_count=detail.error_count or summary.error_count,
        errors=detail.errors,
        warning_count=detail.warning_count or summary.warning_count,
    )


EARLY_STOPPING_TEXTS = ("early_stopping_result", "early_stopping_ttft_result", "early_stopping_tpot_result")


def _rate(summary: Summary, detail: DetailLog, word: str) -> float | None:
    logged = detail.number(f"result_{word}_samples_per_sec")
    said = {**summary.stats, **(summary.headline or {})}
    return logged if logged is not None else said.get(f"{word.capitalize()} samples per second")


def _percentiles(
    detail: DetailLog, key: re.Pattern[str], summary: Summary, label: re.Pattern[str]
) -> tuple[Percentile, ...]:
    return _logged(detail, key) or _matching(summary.stats.items(), label)


def _logged(detail: DetailLog, key: re.Pattern[str]) -> tuple[Percentile, ...]:
    numbers = {name: number for name in detail.values if (number := detail.number(name)) is not None}
    return _matching(numbers.items(), key)


def _matching(numbers: Iterable[tuple[str, float]], pattern: re.Pattern[str]) -> tuple[Percentile, ...]:
    found: Mapping[float, float] = {
        float(match[1]): number for name, number in numbers if (match := pattern.fullmatch(name)) is not None
    }
    return tuple(Percentile(percent, found[percent]) for percent in sorted(found))
