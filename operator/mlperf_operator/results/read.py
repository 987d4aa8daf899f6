"""Reading results from folders."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mlperf_operator.results.detail import DetailLog, parse_detail
from mlperf_operator.results.files import Files as Reader
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

_ANYWHERE = Reader()


def find_results(root: Path, files: Reader = _ANYWHERE) -> Iterator[Result]:
    """Yield the results below a folder, to the bottom, in the order of their paths.

    A folder that cannot be read is a result with its error. Links to folders are not followed. A power
    measurement's `ranging` run beside run_1 is passed over: it belongs to that result and may be INVALID.

    Args:
        root: The folder.
        files: How files are opened: Confined where somebody else writes to the folder.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            names, others = _listed(folder, files)
        except OSError as error:
            yield Result(path=_shown(folder, root), error=f"cannot be read: {error.strerror}")
            continue
        if "ranging" in names and any(name.startswith("run_") for name in names):
            names.remove("ranging")
        waiting += [folder / name for name in sorted(names, reverse=True)]
        if _FILES.intersection(others):
            yield read_result(folder, root, files)
        elif ENDPOINTS in others:
            yield Result(path=_shown(folder, root), error=_OF_ENDPOINTS)


def _listed(folder: Path, files: Reader) -> tuple[list[str], list[str]]:
    """Return the names of a folder's folders and of everything else in it, links among these."""
    found = files.listed(folder)
    return [n for n, kind in found if kind == stat.S_IFDIR], [n for n, kind in found if kind != stat.S_IFDIR]


def read_result(folder: Path, root: Path | None = None, files: Reader = _ANYWHERE) -> Result:
    """Return the result in a folder, its path relative to `root`; what cannot be read is a result with its error."""
    shown = _shown(folder, root)
    try:
        return merge(_files(folder, shown, root, files))
    except (ResultError, OSError) as error:
        return Result(path=shown, error=str(error))


def _shown(folder: Path, root: Path | None) -> str:
    # A name on disk may be any bytes; a result is printed and travels as JSON.
    path = folder.relative_to(root) if root is not None else folder
    return os.fsencode(path).decode(errors="backslashreplace")


def _files(folder: Path, shown: str, root: Path | None, files: Reader) -> Files:
    summary = _text(folder / SUMMARY, files)
    metadata, metadata_error = _metadata(folder / METADATA, files)
    return Files(
        path=shown,
        parts=Path(os.fsencode(folder.resolve()).decode(errors="backslashreplace")).parts,
        summary=parse_summary(summary) if summary is not None else None,
        detail=_detail(folder / DETAIL, files),
        metadata=metadata,
        metadata_error=metadata_error,
        accuracy=_text(folder / ACCURACY, files),
        pair_accuracy=_pair_accuracy(folder, root, files),
    )


def _metadata(path: Path, files: Reader) -> tuple[Metadata | None, str | None]:
    text = _text(path, files)
    try:
        return (parse_metadata(text) if text is not None else None), None
    except ResultError as error:
        return None, str(error)


def _pair_accuracy(folder: Path, root: Path | None, files: Reader) -> str | None:
    """Return the accuracy.txt of a submission's pair: <pair>/accuracy beside <pair>/performance/run_1."""
    pair = folder.parent.parent
    if root is None or folder.parent.name != "performance" or not pair.is_relative_to(root):
        return None
    return _text(pair / "accuracy" / ACCURACY, files)


def _text(path: Path, files: Reader) -> str | None:
    file = files.find(path)
    if file is None:
        return None
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_TEXT_BYTES and path.name == ACCURACY:
            file.seek(size - MAX_TEXT_BYTES)
        return file.read(MAX_TEXT_BYTES).decode("utf-8-sig", errors="replace")


def _detail(path: Path, files: Reader) -> DetailLog | None:
    file = files.find(path)
    if file is None:
        return None
    with io.TextIOWrapper(file, encoding="utf-8", errors="replace") as text:
        return parse_detail(iter(partial(text.readline, MAX_LINE), ""))
