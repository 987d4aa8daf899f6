"""Which processes have a GPU open: they are named before a driver is touched, and not disturbed afterwards."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlperf_operator.agent.driver import parse
from mlperf_operator.agent.driver.host import Host
from mlperf_operator.driver_report import GpuUser

DAEMONS = ("nv-fabricmanager", "nvidia-persistenced")
"""The driver's own: they are stopped with it."""
_COMM_LENGTH = 15
_DAEMONS = tuple(name[:_COMM_LENGTH] for name in DAEMONS)
_COMPUTE = "nvidia-uvm"


@dataclass(frozen=True)
class Use:
    """A process and what it has open."""

    user: GpuUser
    computes: bool
    """Whether it may have a CUDA context: cuInit opens /dev/nvidia-uvm, which monitors (NVML) leave alone."""


def gpu_users(host: Host, *, proc: Path = Path("/proc")) -> tuple[GpuUser, ...]:
    """Return the processes that have one of the host's /dev/nvidia* open, by number, without the driver's daemons.

    The command is the name that the kernel keeps (15 bytes): arguments may hold secrets, and a report is public.
    """
    return tuple(use.user for use in uses(host, proc=proc))


def uses(host: Host, *, proc: Path = Path("/proc")) -> tuple[Use, ...]:
    """Return gpu_users, and whether each of them computes."""
    devices = {identity: name for name in host.names("/dev") if (identity := _device(host, name)) is not None}
    if not devices:
        return ()
    numbers = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())
    return tuple(use for number in numbers if (use := _use(proc / str(number), devices)) is not None)


def _device(host: Host, name: str) -> tuple[int, ...] | None:
    if not name.startswith("nvidia"):
        return None
    return _identity(host.path(f"/dev/{name}"))


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        # It went away since its folder was read.
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    # A container has device files of its own: one device, whatever file leads to it.
    return (found.st_rdev,) if stat.S_ISCHR(found.st_mode) else (found.st_dev, found.st_ino)


def _use(folder: Path, devices: dict[tuple[int, ...], str]) -> Use | None:
    names = {devices[identity] for identity in _opened(folder) if identity in devices}
    if not names:
        return None
    command = _text(folder / "comm").strip()
    if command in _DAEMONS:
        return None
    user = GpuUser(pid=int(folder.name), command=command, pod_uid=parse.pod_uid(_text(folder / "cgroup")))
    return Use(user, any(name.startswith(_COMPUTE) for name in names))


def _opened(folder: Path) -> Iterator[tuple[int, ...]]:
    try:
        descriptors = [entry.path for entry in os.scandir(folder / "fd")]
    except OSError:
        # The process ended, as any may while it is looked at.
        return
    for descriptor in descriptors:
        try:
            target = PurePosixPath(os.readlink(descriptor))  # noqa: PTH115 - thousands of them, every 2 s
        except OSError:
            continue
        # By name first: to stat whatever is open would hang on a network file system that does.
        if target.name.startswith("nvidia"):
            identity = _identity(Path(descriptor))
            if identity is not None:
                yield identity


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
