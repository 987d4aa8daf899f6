"""Opening files: as they lie there for a user's own folder, confined where a harness, anybody's code, wrote them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

MAX_OBJECT_BYTES = 4 * 1024**2
"""Largest JSON object that is read; a record of a step has some kilobytes."""

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Without waiting: a pipe without a writer would hold the reader."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Files:
    """Regular files as they lie there, links followed: for folders whose content its reader trusts."""

    def open(self, path: Path) -> BinaryIO:
        """Open a regular file for reading; nothing else is opened at all.

        Raises:
            OSError: it cannot be opened; EINVAL where it is no regular file.
        """
        return _opened(str(path), None, follow=True)

    def find(self, path: Path) -> BinaryIO | None:
        """Open a regular file, None where there is none.

        Raises:
            OSError: it is there and cannot be opened.
        """
        try:
            return self.open(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            raise

    def listed(self, folder: Path) -> list[tuple[str, int]]:
        """Return the names in a folder, each with its file type (stat.S_IFMT); a link is a link.

        Raises:
            OSError: it cannot be read.
        """
        return _names(folder)

    def read_object(self, path: Path) -> dict[str, Any]:
        """Return the JSON object in a file; empty when there is none to be read."""
        try:
            with self.open(path) as file:
                value = json.loads(file.read(MAX_OBJECT_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


class Confined(Files):
    """Files below one folder, to which somebody else writes at the same time: no link below it is ever followed.

    Each folder on the way is opened in the one before, so that nothing can be exchanged in between. Who reads has
    files that the writer has not, credentials in /proc/self/environ first of all.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, path: Path) -> BinaryIO:
        """Open a regular file; see Files.open.

        Raises:
            OSError: also where a link stands in its path (ELOOP or ENOTDIR), or it lies outside (EPERM).
        """
        *folders, name = self._parts(path)
        with self._folder(folders) as folder:
            return _opened(name, folder, follow=False)

    def listed(self, folder: Path) -> list[tuple[str, int]]:
        """Return the names in a folder; see Files.listed."""
        with self._folder(self._parts(folder)) as descriptor:
            return _names(descriptor)

    def write(self, path: Path, text: str) -> None:
        """Write a file, whole or not at all; what has its name, a link too, is replaced and not written through.

        Raises:
            OSError: it cannot be written.
        """
        *folders, name = self._parts(path)
        # Of a name that nobody can guess, and created by this call.
        temporary = f".{name}.{secrets.token_hex(8)}.tmp"
        with self._folder(folders) as folder:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o644, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(descriptor)
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)

    def _parts(self, path: Path) -> tuple[str, ...]:
        parts = path.relative_to(self.root).parts if path.is_relative_to(self.root) else ("..",)
        if ".." in parts:
            raise OSError(errno.EPERM, "it lies outside of the folder", str(path))
        return parts

    @contextlib.contextmanager
    def _folder(self, parts: tuple[str, ...] | list[str]) -> Iterator[int]:
        descriptor = os.open(self.root, _FOLDER)
        try:
            for part in parts:
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


def _opened(name: str, folder: int | None, *, follow: bool) -> BinaryIO:
    if stat.S_ISLNK(mode := os.stat(name, dir_fd=folder, follow_symlinks=follow).st_mode):
        raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed", name)
    if stat.S_ISREG(mode):
        descriptor = os.open(name, _READ | (0 if follow else os.O_NOFOLLOW), dir_fd=folder)
        # Once more: by now the name may lead to something else.
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", name)


def _names(folder: Path | int) -> list[tuple[str, int]]:
    # os.walk would do, but up to Python 3.11 it calls itself for each level and fails in a very deep tree.
    with os.scandir(folder) as entries:
        return [(entry.name, stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)) for entry in entries]
