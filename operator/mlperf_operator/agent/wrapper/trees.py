"""Whole trees: their digests, their copies, and the built one that runs share."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mlperf_operator.agent.wrapper import contents
from mlperf_operator.agent.wrapper.files import empty, write_atomically
from mlperf_operator.agent.wrapper.state import Stage

BUILD = "build"
"""Where a tree puts what is made of it: no part of the code."""

IGNORED = frozenset({".git", "__pycache__"})


def tree_digest(root: Path, check: Callable[[], None]) -> str:
    """Return the sha256 of a tree: paths, executable bits, link targets and contents, without what a build leaves.

    Empty folders do not count, nor does a `build` at the top. `check` is called before each file and may raise.
    """
    found = hashlib.sha256()
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if n not in IGNORED and Path(folder, n) != root / BUILD)
        for name in sorted([*files, *(n for n in names if Path(folder, n).is_symlink())]):
            check()
            path = Path(folder, name)
            if path.is_symlink():
                parts = ["link", str(path.readlink())]
            else:
                parts = ["program" if path.stat().st_mode & 0o100 else "file", contents.digest(path)]
            # No path holds a zero byte, so that no two trees give the same text.
            found.update(b"".join(os.fsencode(part) + b"\0" for part in (str(path.relative_to(root)), *parts)))
    return found.hexdigest()


def tree_size(root: Path) -> list[int]:
    """Return how many files a tree has and their bytes: scratch cleaners and power cuts take some away."""
    sizes = [os.lstat(Path(folder, name)).st_size for folder, _, files in os.walk(root) for name in files]
    return [len(sizes), sum(sizes)]


def clear_work(stage: Stage) -> None:
    """Empty /work, which is then no longer known to hold a built tree."""
    (stage.state / "tree.built").unlink(missing_ok=True)
    empty(stage.work)


def remove_built(tree: Path) -> None:
    """Remove from a fresh copy what its digest leaves out: compiled files that came along would be used, and shared.

    A checkout that was built in once has the digest of one that was not, and so its built tree.
    """
    for folder, names, _ in os.walk(tree):
        for name in [n for n in names if n in IGNORED or Path(folder, n) == tree / BUILD]:
            names.remove(name)
            path = Path(folder, name)
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path)


def copy_tree(stage: Stage, origin: Path, target: Path) -> None:
    """Copy what is in a tree, with its links, modes and times, into a folder that may belong to somebody else."""

    def copy(source: str, destination: str) -> None:
        stage.check_time()
        shutil.copy(source, destination, follow_symlinks=False)
        status = os.lstat(source)
        os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)

    for entry in origin.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, target / entry.name, symlinks=True, copy_function=copy)
        else:
            copy(str(entry), str(target / entry.name))


def publish_tree(stage: Stage, digest: str) -> None:
    """Keep the built tree on scratch, whole or not at all; its lock keeps away whoever reads the one before."""
    target = stage.common / "trees" / digest
    temporary, old = target.with_name(f".{digest}.tmp"), target.with_name(f".{digest}.old")
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    copy_tree(stage, stage.work, temporary)
    if target.exists():
        target.replace(old)
    temporary.replace(target)
    shutil.rmtree(old, ignore_errors=True)
    write_atomically(stage.state / "tree.built", digest)


def restore_tree(stage: Stage, digest: str) -> None:
    """Put the built tree that an earlier run kept into /work, unless this run had got so far: engines lie in it."""
    if is_built(stage, digest):
        return
    clear_work(stage)
    copy_tree(stage, stage.common / "trees" / digest, stage.work)
    write_atomically(stage.state / "tree.built", digest)


def is_built(stage: Stage, digest: str) -> bool:
    """Say whether /work holds a built tree already, in which this run may have worked."""
    note = stage.state / "tree.built"
    return note.is_file() and note.read_text(encoding="utf-8") == digest
