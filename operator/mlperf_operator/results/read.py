"""Reading results from folders: the one place of this package that touches files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mlperf_operator.results.detail import DetailLog, parse_detail
from mlperf_operator.results.merge import Files, merge
from mlperf_operator.results.metadata import Metadata, parse_metadata
from mlperf_operator.results.model import Result, ResultError
from mlperf_operator.results.summary import parse_summary

SUMMARY, DETAIL = "mlperf_log_summary.txt", "mlperf_log_detail.txt"
METADATA, ACCURACY = "metadata.json", "accuracy.txt"
_FILES = frozenset({SUMMARY, DETAIL, METADATA, ACCURACY})

ENDPOINTS = "result_summary.json"
_OF_ENDPOINTS = f"{ENDPOINTS} is of MLCommons' endpoints, which measure without LoadGen since v6.1; it is not read"

MAX_TEXT_BYTES = 4 * 1024**2
"""Most that is read of a summary, metadata.json or accuracy.txt; of the last its end, where the scores stand."""

MAX_LINE = 64 * 1024
"""Characters of a detail log that are read at once; a longer line comes in pieces, so that memory stays flat."""


def find_results(root: Path) -> Iterator[Result]:
    """Yield the results below a folder, to the bottom, in the order of their paths.

    A folder that cannot be read is a result with its error. Links to folders are not followed. A power
    measurement's `ranging` run beside run_1 is passed over: it belongs to that result and may be INVALID.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            names, files = _listed(folder)
        except OSError as error:
            yield Result(path=_shown(folder, root), error=f"cannot be read: {error.strerror}")
            continue
        if "ranging" in names and any(name.startswith("run_") for name in names):
            names.remove("ranging")
        waiting += [folder / name for name in sorted(names, reverse=True)]
        if _FILES.intersection(files):
            yield read_result(folder, root)
        elif ENDPOINTS in files:
            yield Result(path=_shown(folder, root), error=_OF_ENDPOINTS)


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of a folder's folders and of everything else in it, links among these.

    os.walk would do, but up to Python 3.11 it calls itself for each level and fails in a very deep tree.
    """
    names: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            (names if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    return names, files


def read_result(folder: Path, root: Path | None = None) -> Result:
    """Return the result in a folder, its path relative to `root`; what cannot be read is a result with its error."""
    shown = _shown(folder, root)
    try:
        return merge(_files(folder, shown, root))
    except (ResultError, OSError) as error:
        return Result(path=shown, error=str(error))


def _shown(folder: Path, root: Path | None) -> str:
    # A name on disk may be any bytes; a result is printed and travels as JSON.
    path = folder.relative_to(root) if root is not None else folder
    return os.fsencode(path).decode(errors="backslashreplace")


def _files(folder: Path, shown: str, root: Path | None) -> Files:
    summary = _text(folder / SUMMARY)
    metadata, metadata_error = _metadata(folder / METADATA)
    return Files(
        path=shown,
        parts=Path(os.fsencode(folder.resolve()).decode(errors="backslashreplace")).parts,
        summary=parse_summary(summary) if summary is not None else None,
        detail=_detail(folder / DETAIL),
        metadata=metadata,
        metadata_error=metadata_error,
        accuracy=_text(folder / ACCURACY),
        pair_accuracy=_pair_accuracy(folder, root),
    )


def _metadata(path: Path) -> tuple[Metadata | None, str | None]:
    text = _text(path)
    try:
        return (parse_metadata(text) if text is not None else None), None
    except ResultError as error:
        return None, str(error)


def _pair_accuracy(folder: Path, root: Path | None) -> str | None:
    """Return the accuracy.txt of a submission's pair: <pair>/accuracy beside <pair>/performance/run_1."""
    pair = folder.parent.parent
    if root is None or folder.parent.name != "performance" or not pair.is_relative_to(root):
        return None
    return _text(pair / "accuracy" / ACCURACY)


def _text(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        size = path.stat().st_size
        if size > MAX_TEXT_BYTES and path.name == ACCURACY:
            file.seek(size - MAX_TEXT_BYTES)
        return file.read(MAX_TEXT_BYTES).decode("utf-8-sig", errors="replace")


def _detail(path: Path) -> DetailLog | None:
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        return parse_detail(iter(partial(file.readline, MAX_LINE), ""))
