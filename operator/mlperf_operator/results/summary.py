"""mlperf_log_summary.txt: LoadGen's headline, verdict, and why."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

_RULE = re.compile(r"^=+$")
_ESTIMATE = re.compile(r"Early stopping \d+(?:\.\d+)?(?:th|st|nd|rd) percentile estimate:\s*(\d+)")
_SATISFIED = re.compile(r"\ssatisfied\s*:\s*(Yes|NO)\b", re.IGNORECASE)
_FOOTER = re.compile(r"^(?P<count>No|\d{1,18}) (?P<kind>warning|error)s? encountered", re.IGNORECASE)

_MAX_LINE = 1000
"""Longer lines are none of LoadGen's; the patterns would take their time over them."""


@dataclass(frozen=True)
class Summary:
    """What is kept of a summary; everything is None or empty in that of an accuracy run, which is only a footer.

    Attributes:
        headline: Numbers between `Mode` and the verdict, by their label.
        early_stopping_estimate: In ns, from the early-stopping block of a latency scenario.
        min_duration_met: Whether the run lasted as long as it was asked to.
        min_duration_ms: The parameter in force.
        is_finished: Whether LoadGen wrote its closing count of warnings and errors.
        reasons: Constraints that were missed, the recommendations and the early-stopping block, one a line.
        constraints: Whether each was satisfied, by its name in small letters.
        stats: Numbers of the additional statistics by their label; of a repeated label the first.
        parameters: Numbers of the test parameters, likewise.
    """

    scenario: str | None = None
    mode: str | None = None
    validity: Literal["VALID", "INVALID"] | None = None
    headline: dict[str, float] | None = None
    early_stopping_met: bool | None = None
    early_stopping_estimate: float | None = None
    min_duration_met: bool | None = None
    min_duration_ms: float | None = None
    is_finished: bool = False
    reasons: tuple[str, ...] = ()
    recommendations: tuple[str, ...] = ()
    early_stopping: tuple[str, ...] = ()
    constraints: Mapping[str, bool] = field(default_factory=dict)
    stats: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)
    warning_count: int = 0
    error_count: int = 0


def parse_summary(text: str) -> Summary:
    """Read a summary."""
    lines = [line[:_MAX_LINE].rstrip() for line in text.splitlines()]
    header = _header(lines)
    fields = dict(field for line in header if (field := _field(line)) is not None)
    verdicts = {line.partition(":")[2].strip().upper() for line in header if line.strip().startswith("Result is")}
    estimate = _ESTIMATE.search("\n".join(header))
    constraints = dict(found for line in header if (found := _constraint(line)) is not None)
    parameters = _numbers(_section(lines, "Test Parameters Used"))
    reasons = _reasons(header)
    counts = _counts(lines)
    return Summary(
        scenario=fields.get("Scenario"),
        mode=fields.get("Mode"),
        validity="INVALID" if "INVALID" in verdicts else "VALID" if "VALID" in verdicts else None,
        headline=_headline(header),
        early_stopping_met=constraints.get("early stopping"),
        early_stopping_estimate=_number(estimate[1]) if estimate else None,
        min_duration_met=constraints.get("min duration"),
        min_duration_ms=parameters.get("min_duration (ms)"),
        is_finished=bool(counts),
        reasons=tuple(reasons),
        recommendations=_block(reasons, "Recommendations:"),
        early_stopping=_block(reasons, "Early Stopping Result:"),
        constraints=constraints,
        stats=_numbers(_section(lines, "Additional Stats")),
        parameters=parameters,
        warning_count=counts.get("warning", 0),
        error_count=counts.get("error", 0),
    )


def _section(lines: list[str], title: str) -> list[str]:
    """Return the lines below a title between rules, up to the next one."""
    start = next((i + 1 for i, line in enumerate(lines) if line.strip() == title), len(lines))
    start += start < len(lines) and _RULE.match(lines[start]) is not None
    end = next((i for i in range(start, len(lines)) if _RULE.match(lines[i])), len(lines))
    return lines[start:end]


def _numbers(lines: Iterable[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for label, value in filter(None, map(_field, lines)):
        number = _number(value)
        if number is not None:
            found.setdefault(label, number)
    return found


def _field(line: str) -> tuple[str, str] | None:
    label, colon, value = line.partition(":")
    return (label.strip(), value.strip()) if colon and label else None


def _constraint(line: str) -> tuple[str, bool] | None:
    """Return a constraint's name in small letters and whether it was satisfied."""
    match = _SATISFIED.search(line)
    return (line[: match.start()].strip().lower(), match[1].lower() == "yes") if match is not None else None


def _counts(lines: list[str]) -> dict[str, int]:
    """Return LoadGen's closing counts of warnings and errors."""
    found = [match for line in lines if (match := _FOOTER.match(line)) is not None]
    return {m["kind"].lower(): 0 if m["count"].lower() == "no" else int(m["count"]) for m in found}


def _block(reasons: list[str], title: str) -> tuple[str, ...]:
    """Return the lines of the blocks with a title, such as those of TTFT and TPOT, without the titles."""
    found: list[str] = []
    inside = False
    for line in reasons:
        if line.endswith(":"):
            inside = line.endswith(title)
        elif inside:
            found.append(line.removeprefix("* "))
    return tuple(found)


def _header(lines: list[str]) -> list[str]:
    """Return the lines before the additional statistics."""
    end = next((i for i, line in enumerate(lines) if line.strip() == "Additional Stats"), len(lines))
    return [line for line in lines[:end] if line.strip() and not _RULE.match(line.strip())]


def _headline(header: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    after_mode = False
    for label, value in filter(None, map(_field, header)):
        if label == "Result is":
            break
        number = _number(value)
        if after_mode and number is not None:
            found[label] = number
        after_mode = after_mode or label == "Mode"
    return found


def _reasons(header: list[str]) -> list[str]:
    start = next((i for i, line in enumerate(header) if line.strip().startswith("Result is")), len(header))
    end = next((i for i, line in enumerate(header) if _FOOTER.match(line)), len(header))
    kept = []
    for line in header[start + 1 : end]:
        constraint = _constraint(line)
        if constraint is None or not constraint[1]:
            kept.append(" ".join(line.split()))
    return kept


def _number(text: str) -> float | None:
    try:
        number = float(text.strip())
    except ValueError:
        return None
    return number if math.isfinite(number) else None
