"""The files of a run on its results volume: what is there, the manifest over it, and whether it still holds.

The harness writes into that folder and may be anybody's code: no link is followed, nothing but a regular file is
read, and a name that is no plain text is passed over and said to be.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from mlperf_operator.results.files import Confined

MANIFEST = "manifest.json"
MAX_FILES = 100_000
"""Most files that a manifest lists, those passed over included; a run leaves some hundreds."""

MAX_DEPTH = 32
"""Most folders above each other that are looked into; the harness makes eight."""

_BLOCK = 1 << 20


class ArtifactsError(Exception):
    """The artifacts cannot be read or do not hold; the message says which and why."""


@dataclass(frozen=True)
class Entry:
    """One file of the folder: its path with `/`, its size in bytes and its sha256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Skipped:
    """Something in the folder that is not read, and why."""

    path: str
    reason: str


def always() -> None:
    """Let a long reading go on: the check of those who have time."""


@dataclass
class Folder:
    """A run's folder, read without following any link in it."""

    root: Path
    check: Callable[[], None] = always
    """Called before each block that is read; may raise to end the reading."""

    _known: dict[str, tuple[tuple[int, int, int], str]] = field(default_factory=dict)
    """Digest by path, of the file that had this inode, size and time of change."""

    @property
    def files(self) -> Confined:
        """How its files are opened and written."""
        return Confined(self.root)

    def open(self, path: str) -> BinaryIO:
        """Open a regular file of the folder.

        Raises:
            OSError: it cannot be opened, a link stands in its path, or it is no regular file.
        """
        return self.files.open(self.root / path)

    def read(self, path: str) -> Entry | Skipped:
        """Return a file with its digest, which is computed again only when the file has changed since."""
        try:
            file = self.open(path)
        except OSError as error:
            return Skipped(path, f"cannot be read: {error.strerror}")
        with file:
            try:
                before = _mark(file)
                known = self._known.get(path)
                if known and known[0] == before:
                    return Entry(path, before[1], known[1])
                digest, left = hashlib.sha256(), before[1]
                # No further than it went at first: a file that grows as fast would be read without end.
                while block := file.read(min(_BLOCK, left)):
                    self.check()
                    digest.update(block)
                    left -= len(block)
                if _mark(file) != before:
                    return Skipped(path, "was written to while it was read")
            except OSError as error:
                return Skipped(path, f"cannot be read: {error.strerror}")
        self._known[path] = (before, digest.hexdigest())
        return Entry(path, before[1], digest.hexdigest())

    def paths(self, below: str = "") -> Iterator[str | Skipped]:
        """Yield the paths of the files in the folder or below one in it, in no order, and what is passed over."""
        waiting, found = [below], 0
        while waiting:
            folder = waiting.pop()
            try:
                kinds = self.files.listed(self.root / folder)
            except OSError as error:
                yield Skipped(folder or ".", f"cannot be read: {error.strerror}")
                continue
            for name, kind in kinds:
                path = f"{folder}/{name}" if folder else name
                reason = _unfit(path, kind)
                # What is passed over is listed too.
                found += bool(reason) or (kind == stat.S_IFREG and path != MANIFEST)
                if found > MAX_FILES:
                    yield Skipped(_shown(path), f"there are more than {MAX_FILES} files; the rest is left out")
                    return
                if reason:
                    yield Skipped(_shown(path), reason)
                elif kind == stat.S_IFDIR:
                    waiting.append(path)
                elif path != MANIFEST:
                    yield path

    def entries(self, below: str = "") -> tuple[list[Entry], list[Skipped]]:
        """Return all files of the folder, or below one in it, with their digests, by path; and what is passed over."""
        found = [item if isinstance(item, Skipped) else self.read(item) for item in self.paths(below)]
        found.sort(key=lambda item: item.path)
        return [i for i in found if isinstance(i, Entry)], [i for i in found if isinstance(i, Skipped)]


def _mark(file: BinaryIO) -> tuple[int, int, int]:
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


def _unfit(path: str, kind: int) -> str:
    """Say why something is not read; empty when it is."""
    if kind == stat.S_IFLNK:
        return "a symbolic link is not followed"
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        return "it is no regular file"
    if not path.isprintable() or "\\" in path:
        return "its name is no plain text"
    if len(path) > 900:
        return "its path is too long for an object store"
    return "it lies too deep" if path.count("/") >= MAX_DEPTH else ""


def _shown(path: str) -> str:
    # A name on disk may be any bytes; a manifest is JSON, and read on terminals.
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)[:900]


def write_manifest(folder: Folder, run: Mapping[str, str]) -> tuple[str, list[Entry], list[Skipped]]:
    """Write manifest.json over everything else in a run's folder and return its sha256, the files, what it leaves out.

    Raises:
        OSError: it cannot be written.
    """
    files, skipped = folder.entries()
    times = [_record_times(folder, entry.path) for entry in files if entry.path.startswith("steps/")]
    begins, ends = (sorted(filter(None, column)) for column in zip(*times, strict=True)) if times else ([], [])
    content = {
        "kind": "manifest",
        "version": 1,
        "run": dict(run),
        "createdAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "measuredFrom": begins[0] if begins else None,
        "measuredTo": ends[-1] if ends else None,
        "versions": {"mlperf-operator": version("mlperf-operator"), "python": sys.version.split()[0]},
        "files": [{"path": entry.path, "size": entry.size, "sha256": entry.sha256} for entry in files],
        "skipped": [{"path": item.path, "reason": item.reason} for item in skipped],
    }
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    folder.files.write(folder.root / MANIFEST, text)
    return hashlib.sha256(text.encode()).hexdigest(), files, skipped


def _record_times(folder: Folder, path: str) -> tuple[str, str]:
    record = folder.files.read_object(folder.root / path)
    return str(record.get("startedAt") or ""), str(record.get("finishedAt") or "")


@dataclass(frozen=True)
class Manifest:
    """What a manifest.json says."""

    run: dict[str, str]
    files: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    sha256: str


def read_manifest(folder: Folder) -> Manifest:
    """Return a folder's manifest.

    Raises:
        ArtifactsError: there is none, or it cannot be read as one.
    """
    try:
        with folder.open(MANIFEST) as file:
            text = file.read()
        content = json.loads(text)
        run = {key: str(content["run"][key]) for key in ("namespace", "name", "uid")}
        files = tuple(Entry(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in content["files"])
        skipped = tuple(Skipped(str(s["path"]), str(s["reason"])) for s in content["skipped"])
    except FileNotFoundError as error:
        when = "a run's folder has it once the run has ended and collect has come to its end"
        raise ArtifactsError(f"{folder.root / MANIFEST} is not there: {when}") from error
    except OSError as error:
        raise ArtifactsError(f"{folder.root / MANIFEST} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactsError(f"{folder.root / MANIFEST} is no manifest: {type(error).__name__}: {error}") from error
    return Manifest(run, files, skipped, hashlib.sha256(text).hexdigest())


def verify(folder: Folder) -> tuple[Manifest, list[str]]:
    """Hold a folder against its manifest and return that, and what differs: one sentence each, none when it holds.

    Raises:
        ArtifactsError: there is no manifest.
    """
    manifest = read_manifest(folder)
    files, skipped = folder.entries()
    listed, present = ({entry.path: entry for entry in entries} for entries in (manifest.files, files))
    unread = {item.path: item.reason for item in skipped}
    problems = [_difference(entry, present.get(path), unread.get(path)) for path, entry in sorted(listed.items())]
    problems += [f"{path} is not in the manifest" for path in sorted(set(present) - set(listed))]
    known = {item.path for item in manifest.skipped} | set(listed)
    problems += [f"{path} is not in the manifest: {unread[path]}" for path in sorted(set(unread) - known)]
    return manifest, [problem for problem in problems if problem]


def _difference(listed: Entry, found: Entry | None, unread: str | None) -> str:
    if found is None:
        return f"{listed.path}: {unread}" if unread else f"{listed.path} is missing"
    if found.size != listed.size:
        return f"{listed.path} has {found.size} bytes and had {listed.size}"
    return "" if found.sha256 == listed.sha256 else f"{listed.path} has another content"
