"""What a result is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["PerformanceOnly", "AccuracyOnly"]
Validity = Literal["VALID", "INVALID"]

MIN_DURATION_MS = 600_000
"""MLPerf's ten-minute rule (inference_policies: minimum duration of a performance run)."""

_ROUNDING = 1e-4
"""Relative difference below which two files name the same number: some print only a few digits."""


def same(one: float, other: float) -> bool:
    """Whether two files mean the same number, give or take the digits that they print."""
    return math.isclose(one, other, rel_tol=_ROUNDING)


@dataclass(frozen=True)
class Metric:
    """The official primary metric.

    Attributes:
        name: As the log that gave it names it: the detail log's key, or the summary's headline without a detail log.
        value: In `unit`; None where LoadGen gives no estimate.
        unit: samples/s, tokens/s, ns or samples/query.
    """

    name: str
    value: float | None
    unit: str


@dataclass(frozen=True)
class Accuracy:
    """One accuracy metric.

    Attributes:
        threshold: Value to reach, None when unknown.
        passed: None when there is no threshold to hold it against.
    """

    name: str
    value: float
    threshold: float | None = None
    passed: bool | None = None


@dataclass(frozen=True)
class Percentile:
    """A share of the queries, in percent, and the latency in ns that they kept to."""

    percent: float
    latency_ns: float


@dataclass(frozen=True)
class LoadgenFacts:
    """What LoadGen was asked for and what it measured beside the primary metric; None or empty where no log says.

    Attributes:
        requested_qps: Server's target and Offline's expected rate, as the settings had it; in queries/s and samples/s.
        target_qps: The rate in force, in queries/s (Server), samples/s (Offline), or 1 / expected latency.
        target_latency_ns: Latency limit of Server; of language models the two limits below hold instead.
        target_latency_percentile: Share of the queries that must keep to the limit, such as 0.99.
        ttft_limit_ns: Limit of the time to the first token.
        tpot_limit_ns: Limit of the time per output token.
        min_duration_ms: Asked for; `min_duration_met` is LoadGen's word on it, whatever was asked.
        query_count: Queries that were processed; Offline has one with all samples.
        overlatency_query_count: Queries above the latency limit.
        latencies: Of samples; of queries in MultiStream.
        recommendations: LoadGen's, one a line, only of an INVALID result.
        early_stopping: The early-stopping block, one a line.
        errors: The first ones; `error_count` counts all of them.
    """

    requested_qps: float | None = None
    target_qps: float | None = None
    target_latency_ns: float | None = None
    target_latency_percentile: float | None = None
    ttft_limit_ns: float | None = None
    tpot_limit_ns: float | None = None
    min_duration_ms: float | None = None
    min_query_count: float | None = None
    samples_per_query: float | None = None
    query_count: float | None = None
    overlatency_query_count: float | None = None
    scheduled_samples_per_second: float | None = None
    completed_samples_per_second: float | None = None
    latencies: tuple[Percentile, ...] = ()
    first_token_latencies: tuple[Percentile, ...] = ()
    output_token_times: tuple[Percentile, ...] = ()
    performance_constraints_met: bool | None = None
    min_duration_met: bool | None = None
    min_queries_met: bool | None = None
    early_stopping_met: bool | None = None
    recommendations: tuple[str, ...] = ()
    early_stopping: tuple[str, ...] = ()
    error_count: int = 0
    errors: tuple[str, ...] = ()
    warning_count: int = 0

    def latency_ns(self, percent: float) -> float | None:
        """Return the latency that this share of the queries, in percent, kept to."""
        return next((item.latency_ns for item in self.latencies if item.percent == percent), None)


@dataclass(frozen=True)
class Result:
    """One run of LoadGen: a folder with its logs.

    Attributes:
        path: The folder.
        benchmark: Short name, such as bert.
        variant: Official name with the accuracy target, such as bert-99.9.
        scenario: By the folder's name where it is one, else by the log.
        validity: LoadGen's own verdict; None for accuracy runs and unfinished ones.
        accuracy: In a submission's tree a performance run carries the accuracy of its pair, from the folder beside it.
        min_duration_met: Whether at least ten minutes were asked for and kept to; None when no file says.
        harness_version: LoadGen's, as it logs it.
        reason: LoadGen's lines that say why the result is INVALID, and what it recommends.
        loadgen: More of what LoadGen logged of a performance run, for who wants to know why or what next.
        error: Why the folder cannot be read; nothing else is set then.
    """

    path: str
    benchmark: str | None = None
    variant: str | None = None
    scenario: str | None = None
    mode: Mode | None = None
    validity: Validity | None = None
    metric: Metric | None = None
    accuracy: tuple[Accuracy, ...] = ()
    config_name: str | None = None
    early_stopping_met: bool | None = None
    min_duration_met: bool | None = None
    harness_version: str | None = None
    reason: str | None = None
    loadgen: LoadgenFacts | None = None
    warnings: tuple[str, ...] = field(default=())
    error: str | None = None


class ResultError(Exception):
    """The files of a folder are no result; the message says why."""
