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
    warnings: tuple[str, ...] = field(default=())
    error: str | None = None


class ResultError(Exception):
    """The files of a folder are no result; the message says why."""
