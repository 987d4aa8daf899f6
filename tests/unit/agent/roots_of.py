"""Folders that play the root of a container, and what two of them have in common."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlperf_operator.agent.wrapper import roots, snapshot
from unit.agent.bench import make_tree

BASE = {
    "etc/os-release": "ID=ubuntu\n",
    "var/lib/dpkg/status": "Package: cmake\n",
    "usr/bin/cmake": "#!old cmake",
    "usr/lib/libold.so.1": "old library",
    "usr/lib/python3.10/dist-packages/pip-22.dist-info/METADATA": "Name: pip\n",
    "usr/share/cmake/Modules/A.cmake": "module",
    "opt/data": "kept as it is",
}


def base_root(folder: Path) -> Path:
    """Make a root with what a container's image holds."""
    return make_tree(folder, BASE)


def copy(root: Path, target: Path) -> Path:
    """Return a copy of a root, as a fresh container of the same image has it."""
    subprocess.run(["cp", "-a", str(root), str(target)], check=True)
    return target


def kept(root: Path, store: Path, change: Callable[[], object], digest: str = "d1") -> dict[str, Any]:
    """Keep what a change does to a root, and return the note."""
    base = str(snapshot.identify(str(root))["base"])
    snapshot.before(str(root), str(store), digest)
    change()
    return snapshot.keep(str(root), str(store), digest, base, "run-1")


def laid(root: Path, store: Path, note: dict[str, Any]) -> str:
    """Lay what was kept over a root and return what was said."""
    return str(snapshot.lay(str(root), str(store), str(note["digest"]), str(note["sha256"]))["said"])


def seen(root: Path) -> dict[str, tuple[Any, ...]]:
    """Return all that tells one root from another, by path; which names are one file, too."""
    found, names = {}, dict[tuple[int, int], str]()
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name == roots.MARK:
            continue
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content: Any = None
        if stat.S_ISREG(kind):
            content = (path.read_bytes(), names.setdefault((status.st_dev, status.st_ino), name))
        elif stat.S_ISLNK(kind):
            content = path.readlink()
        elif stat.S_ISCHR(kind):
            content = status.st_rdev
        mode = None if stat.S_ISLNK(kind) else stat.S_IMODE(status.st_mode)
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        found[name] = (kind, mode, status.st_uid, status.st_gid, status.st_mtime_ns, content, xattrs)
    return found


def remove(path: Path) -> Path:
    """Remove whatever is there, and return where it was."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path
