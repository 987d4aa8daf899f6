"""Whether the logs of one run of LoadGen are whole, and of when: from the ends of the files, however large they are."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlperf_operator.results.model import Mode
from mlperf_operator.results.read import ACCURACY, DETAIL, METADATA, SUMMARY

LOGGED_ANSWERS = "mlperf_log_accuracy.json"

_END = 256 * 1024
"""Bytes of a file's end, or begin, that are read: the results are the last lines of a detail log."""

_FOOTER = re.compile(rb"^(?:No|\d{1,18}) (?:warning|error)s? encountered", re.IGNORECASE | re.MULTILINE)
_VERDICT = re.compile(rb'"key":\s{0,4}"result_validity"')
_DATE = re.compile(rb'"key":\s{0,4}"test_datetime",\s{0,4}"value":\s{0,4}"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"')
_SCENARIO = re.compile(rb'"key":\s{0,4}"effective_scenario",\s{0,4}"value":\s{0,4}"([A-Za-z]{1,40})"')

_LATER = 30
"""Seconds by which a file of the harness may be older than the log that it is made from: clocks of volumes differ."""


def cut_short(folder: Path, mode: Mode) -> str | None:
    """Return which of LoadGen's logs in a folder is not there or has no end; None when they are whole.

    Raises:
        OSError: a file cannot be read.
    """
    summary, detail, answers = folder / SUMMARY, folder / DETAIL, folder / LOGGED_ANSWERS
    if summary.is_file() and not _FOOTER.search(_end(summary)):
        return f"{SUMMARY} has no end"
    if mode == "AccuracyOnly":
        cut = answers.is_file() and not _end(answers).rstrip().endswith(b"]")
        return f"{LOGGED_ANSWERS} has no end" if cut else None
    absent = next((file.name for file in (summary, detail) if not file.is_file()), None)
    if absent is not None:
        return f"there is no {absent}"
    return None if _VERDICT.search(_end(detail)) else f"{DETAIL} has no verdict"


@dataclass(frozen=True)
class Begin:
    """What LoadGen logs at its begin; None where the log does not say."""

    at: datetime | None = None
    scenario: str | None = None


def begin_of(folder: Path) -> Begin:
    """Return what LoadGen's log in a folder says of its begin.

    Raises:
        OSError: the log cannot be read.
    """
    path = folder / DETAIL
    if not path.is_file():
        return Begin()
    with path.open("rb") as file:
        head = file.read(_END)
    date, scenario = _DATE.search(head), _SCENARIO.search(head)
    return Begin(_moment(date[1]) if date else None, scenario[1].decode() if scenario else None)


def _moment(text: bytes) -> datetime | None:
    try:
        return datetime.strptime(text.decode(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        # Digits that are no date.
        return None


def older_than_its_log(folder: Path) -> str | None:
    """Return what the harness writes after LoadGen has ended and is older than LoadGen's log: it is of another run.

    Raises:
        OSError: a file cannot be looked at.
    """
    log = folder / DETAIL
    if not log.is_file():
        return None
    written = log.stat().st_mtime
    names = (METADATA, ACCURACY)
    old = (n for n in names if (folder / n).is_file() and (folder / n).stat().st_mtime < written - _LATER)
    return next(old, None)


def _end(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _END))
        return file.read(_END)
