"""Folders of the harness, and files that are either whole or absent."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from harness.constants import HarnessError

TREE = Path(__file__).resolve().parent.parent
BUILD = TREE / "build"
SCRATCH_FOLDERS = ("data", "models", "preprocessed_data")


def scratch() -> Path:
    """Return the scratch folder.

    Raises:
        HarnessError: MLPERF_SCRATCH_PATH is unset or names no folder.
    """
    name = os.environ.get("MLPERF_SCRATCH_PATH", "")
    if not name:
        raise HarnessError("MLPERF_SCRATCH_PATH is not set: set it to an existing folder for data and models")
    path = Path(name)
    if not path.is_dir():
        raise HarnessError(f"MLPERF_SCRATCH_PATH={name} is not an existing folder: create it or name another")
    return path


def link_dirs() -> None:
    """Make the scratch folders and link them into build/, as NVIDIA's tree does."""
    root = scratch()
    BUILD.mkdir(exist_ok=True)
    for name in SCRATCH_FOLDERS:
        target = root / name
        target.mkdir(exist_ok=True)
        link = BUILD / name
        if link.is_symlink():
            link.unlink()
        link.symlink_to(target)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody, not even after a crash, sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for their owner only, but scratch is shared between runs.
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
