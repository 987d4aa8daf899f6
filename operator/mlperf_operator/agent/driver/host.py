"""The host from inside the driver pod: its files under a root folder, its programs by chroot. Every effect is here."""

from __future__ import annotations

import os
import re
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

LOG_BYTES = 5 * 1024**2
"""Where the host's log is put aside for a new one: a node that fails for weeks must not fill its disk."""

_DEATH_SECONDS = 5.0
"""How long a killed program may take to be gone. One that waits for a device (state D) stays until that answers."""

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def redacted(text: str) -> str:
    """Return a text without user and password of the URLs in it: logs and reports are read by others."""
    return _CREDENTIALS.sub("***@", text)


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
        self._stuck: dict[str, subprocess.Popen[bytes]] = {}

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
            # Never readable by more than the file shall be, not even while it is written.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            temporary.rename(place)
            _sync_folder(place.parent)
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
        """Run a program of the host in its root and return how it ended: NOT_STARTED or TIMED_OUT where it did not.

        One that cannot even be killed, as nvidia-smi where a GPU does not answer, is left behind, and not started a
        second time before it is gone.
        """
        self._write_log([f"$ {' '.join(argv)}"])
        stuck = self._stuck.get(argv[0])
        if stuck is not None and stuck.poll() is None:
            text = f"an earlier {argv[0]}, process {stuck.pid}, hangs and cannot be killed"
            result = Done(tuple(argv), TIMED_OUT, text)
        else:
            result = self._run(argv, seconds, {**ENVIRONMENT, **(env or {})})
        self._write_log([*result.output.splitlines(), f"= {result.code}"])
        return result

    def _run(self, argv: Sequence[str], seconds: float, env: Mapping[str, str]) -> Done:
        command = list(argv) if self.root == Path("/") else ["chroot", str(self.root), *argv]
        try:
            process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
            )
        except OSError as error:
            return Done(tuple(argv), NOT_STARTED, str(error))
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            text = self._ended(argv[0], process).decode(errors="replace")
            return Done(tuple(argv), TIMED_OUT, f"{text}\nno end within {seconds:g} s")
        except BaseException:
            process.kill()
            raise
        return Done(tuple(argv), process.returncode, said.decode(errors="replace"))

    def _ended(self, program: str, process: subprocess.Popen[bytes]) -> bytes:
        """Kill a program and return what it said. subprocess.run would wait for its death, whatever keeps that away."""
        process.kill()
        try:
            said, _ = process.communicate(timeout=_DEATH_SECONDS)
        except subprocess.TimeoutExpired as error:
            said = error.output or b""
            if process.stdout is not None:
                process.stdout.close()
            self._stuck[program] = process
        return said

    def say(self, text: str) -> None:
        """Tell what happens, in the container's log and in the host's."""
        print(f"[driver] {redacted(text)}", file=sys.stderr, flush=True)
        self._write_log([f"# {text}"])

    def _write_log(self, lines: Iterable[str]) -> None:
        if self._log is None:
            return
        with suppressed_full_disk(), open(self._log, "a", opener=_private) as file:
            file.writelines(f"{redacted(line)}\n" for line in lines)


def open_log(host: Host, name: str) -> Host:
    """Return the host with its log, for root alone; a long one is put aside, and the one before that goes."""
    log = host.path(name)
    with suppressed_full_disk():
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))
    return Host(host.root, log)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    """Make a rename outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def suppressed_full_disk() -> Iterator[None]:
    """Go on without the log where the host's disk is full: that is what is to be reported, not the log's failure."""
    try:
        yield
    except OSError as error:
        print(f"[driver] the host's log cannot be written: {error}", file=sys.stderr, flush=True)
