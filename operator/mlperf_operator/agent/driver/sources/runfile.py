"""NVIDIA's run file: fetched or found on the host, checked, run without a question."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import stat
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.host import Host
from mlperf_operator.agent.driver.sources import failures
from mlperf_operator.agent.driver.sources.base import CACHE, SLOW, TRANSACTION, Command
from mlperf_operator.catalogue import RunFileSource
from mlperf_operator.driver_report import Reason

UNINSTALLER = "/usr/bin/nvidia-uninstall"
"""What a driver from a run file leaves, and packages do not have."""

LOGS = ("/var/log/nvidia-installer.log", "/var/log/cuda-installer.log")
_TEMPORARY = f"{CACHE}/unpacked"
_ANSWER_SECONDS = 60.0
_UNPACKED = 2
"""How much larger than the file what it unpacks may be."""
_BLOCK = 1 << 20


def place(source: RunFileSource) -> str:
    """Return where the run file lies on the host, once it is fetched."""
    if source.host_path is not None:
        return source.host_path
    parts = urlsplit(source.url or "")
    return parts.path if parts.scheme == "file" else f"{CACHE}/{PurePosixPath(parts.path).name}"


def install(source: RunFileSource) -> Command:
    """Return the command that installs the driver.

    CUDA's file takes --driver and --toolkit, and a folder for what it unpacks, because /tmp may be small or noexec. A
    file that has only the driver (NVIDIA-Linux-x86_64-VERSION.run) knows none of these.
    """
    file = place(source)
    if PurePosixPath(file).name.startswith("NVIDIA-Linux-"):
        return Command(("sh", file, "--silent", f"--tmpdir={_TEMPORARY}"), TRANSACTION)
    parts = ["--silent", "--driver", *(["--toolkit"] if source.toolkit else []), f"--tmpdir={_TEMPORARY}"]
    return Command(("sh", file, *parts), TRANSACTION)


def temporary_folder() -> Command:
    """Return the command that makes the folder for what the file unpacks."""
    return Command(("mkdir", "-p", _TEMPORARY))


def uninstall() -> Command:
    """Return the command that removes a driver that a run file installed."""
    return Command((UNINSTALLER, "--silent"), SLOW)


def fetch(host: Host, source: RunFileSource) -> None:
    """Bring the run file onto the host, if it is not there, and check it.

    Raises:
        DriverError: REPOSITORY_UNREACHABLE, DISK_FULL, or CHECKSUM_MISMATCH; a fetched file that is wrong is removed.
    """
    file = host.path(place(source))
    fetched = source.url is not None and place(source).startswith(f"{CACHE}/")
    if fetched and not (file.exists() and _sha256(file) == source.sha256):
        _download(source.url or "", file)
    if not file.exists():
        raise DriverError(Reason.REPOSITORY_UNREACHABLE, f"there is no run file {place(source)} on the node")
    try:
        check(host, source)
    except DriverError:
        if fetched:
            file.unlink()
        raise
    needed, free = _UNPACKED * file.stat().st_size, host.free_bytes(CACHE)
    if free < needed:
        text = f"{CACHE} has {free / 2**30:.1f} GiB free, and unpacking the run file takes {needed / 2**30:.1f} GiB"
        raise DriverError(Reason.DISK_FULL, text)


def check(host: Host, source: RunFileSource) -> None:
    """Check the run file, at the last moment before it is run.

    Raises:
        DriverError: its checksum is another one, or proves nothing because somebody may change the file meanwhile.
    """
    file = host.path(place(source))
    if any(_foreign(path) for path in (file, file.parent)):
        text = f"{place(source)} or its folder may be written by others than root, so its checksum proves nothing"
        raise DriverError(Reason.CHECKSUM_MISMATCH, text)
    found = _sha256(file)
    if found != source.sha256:
        raise DriverError(
            Reason.CHECKSUM_MISMATCH, f"{place(source)} has sha256 {found}; the catalogue says {source.sha256}"
        )


def _foreign(path: Path) -> bool:
    status = path.stat()
    return status.st_uid not in (0, os.geteuid()) or bool(status.st_mode & stat.S_IWOTH)


def clean(host: Host, source: RunFileSource) -> None:
    """Remove what was fetched and unpacked; a file that lay on the host stays."""
    host.run(["rm", "-rf", _TEMPORARY])
    if place(source).startswith(f"{CACHE}/"):
        host.remove(place(source))


def failed(host: Host, output: str, code: int, *, since: float = 0.0) -> DriverError:
    """Return the error for an installer that failed; its logs say more than it does itself.

    Args:
        host: where.
        output: what it said.
        code: what it returned.
        since: when it began (time.time); a log from before is of another failure.
    """
    places = [log for log in LOGS if host.exists(log) and host.path(log).stat().st_mtime >= since]
    logs = "\n".join(host.read(log) or "" for log in places)
    errors = "\n".join(line for line in logs.splitlines() if "ERROR" in line)
    words = failures.words(errors) or failures.words(output) or f"it ended with {code}"
    reason = failures.reason(errors) or failures.reason(output) or Reason.INSTALL_FAILED
    return DriverError(reason, f"the run file failed: {words}")


def _download(url: str, file: Path) -> None:
    partial = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # The catalogue's type of URL allows http, https and file only, and file is not fetched.
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as answer, partial.open("wb") as sink:  # noqa: S310
            while block := answer.read(_BLOCK):
                sink.write(block)
        partial.rename(file)
    except (urllib.error.URLError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DriverError(Reason.REPOSITORY_UNREACHABLE, f"{url} cannot be fetched: {error}") from error
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise DriverError(Reason.DISK_FULL, f"no space is left for {url}") from error
        raise DriverError(Reason.REPOSITORY_UNREACHABLE, f"{url} cannot be fetched: {error}") from error


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
