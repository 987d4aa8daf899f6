"""Whether the logs of one run of LoadGen are whole, and of when: from the ends of the files, however large they are."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlperf_operator.results.files import Files
from mlperf_operator.results.model import Mode
from mlperf_operator.results.read import ACCURACY, DETAIL, METADATA, SUMMARY

LOGGED_ANSWERS = "mlperf_log_accuracy.json"

_END = 256 * 1024
"""Bytes of a file's end, or begin, that are read: the results are the last lines of a detail log."""

_FOOTER = re.compile(rb"^(?:No|\d{1,18}) (?:warning|error)s? encountered", re.IGNORECASE | re.MULTILINE)
_VERDICT = re.compile(rb'"key":\s{0,4}"result_validity"')
_DATE = re.compile(rb'"key":\s{0,4}"test_datetime",\s{0,4}"value":\s{0,4}"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"')
_SCENARIO = re.compile(rb'"key":\s{0,4}"effective_scenario",\s{0,4}"value":\s{0,4}"([A-Za-z]{1,40})"')
_MODE = re.compile(rb'"key":\s{0,4}"effective_test_mode",\s{0,4}"value":\s{0,4}"([A-Za-z]{1,40})"')

_LATER = 30
"""Seconds by which a file of the harness may be older than the log that it is made from: clocks of volumes differ."""


def cut_short(folder: Path, mode: Mode, files: Files) -> str | None:
    """Return which of LoadGen's logs in a folder is not there or has no end; None when they are whole.

    Raises:
        OSError: a file cannot be read.
    """
    summary = _end(folder / SUMMARY, files)
    if summary is not None and not _FOOTER.search(summary):
        return f"{SUMMARY} has no end"
    if summary is None:
        return f"there is no {SUMMARY}"
    detail = _end(folder / DETAIL, files)
    if detail is None:
        return f"there is no {DETAIL}"
    if mode == "PerformanceOnly":
        return None if _VERDICT.search(detail) else f"{DETAIL} has no verdict"
    answers = _end(folder / LOGGED_ANSWERS, files)
    if answers is None:
        return f"there is no {LOGGED_ANSWERS}"
    return None if answers.rstrip().endswith(b"]") else f"{LOGGED_ANSWERS} has no end"


@dataclass(frozen=True)
class Begin:
    """What LoadGen logs at its begin; None where the log does not say."""

    at: datetime | None = None
    scenario: str | None = None
    mode: str | None = None


def begin_of(folder: Path, files: Files) -> Begin:
    """Return what LoadGen's log in a folder says of its begin.

    Raises:
        OSError: the log cannot be read.
    """
    file = files.find(folder / DETAIL)
    if file is None:
        return Begin()
    with file:
        head = file.read(_END)
    date, scenario, mode = _DATE.search(head), _SCENARIO.search(head), _MODE.search(head)
    return Begin(
        at=_moment(date[1]) if date else None,
        scenario=scenario[1].decode() if scenario else None,
        mode=mode[1].decode() if mode else None,
    )


def _moment(text: bytes) -> datetime | None:
    try:
        return datetime.strptime(text.decode(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        # Digits that are no date.
        return None


def older_than_its_log(folder: Path, files: Files) -> str | None:
    """Return what the harness writes after LoadGen has ended and is older than LoadGen's log: it is of another run.

    Raises:
        OSError: a file cannot be looked at.
    """
    written = _changed(folder / DETAIL, files)
    if written is None:
        return None
    times = ((name, _changed(folder / name, files)) for name in (METADATA, ACCURACY))
    return next((name for name, time in times if time is not None and time < written - _LATER), None)


def _changed(path: Path, files: Files) -> float | None:
    file = files.find(path)
    if file is None:
        return None
    with file:
        return os.fstat(file.fileno()).st_mtime


def _end(path: Path, files: Files) -> bytes | None:
    file = files.find(path)
    if file is None:
        return None
    with file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _END))
        return file.read(_END)
