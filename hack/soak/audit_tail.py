"""What is new in the API server's audit log since the last look, rotated files included."""

from __future__ import annotations

import os
from pathlib import Path

from chaos.audit import Write, parse


class AuditTail:
    """Reads each line once: two hours of requests are hundreds of megabytes, and the oldest part is rotated away."""

    def __init__(self, folder: Path, users: str) -> None:
        """Take the folder of the logs, and what the names of the users begin with whose writes matter."""
        self._folder = folder
        self._mark = f'"username":"{users}'.encode()
        # By inode, which a file keeps when it is rotated; of files that are gone none, for it may be given again.
        self._read: dict[int, int] = {}

    def new(self) -> list[Write]:
        """Return the writes of whole lines that were not read before, by when they were received."""
        before, self._read = self._read, {}
        lines = [line for file in self._folder.glob("audit*.log") for line in self._lines(file, before)]
        found = [parse(line.decode()) for line in lines if self._mark in line]
        return sorted((write for write in found if write is not None), key=lambda write: write.at)

    def _lines(self, file: Path, before: dict[int, int]) -> list[bytes]:
        try:
            log = file.open("rb")
        except FileNotFoundError:
            # Rotated away just now.
            return []
        with log:
            inode = os.fstat(log.fileno()).st_ino
            offset = before.get(inode, 0)
            log.seek(offset)
            whole, newline, _ = log.read().rpartition(b"\n")
        self._read[inode] = offset + len(whole) + len(newline)
        return whole.splitlines()
