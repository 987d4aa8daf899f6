"""The host from inside the driver pod: its files under a root folder, its programs by chroot. Every effect is here."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_MODE": "l",
    "SYSTEMD_IGNORE_CHROOT": "1",
    "HOME": "/root",
}
"""What the host's programs get: nothing of the pod's own environment means anything to them."""

MAX_LINKS = 40


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    argv: tuple[str, ...]
    code: int
    output: str
    """Standard output and error together, as they came."""

    @property
    def ok(self) -> bool:
        """Whether it ended with 0."""
        return self.code == 0

    def tail(self, lines: int = 5, limit: int = 600) -> str:
        """Return the end of what it said, as one line."""
        said = [line.strip() for line in self.output.splitlines() if line.strip()]
        return " | ".join(said[-lines:])[-limit:]


NOT_STARTED = 127
TIMED_OUT = 124


class Host:
    """A host whose root folder is mounted in this container."""

    def __init__(self, root: Path, log: Path | None = None) -> None:
        """Take the root folder, `/host` in the pod; `log` is where everything that is run is written to, too."""
        self.root = root
        self._log = log

    def path(self, name: str) -> Path:
        """Return where a path of the host lies here. Links are followed within the root, absolute ones too."""
        parts, seen, links = list(PurePosixPath(name).parts[1:]), PurePosixPath("/"), 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                seen = seen.parent
                continue
            step = self.root / str(seen / part).lstrip("/")
            if step.is_symlink():
                links += 1
                if links > MAX_LINKS:
                    msg = f"{name}: too many symbolic links"
                    raise OSError(msg)
                target = PurePosixPath(step.readlink())
                if target.is_absolute():
                    seen = PurePosixPath("/")
                    target = target.relative_to("/")
                parts = [*target.parts, *parts]
            else:
                seen /= part
        return self.root / str(seen).lstrip("/")

    def read(self, name: str) -> str | None:
        """Return a text file of the host, or None where there is none that can be read."""
        try:
            return self.path(name).read_text(errors="replace")
        except OSError:
            return None

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the names in a folder of the host in order, none where there is no such folder."""
        try:
            return tuple(sorted(entry.name for entry in self.path(folder).iterdir()))
        except OSError:
            return ()

    def exists(self, name: str) -> bool:
        """Say whether a path of the host is there, at the end of its links."""
        return self.path(name).exists()

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the host so that a crash leaves the old or the new one: temporary file, fsync, rename."""
        place = self.path(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
        try:
            with temporary.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.rename(place)
        finally:
            # Gone by the rename, or left on a disk that is full.
            temporary.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a file of the host, if it is there."""
        self.path(name).unlink(missing_ok=True)

    def free_bytes(self, folder: str) -> int:
        """Return the space that is free for root where a folder, or the nearest above it that exists, lies."""
        place = self.path(folder)
        while not place.exists():
            place = place.parent
        space = os.statvfs(place)
        return space.f_bavail * space.f_frsize

    def has(self, program: str) -> bool:
        """Say whether the host has a program on its path."""
        return any(self.exists(f"{folder}/{program}") for folder in ENVIRONMENT["PATH"].split(":"))

    def run(self, argv: Sequence[str], *, seconds: float = 60.0, env: Mapping[str, str] | None = None) -> Done:
        """Run a program of the host in its root and return how it ended: NOT_STARTED or TIMED_OUT where it did not."""
        command = list(argv) if self.root == Path("/") else ["chroot", str(self.root), *argv]
        self._write_log([f"$ {' '.join(argv)}"])
        try:
            done = subprocess.run(
                command,
                env={**ENVIRONMENT, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
                cwd="/",
            )
            result = Done(tuple(argv), done.returncode, done.stdout.decode(errors="replace"))
        except subprocess.TimeoutExpired as error:
            said = (error.output or b"").decode(errors="replace")
            result = Done(tuple(argv), TIMED_OUT, f"{said}\nno end within {seconds:g} s")
        except OSError as error:
            result = Done(tuple(argv), NOT_STARTED, str(error))
        self._write_log([*result.output.splitlines(), f"= {result.code}"])
        return result

    def say(self, text: str) -> None:
        """Tell what happens, in the container's log and in the host's."""
        print(f"[driver] {text}", file=sys.stderr, flush=True)
        self._write_log([f"# {text}"])

    def _write_log(self, lines: Iterable[str]) -> None:
        if self._log is None:
            return
        with suppressed_full_disk(), self._log.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)


@contextmanager
def suppressed_full_disk() -> Iterator[None]:
    """Go on without the log where the host's disk is full: that is what is to be reported, not the log's failure."""
    try:
        yield
    except OSError as error:
        print(f"[driver] the host's log cannot be written: {error}", file=sys.stderr, flush=True)
