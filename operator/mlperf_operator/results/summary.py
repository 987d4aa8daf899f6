"""mlperf_log_summary.txt: LoadGen's headline, verdict, and why."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

_RULE = re.compile(r"^=+$")
_FIELD = re.compile(r"^(?P<label>[^:]+?)\s*:\s*(?P<value>.*)$")
_ESTIMATE = re.compile(r"Early stopping \d+(?:\.\d+)?(?:th|st|nd|rd) percentile estimate:\s*(\d+)")
_CONSTRAINT = re.compile(r"^\s*(?P<name>.*?)\s+satisfied\s*:\s*(?P<met>Yes|NO)\b", re.IGNORECASE)
_FOOTER = re.compile(r"^(No|\d+) (warning|error)s? encountered", re.IGNORECASE)

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


def parse_summary(text: str) -> Summary:
    """Read a summary."""
    lines = [line[:_MAX_LINE].rstrip() for line in text.splitlines()]
    header = _header(lines)
    fields = {m["label"].strip(): m["value"].strip() for m in (_FIELD.match(line) for line in header) if m}
    verdicts = {line.partition(":")[2].strip().upper() for line in header if line.strip().startswith("Result is")}
    estimate = _ESTIMATE.search("\n".join(header))
    constraints = {m["name"].lower(): m["met"].lower() == "yes" for line in header if (m := _CONSTRAINT.match(line))}
    duration = next((line for line in lines if line.startswith("min_duration (ms)")), "")
    return Summary(
        scenario=fields.get("Scenario"),
        mode=fields.get("Mode"),
        validity="INVALID" if "INVALID" in verdicts else "VALID" if "VALID" in verdicts else None,
        headline=_headline(header),
        early_stopping_met=constraints.get("early stopping"),
        early_stopping_estimate=float(estimate[1]) if estimate else None,
        min_duration_met=constraints.get("min duration"),
        min_duration_ms=_number(duration.partition(":")[2]),
        is_finished=any(_FOOTER.match(line) for line in lines),
        reasons=tuple(_reasons(header)),
    )


def _header(lines: list[str]) -> list[str]:
    """Return the lines before the additional statistics."""
    end = next((i for i, line in enumerate(lines) if line.strip() == "Additional Stats"), len(lines))
    return [line for line in lines[:end] if line.strip() and not _RULE.match(line.strip())]


def _headline(header: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    after_mode = False
    for line in header:
        match = _FIELD.match(line)
        if match is None:
            continue
        if match["label"].strip() == "Result is":
            break
        number = _number(match["value"])
        if after_mode and number is not None:
            found[match["label"].strip()] = number
        after_mode = after_mode or match["label"].strip() == "Mode"
    return found


def _reasons(header: list[str]) -> list[str]:
    start = next((i for i, line in enumerate(header) if line.strip().startswith("Result is")), len(header))
    end = next((i for i, line in enumerate(header) if _FOOTER.match(line)), len(header))
    kept = []
    for line in header[start + 1 : end]:
        constraint = _CONSTRAINT.match(line)
        if constraint is None or constraint["met"].upper() == "NO":
            kept.append(" ".join(line.split()))
    return kept


def _number(text: str) -> float | None:
    try:
        number = float(text.strip())
    except ValueError:
        return None
    return number if math.isfinite(number) else None
