"""A difference between two manifests as a tar archive, and its way over another root.

Standard-library Python 3.10, beside snapshot.py in the run's pod.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO

from mlperf_operator.agent.wrapper.roots import Difference, Entry, Manifest, second_names

TEMPORARY = ".mlperf-environment.tmp"
INDEX = ".mlperf-environment.json"
"""First member of the archive: which paths go, and which folders become something else."""

_XATTRS = re.compile(r"security\.capability|user\..+|system\.posix_acl_.+")
_XATTR_KEY = "MLPERF.xattr."
_TAR_TYPES = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "pipe": tarfile.FIFOTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}


_NAMES: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}
"""How archives hold names; a file's name may be no UTF-8."""


class SnapshotError(Exception):
    """An environment cannot be kept or laid over; the message says why and what to do."""


class Hashing:
    """A file that is written, and the digest of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Write."""
        self.digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        """Return how much was written."""
        return self._file.tell()


def write_archive(root: Path, manifest: Manifest, change: Difference, target: Path) -> tuple[str, int]:
    """Write what changed into a tar archive and return its sha256 and bytes; it is on disk when this returns.

    Not compressed: that takes several times longer than reading it again from any volume that suits a benchmark.

    Raises:
        SnapshotError: a file changed meanwhile.
    """
    seconds = second_names(manifest, change.changed)
    with target.open("wb", buffering=1 << 20) as file:
        sink = Hashing(file)
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT, **_NAMES) as tar:  # type: ignore[call-overload]
            index = json.dumps({"deleted": change.deleted, "replaced": change.replaced}).encode()
            first = tarfile.TarInfo(INDEX)
            first.size = len(index)
            tar.addfile(first, io.BytesIO(index))
            for path in change.changed:
                _add(tar, root, path, manifest[path], seconds.get(path))
                tar.members = []  # It would remember them all.
        file.flush()
        os.fsync(file.fileno())
        return sink.digest.hexdigest(), file.tell()


def _add(tar: tarfile.TarFile, root: Path, path: str, entry: Entry, same_as: str | None) -> None:
    info = _header(path, entry)
    if same_as is not None:
        info.type, info.linkname = tarfile.LNKTYPE, same_as
        tar.addfile(info)
        return
    # Binary, so that nothing depends on how tar programs take them.
    xattrs = {f"{_XATTR_KEY}{name}": base64.b64encode(value).decode() for name, value in attributes(root / path)}
    info.pax_headers = {**info.pax_headers, **xattrs}
    if entry.kind != "file":
        tar.addfile(info)
        return
    info.size = entry.size
    with (root / path).open("rb") as content:
        found = os.fstat(content.fileno())
        if (found.st_size, found.st_mtime_ns, found.st_ctime_ns) == (entry.size, entry.mtime, entry.changed):
            tar.addfile(info, content)
            if os.fstat(content.fileno()).st_ctime_ns == entry.changed:
                return
    raise SnapshotError(f"/{path} changes while it is kept: something that prebuild started still runs")


def _header(path: str, entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type = _TAR_TYPES[entry.kind]
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.mtime, rest = divmod(entry.mtime, 10**9)
    if rest:
        info.pax_headers = {"mtime": f"{info.mtime}.{rest:09d}"}
    if entry.kind == "link":
        info.linkname = entry.target
    elif entry.kind in ("character", "block"):
        info.devmajor, info.devminor = os.major(int(entry.target)), os.minor(int(entry.target))
    return info


def attributes(path: Path) -> list[tuple[str, bytes]]:
    """Return a file's extended attributes that hold wherever it lies: capabilities, access lists, a user's own."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    return [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names if _XATTRS.fullmatch(name)]


class Root:
    """A root that an environment is laid over. What is mounted in it is left alone."""

    def __init__(self, root: Path, mounts: Collection[str]) -> None:
        self._root = root
        self._mounts = frozenset(mounts)
        self._above = {point[:at] for point in mounts for at, letter in enumerate(point) if letter == "/"}
        self.unset: set[str] = set()
        """Extended attributes that this container may not set."""

    def lay(self, archive: Path) -> int:
        """Lay an archive over the root and return how many paths that are mounted here were left as they are.

        Everything is put in place by rename, never written in place: what is replaced may be running.

        Raises:
            SnapshotError: something mounted is in the way; nothing was changed.
        """
        with tarfile.open(archive, "r:", **_NAMES) as tar:
            index = _read_index(tar)
            self._refuse_mounted(index["replaced"])
            replaced, left, folders = frozenset(index["replaced"]), 0, []
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # It would remember them all.
                if self._is_mounted(member.name):
                    left += 1
                elif member.isdir():
                    self._make_folder(member.name)
                    folders.append(member)
                else:
                    self._put(tar, member, replaced=member.name in replaced)
        for path in index["deleted"]:
            left += self._delete(path)
        # Last, because whatever is put into a folder or taken out changes its time.
        for member in reversed(folders):
            self._dress(self._root / member.name, member)
        return left

    def _refuse_mounted(self, paths: Iterable[str]) -> None:
        for path in paths:
            if path in self._above or self._is_mounted(path):
                text = f"/{path} is no folder in the environment, but something is mounted there or below it"
                raise SnapshotError(f"{text} in this container")

    def _is_mounted(self, path: str) -> bool:
        if path.startswith("/") or ".." in path.split("/"):
            raise SnapshotError(f"the archive has the path {path!r}, which leads out of the root")
        if path in self._mounts:
            return True
        return any(path[:at] in self._mounts for at, letter in enumerate(path) if letter == "/")

    def _make_folder(self, path: str) -> None:
        target = self._root / path
        try:
            if stat.S_ISDIR(target.lstat().st_mode):
                return
            target.unlink()
        except FileNotFoundError:
            pass
        target.mkdir(0o700)

    def _put(self, tar: tarfile.TarFile, member: tarfile.TarInfo, *, replaced: bool) -> None:
        target = self._root / member.name
        temporary = target.with_name(TEMPORARY)
        temporary.unlink(missing_ok=True)  # Of a try that was interrupted.
        self._make(tar, member, temporary)
        try:
            temporary.replace(target)
        except IsADirectoryError:
            if not replaced:
                raise
            shutil.rmtree(target)
            temporary.replace(target)

    def _make(self, tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
        if member.islnk():
            os.link(self._root / member.linkname, target, follow_symlinks=False)
            return
        if member.issym():
            target.symlink_to(member.linkname)
        elif member.isfifo():
            os.mkfifo(target)
        elif member.isdev():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(target, kind | 0o600, os.makedev(member.devmajor, member.devminor))
        else:
            with target.open("xb") as sink:
                shutil.copyfileobj(_content_file(tar, member), sink, 1 << 20)
        self._dress(target, member)

    def _dress(self, target: Path, member: tarfile.TarInfo) -> None:
        """Give a path its owner, mode, attributes and time, in the order in which none undoes another."""
        os.chown(target, member.uid, member.gid, follow_symlinks=False)
        if not member.issym():
            target.chmod(member.mode)
        for key, value in member.pax_headers.items():
            if key.startswith(_XATTR_KEY):
                self._set_attribute(target, key[len(_XATTR_KEY) :], base64.b64decode(value))
        whole, _, rest = member.pax_headers.get("mtime", str(int(member.mtime))).partition(".")
        moment = int(whole) * 10**9 + int(rest or 0)
        os.utime(target, ns=(moment, moment), follow_symlinks=False)

    def _set_attribute(self, target: Path, name: str, value: bytes) -> None:
        try:
            os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP):
                raise
            self.unset.add(name)

    def _delete(self, path: str) -> int:
        """Remove a path and what is below it, and return how many mounted paths were left."""
        if self._is_mounted(path):
            return 1
        target = self._root / path
        try:
            if not stat.S_ISDIR(target.lstat().st_mode):
                target.unlink()
            elif path not in self._above:
                shutil.rmtree(target)
            else:
                return sum(self._delete(f"{path}/{item.name}") for item in sorted(target.iterdir()))
        except FileNotFoundError:
            pass  # Of a try that was interrupted.
        return 0


def _content_file(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    if content is None:
        raise SnapshotError(f"the archive has {member.name} in a form that no environment has")
    return content


def _read_index(tar: tarfile.TarFile) -> dict[str, list[str]]:
    first = tar.next()
    if first is None or first.name != INDEX:
        raise SnapshotError("the archive does not begin with its index")
    found: dict[str, list[str]] = json.loads(_content_file(tar, first).read())
    return found
