"""mlperf_log_detail.txt: one `:::MLLOG {json}` a line, with the irregularities of real logs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_PREFIX = ":::MLLOG"
_KEY = re.compile(r'"key":\s*"([^"]+)"')
_WANTED = re.compile(
    r"result_|early_stopping_|effective_(scenario|test_mode|min_duration_ms|samples_per_query)|requested_(scenario|test_mode)"
    r"|loadgen_version"
)
_LOOSE_VALUE = re.compile(r'"value":\s*(.*?),\s*"time_ms"', re.DOTALL)
_ERROR = re.compile(r'"is_error":\s*true')
_MAX_JOINED_LINES = 200
"""LoadGen before 2024-07 did not escape line breaks in values (git logs, host environment)."""


@dataclass(frozen=True)
class DetailLog:
    """What is kept of a detail log.

    Attributes:
        values: By key; of a repeated key the first value, as MLCommons' submission checker takes it.
        errors: Values of the lines that LoadGen marked as errors.
        unreadable: Lines that could not be read at all.
    """

    values: dict[str, Any]
    errors: tuple[str, ...]
    unreadable: int

    def number(self, key: str) -> float | None:
        """Return a finite number, None when it is not there."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if abs(value) != float("inf") and value == value else None  # noqa: PLR0124 - NaN


def parse_detail(lines: Iterable[str]) -> DetailLog:
    """Read a detail log line by line; only the keys that matter are kept."""
    values: dict[str, Any] = {}
    errors: list[str] = []
    unreadable = 0
    for text in _entries(lines):
        found = _KEY.search(text)
        is_error = _ERROR.search(text) is not None
        if found is None:
            unreadable += 1
            continue
        key = found.group(1)
        if not is_error and (key in values or not _WANTED.match(key)):
            continue
        known, value = _value(text)
        unreadable += not known
        if not known:
            continue
        if is_error:
            errors.append(str(value))
        if _WANTED.match(key):
            values.setdefault(key, value)
    return DetailLog(values, tuple(errors), unreadable)


def _entries(lines: Iterable[str]) -> Iterator[str]:
    """Yield each entry's JSON text, a value's own line breaks put together again."""
    pending: list[str] = []
    for line in lines:
        start = line.find(_PREFIX)
        if start < 0:
            if pending and len(pending) < _MAX_JOINED_LINES and not _is_whole(pending):
                pending.append(line)
            continue
        if pending:
            yield "".join(pending)
        pending = [line[start + len(_PREFIX) :]]
    if pending:
        yield "".join(pending)


def _is_whole(parts: list[str]) -> bool:
    return parts[-1].rstrip().endswith("}}")


def _value(text: str) -> tuple[bool, Any]:
    try:
        return True, json.loads(text.strip(), strict=False)["value"]
    except (ValueError, KeyError, TypeError):
        loose = _LOOSE_VALUE.search(text)
        if loose is None:
            return False, None
    raw = loose.group(1).strip()
    try:
        return True, json.loads(raw, strict=False)
    except ValueError:
        return True, raw.strip('"')
