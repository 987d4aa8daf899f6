"""What forbids a change of the node, decided before anything is touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.work import Seen, Wanted, Work
from mlperf_operator.catalogue import Mode, PackageSource
from mlperf_operator.driver_report import Reason

FOLDERS = ("/usr", "/var", "/lib/modules")
"""Where packages, their archives and modules go."""

_NAMED = 6
"""Names in one message."""


@dataclass(frozen=True)
class Case:
    """A change to be judged."""

    seen: Seen
    goal: Wanted
    work: Work
    mode: Mode


def refusals(case: Case) -> list[DriverError]:
    """Return everything that forbids a change, the most fundamental first."""
    return [error for check in _CHECKS if (error := check(case)) is not None]


def _foreign_lock(case: Case) -> DriverError | None:
    if not (case.seen.facts.foreign_lock and case.work.drives):
        return None
    return DriverError(
        Reason.NODE_LOCKED,
        "a driver container manages the driver: it holds /run/nvidia/nvidia-driver.pid, or mounts /run/nvidia/driver",
    )


def _driver_present(case: Case) -> DriverError | None:
    if not (case.work.drives or case.work.driver) or not case.seen.present or case.seen.ours or case.mode == "Adopt":
        return None
    differs = f"; {case.seen.findings[0].detail}" if case.seen.findings else ""
    return DriverError(
        Reason.DRIVER_PRESENT, f"somebody else installed a driver here: {_named(case.seen.present)}{differs}"
    )


def _nouveau(case: Case) -> DriverError | None:
    if not (case.seen.facts.nouveau and case.work.reload):
        return None
    return DriverError(Reason.NOUVEAU_LOADED, "the module nouveau is loaded and drives the GPUs")


def _secure_boot(case: Case) -> DriverError | None:
    signed = isinstance(case.goal.source, PackageSource) and case.goal.source.signed_module
    if not case.seen.facts.secure_boot or signed or not case.work.reload or (case.seen.ours and not case.work.driver):
        return None
    return DriverError(
        Reason.SECURE_BOOT,
        f"Secure Boot is on, and the catalogue's source for {case.seen.facts.os} has no signed module",
    )


def _headers(case: Case) -> DriverError | None:
    builds = not isinstance(case.goal.source, PackageSource) or case.goal.source.builds_module
    builds = builds and case.work.reload and (case.work.driver or not case.seen.built)
    if case.seen.facts.headers or not builds:
        return None
    return DriverError(
        Reason.HEADERS_MISSING, f"/lib/modules/{case.seen.facts.kernel}/build of the running kernel is not there"
    )


def _disk(case: Case) -> DriverError | None:
    if not case.work.change and not case.work.run_file:
        return None
    wanted = case.goal.driver.min_free_bytes
    short = [f"{folder} has {free / 2**30:.1f} GiB" for folder, free in case.seen.free.items() if free < wanted]
    if not short:
        return None
    return DriverError(Reason.DISK_FULL, f"{', '.join(short)} free; {wanted / 2**30:.1f} GiB are needed")


def _broken(case: Case) -> DriverError | None:
    if not case.seen.packages.broken or not case.work.change or case.seen.resumed:
        return None
    return DriverError(
        Reason.PACKAGE_MANAGER_BROKEN, f"half installed or half configured: {_named(case.seen.packages.broken)}"
    )


def _held(case: Case) -> DriverError | None:
    ours = case.seen.record.held if case.seen.record is not None else ()
    names = (*(package.name for package in case.work.install), *case.work.remove)
    held = tuple(name for name in names if name in case.seen.packages.held and name not in ours)
    return DriverError(Reason.PACKAGE_HELD, f"on hold, and not by us: {_named(held)}") if held else None


def _in_use(case: Case) -> DriverError | None:
    if not case.seen.facts.users or not (case.work.drives or case.work.driver):
        return None
    users = _named(tuple(f"{user.command} ({user.pid})" for user in case.seen.facts.users))
    return DriverError(Reason.GPU_IN_USE, f"processes use the GPUs: {users}", users=case.seen.facts.users)


def _named(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


_CHECKS: tuple[Callable[[Case], DriverError | None], ...] = (
    _foreign_lock,
    _driver_present,
    _nouveau,
    _secure_boot,
    _headers,
    _disk,
    _broken,
    _held,
    _in_use,
)
