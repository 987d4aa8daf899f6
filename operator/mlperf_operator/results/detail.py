"""mlperf_log_detail.txt: one `:::MLLOG {json}` a line, with the irregularities of real logs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_PREFIX = ":::MLLOG"
_KEY = re.compile(r'"key":\s*"([^"]+)"')
_WANTED = re.compile(
    r"result_|early_stopping_|(effective|requested)_(scenario|test_mode)|effective_(min_duration_ms|samples_per_query)"
    r"|effective_(target_qps|target_latency_ns|target_latency_percentile|min_query_count)$"
    r"|requested_(server_target_qps|offline_expected_qps|server_ttft_latency|server_tpot_latency)$"
    r"|loadgen_version|loadgen_git_commit_date$|num_errors$"
)
_VERDICT = "result_validity"
_VALUE = '"value":'
_VALUE_END = re.compile(r',\s*"time_ms"')
_ERROR = re.compile(r'"is_error":\s*true')
_WARNING = re.compile(r'"is_warning":\s*true')
_OLD_FORMAT = re.compile(r'"pid": \d+, "tid": \d+, "ts": \d+ns : ')
_MAX_JOINED_LINES = 200
"""LoadGen before 2024-07 did not escape line breaks in values (git logs, host environment)."""

_MAX_JOINED = 1024**2
"""Characters of one entry; what goes beyond is left out, and no value that is wanted is as long."""

_MAX_ERRORS = 100
"""Errors that are kept; the others are only counted. A run may log one for each query."""

_MAX_VALUES, _MAX_TEXT = 1000, 10_000
"""Values that are kept, and characters of one: LoadGen writes some hundred, and no log may fill the memory."""


@dataclass(frozen=True)
class DetailLog:
    """What is kept of a detail log.

    Attributes:
        values: By key; of a repeated key the first value, as MLCommons' submission checker takes it, but INVALID stays.
        errors: Values of the first lines that LoadGen marked as errors.
        error_count: Number of those lines; 0 where LoadGen itself counted none, as the official log parser does it.
        warning_count: Number of lines that LoadGen marked as warnings.
        unreadable: Lines that could not be read at all.
        is_old_format: Whether this is plain text, as LoadGen wrote it before 2021; nothing of it is read.
    """

    values: dict[str, Any]
    errors: tuple[str, ...] = ()
    error_count: int = 0
    warning_count: int = 0
    unreadable: int = 0
    is_old_format: bool = False

    def number(self, key: str) -> float | None:
        """Return a finite number, None when it is not there."""
        return finite(self.values.get(key))

    def text(self, *keys: str) -> str | None:
        """Return the first of the keys that has a value, as text."""
        return next((str(self.values[key]) for key in keys if self.values.get(key)), None)

    def lines(self, *keys: str) -> tuple[str, ...]:
        """Return the texts of these keys, one a line, without the stars that LoadGen sets before them."""
        texts = [part for key in keys for part in (self.text(key) or "").replace(" * ", "\n").splitlines()]
        return tuple(line for text in texts if (line := " ".join(text.split()).removeprefix("* ")))

    def flag(self, key: str) -> bool | None:
        """Return a yes or no, None when it is not there."""
        value = self.values.get(key)
        return value if isinstance(value, bool) else None


def finite(value: object) -> float | None:
    """Return a number of a JSON text as a float; NaN, Infinity, true and what no float can hold are None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def parse_detail(lines: Iterable[str]) -> DetailLog:
    """Read a detail log line by line; only the keys that matter are kept."""
    values: dict[str, Any] = {}
    errors: list[str] = []
    error_count = warning_count = unreadable = 0
    entries = _Entries(lines)
    for text in entries:
        found = _KEY.search(text)
        is_error = _ERROR.search(text) is not None
        if found is None:
            unreadable += 1
            continue
        key = found.group(1)
        warning_count += _WARNING.search(text) is not None
        is_known = key in values and key != _VERDICT
        if not is_error and (is_known or not _WANTED.match(key)):
            continue
        known, value = _value(text)
        unreadable += not known
        if not known:
            continue
        if is_error:
            error_count += 1
            errors += [str(_bounded(value) or "(no text)")] if len(errors) < _MAX_ERRORS else []
        if _WANTED.match(key) and len(values) < _MAX_VALUES:
            values.setdefault(key, _bounded(value))
        if (key, value) == (_VERDICT, "INVALID"):
            values[key] = value
    if finite(values.get("num_errors")) == 0:
        errors, error_count = [], 0
    return DetailLog(values, tuple(errors), error_count, warning_count, unreadable, entries.is_old_format)


class _Entries:
    """Each entry's JSON text, a value's own line breaks put together again."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self.is_old_format = False

    def __iter__(self) -> Iterator[str]:
        pending: list[str] = []
        length = 0
        for line in self._lines:
            start = line.find(_PREFIX)
            if start < 0:
                if not pending:
                    self.is_old_format = self.is_old_format or _OLD_FORMAT.match(line) is not None
                elif length < _MAX_JOINED and len(pending) < _MAX_JOINED_LINES and not _is_whole(pending):
                    pending.append(line)
                    length += len(line)
                continue
            if pending:
                yield "".join(pending)
            pending, length = [line[start + len(_PREFIX) :]], len(line)
        if pending:
            yield "".join(pending)


def _is_whole(parts: list[str]) -> bool:
    return parts[-1].rstrip().endswith("}}")


def _bounded(value: object) -> object:
    """Return a value as it is kept: none that is wanted is a list or an object."""
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    return value if isinstance(value, int | float) else None


def _value(text: str) -> tuple[bool, Any]:
    try:
        return True, json.loads(text.strip(), strict=False)["value"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raw = _loose_value(text)
    if raw is None:
        return False, None
    try:
        return True, json.loads(raw, strict=False)
    except (ValueError, RecursionError):
        return True, raw.strip('"')


def _loose_value(text: str) -> str | None:
    """Return what stands where LoadGen writes the value, quotes and all, of an entry that is no JSON."""
    start = text.find(_VALUE)
    end = _VALUE_END.search(text, start) if start >= 0 else None
    return text[start + len(_VALUE) : end.start()].strip() if end is not None else None
