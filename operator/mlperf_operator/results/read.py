"""Reading results from folders: the one place of this package that touches files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mlperf_operator.results.detail import DetailLog, parse_detail
from mlperf_operator.results.merge import Files, merge
from mlperf_operator.results.metadata import parse_metadata
from mlperf_operator.results.model import Result, ResultError
from mlperf_operator.results.summary import parse_summary

SUMMARY, DETAIL = "mlperf_log_summary.txt", "mlperf_log_detail.txt"
METADATA, ACCURACY = "metadata.json", "accuracy.txt"
_FILES = frozenset({SUMMARY, DETAIL, METADATA, ACCURACY})

_NOT_RESULTS = frozenset({"ranging"})
"""Folders beside run_1 that hold a power measurement's trial run, which may be INVALID and counts for nothing."""

MAX_TEXT_BYTES = 16 * 1024**2
"""Most that is read of a summary, metadata.json or accuracy.txt; of the last its end, where the scores stand."""


def find_results(root: Path) -> Iterator[Result]:
    """Yield the results below a folder, to the bottom, in the order of their paths.

    A folder that cannot be read is a result with its error. Links to folders are not followed.
    """
    denied: list[OSError] = []
    for folder, names, files in os.walk(root, onerror=denied.append):
        names[:] = sorted(name for name in names if name not in _NOT_RESULTS)
        if _FILES.intersection(files):
            yield read_result(Path(folder), root)
    for error in denied:
        yield Result(path=str(error.filename), error=f"cannot be read: {error.strerror}")


def read_result(folder: Path, root: Path | None = None) -> Result:
    """Return the result in a folder, its path relative to `root`; what cannot be read is a result with its error."""
    shown = str(folder.relative_to(root)) if root is not None else str(folder)
    try:
        return merge(_files(folder, shown))
    except (ResultError, OSError) as error:
        return Result(path=shown, error=str(error))


def _files(folder: Path, shown: str) -> Files:
    summary, metadata = _text(folder / SUMMARY), _text(folder / METADATA)
    return Files(
        path=shown,
        parts=folder.resolve().parts,
        summary=parse_summary(summary) if summary is not None else None,
        detail=_detail(folder / DETAIL),
        metadata=parse_metadata(metadata) if metadata is not None else None,
        accuracy=_text(folder / ACCURACY),
    )


def _text(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        size = path.stat().st_size
        if size > MAX_TEXT_BYTES and path.name == ACCURACY:
            file.seek(size - MAX_TEXT_BYTES)
        return file.read(MAX_TEXT_BYTES).decode(errors="replace")


def _detail(path: Path) -> DetailLog | None:
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        return parse_detail(file)
