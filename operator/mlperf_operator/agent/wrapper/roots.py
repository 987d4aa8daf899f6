"""What lies on a container's root: manifests, what leads from one to another, and which image it began as.

Standard-library Python 3.10, beside snapshot.py in the run's pod.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1
"""Raised with whatever an older wrapper would lay over wrongly; part of every environment's identity."""

MARK = ".mlperf-environment"
"""On the container's own root, so that it ends with the container: what was done to this root."""

EXCLUDED = frozenset(
    {
        *("proc", "sys", "dev", "run", "tmp", "var/tmp"),
        # The container runtime and ldconfig write these in each container anew.
        *("etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "etc/ld.so.cache", "var/cache/ldconfig"),
        *(".dockerenv", MARK),
        # What pip and apt downloaded is needed by nobody any more.
        *("root/.cache", "var/cache/apt"),
    }
)
"""Paths that are no part of an environment, with all below them."""

_PACKAGES = tuple(f"{place}/python3*/*-packages" for place in ("usr/lib", "usr/local/lib", "opt/*/lib"))
_PROGRAMS = ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")
_LIBRARY = re.compile(r"\.so(\.|$)")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
}
"""Sockets are left out: they live no longer than the process that listens."""


class Entry(NamedTuple):
    """What a manifest knows of a path."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    """Nanoseconds."""
    changed: int
    """Last change of content or attributes, in nanoseconds: also tells what kept its size and got its old time back."""
    inode: str
    """Device and inode of a file with several names; empty otherwise."""
    target: str
    """Target of a link, or device number."""


Manifest = dict[str, Entry]
"""Entries by path, relative to the root."""


def mount_points(table: str, root: Path) -> set[str]:
    """Return the mount points of a mount table (/proc/self/mountinfo) below a root, relative to it.

    A bind mount of the same file system is one too: volumes, what the runtime puts into /etc, the driver's files.
    """
    unescaped = (_ESCAPE.sub(lambda m: chr(int(m[1], 8)), line.split()[4]) for line in table.splitlines())
    top = "/" if root == Path("/") else f"{root}/"
    return {point[len(top) :] for point in unescaped if point.startswith(top) and point != top}


def mounted(root: Path) -> set[str]:
    """Return what is mounted below a root."""
    return mount_points(os.fsdecode(Path("/proc/self/mountinfo").read_bytes()), root.resolve())


def scan(root: Path, left_out: Collection[str]) -> Manifest:
    """Return the manifest of a root's own file system."""
    device = root.lstat().st_dev
    found: Manifest = {}
    folders = [("", str(root))]
    while folders:
        prefix, folder = folders.pop()
        with os.scandir(folder) as entries:
            for item in entries:
                path, status = prefix + item.name, item.stat(follow_symlinks=False)
                kind = _KINDS.get(stat.S_IFMT(status.st_mode))
                if kind is None or path in left_out:
                    continue
                if kind == "folder":
                    # Only of folders: overlayfs may give a file the device of the layer that it lies in.
                    if status.st_dev != device:
                        continue
                    folders.append((f"{path}/", item.path))
                found[path] = _entry(kind, status, item.path)
    return found


def _entry(kind: str, status: os.stat_result, path: str) -> Entry:
    target = inode = ""
    if kind == "link":
        target = os.readlink(path)  # noqa: PTH115 - hundreds of thousands of them
    elif kind in ("character", "block"):
        target = str(status.st_rdev)
    elif kind == "file" and status.st_nlink > 1:
        inode = f"{status.st_dev}:{status.st_ino}"
    size = status.st_size if kind == "file" else 0
    mode = 0o777 if kind == "link" else stat.S_IMODE(status.st_mode)
    return Entry(kind, mode, status.st_uid, status.st_gid, size, status.st_mtime_ns, status.st_ctime_ns, inode, target)


class Difference(NamedTuple):
    """What leads from one manifest to another."""

    changed: list[str]
    """Paths that are new or another, in the order in which they are laid over."""
    deleted: list[str]
    """Paths that are gone, each standing for all below it."""
    replaced: list[str]
    """Of `changed`, those that were folders and are none any more."""


def difference(before: Manifest, after: Manifest) -> Difference:
    """Return what leads from one manifest of a root to a later one."""
    other = {path for path, entry in after.items() if before.get(path) != entry}
    gone = [path for path in before if path not in after and _is_folder(after, _parent(path))]
    # Laying something over a folder changes its time, which is to be as it was kept.
    changed = other | {_parent(path) for path in (*other, *gone)} - {""}
    replaced = [path for path in changed if path in before and _is_folder(before, path) > _is_folder(after, path)]
    seconds = second_names(after, changed)
    return Difference(
        sorted(changed, key=lambda path: (_rank(path, after[path], second=path in seconds), path)),
        sorted(gone),
        sorted(replaced),
    )


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _is_folder(manifest: Manifest, path: str) -> bool:
    return not path or (path in manifest and manifest[path].kind == "folder")


def second_names(manifest: Manifest, paths: Iterable[str]) -> dict[str, str]:
    """Return, for each path that is another name of a file, the name that it is a hard link of."""
    first: dict[str, str] = {}
    names = sorted((path for path in paths if manifest[path].inode), key=lambda path: (not _LIBRARY.search(path), path))
    return {path: found for path in names if (found := first.setdefault(manifest[path].inode, path)) != path}


def _rank(path: str, entry: Entry, *, second: bool) -> int:
    """Return when a path is laid over: a library before its link, and both before the programs that need them."""
    if entry.kind == "folder":
        return 0
    if second:
        return 4
    library = bool(_LIBRARY.search(path))
    return {"file": 1 if library else 3, "link": 2 if library else 5}.get(entry.kind, 6)


def write_manifest(path: Path, header: dict[str, Any], manifest: Manifest) -> None:
    """Write a manifest, one line a path, after a line of its own for the header."""
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(header) + "\n")
        # Names that are no UTF-8 have lone surrogates, which json escapes.
        file.writelines(json.dumps([name, *entry]) + "\n" for name, entry in manifest.items())


def read_manifest(path: Path) -> tuple[dict[str, Any], Manifest]:
    """Return what `write_manifest` wrote."""
    with path.open(encoding="utf-8") as file:
        header = json.loads(next(file))
        return header, {name: Entry(*entry) for name, *entry in map(json.loads, file)}


def base_of(root: Path) -> str:
    """Return the fingerprint of an untouched root: its release, its packages, and the programs that it has.

    The same in every container of an image, whatever the runtime mounts there: NVIDIA's brings its own programs.
    """
    found = hashlib.sha256(f"{FORMAT}\0".encode())
    for name in ("etc/os-release", "var/lib/dpkg/status"):
        with contextlib.suppress(FileNotFoundError):
            found.update(name.encode() + b"\0" + (root / name).read_bytes() + b"\0")
    for folder in sorted(folder for pattern in _PACKAGES for folder in root.glob(pattern)):
        for path in sorted(folder.glob("*.*-info")):
            found.update(os.fsencode(path.relative_to(root)) + b"\0")
    for path in sorted(path for folder in _PROGRAMS for path in (root / folder).glob("*")):
        if not path.name.startswith("nvidia"):
            found.update(os.fsencode(path.relative_to(root)) + f"\0{path.lstat().st_size}\0".encode())
    return found.hexdigest()
