"""The driver's services: persistence daemon and fabric manager, by the host's systemd."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.host import Done, Host
from mlperf_operator.driver_report import Reason

FABRIC_MANAGER = "nvidia-fabricmanager"
PERSISTENCED = "nvidia-persistenced"
DRIVER_SERVICES = (FABRIC_MANAGER, PERSISTENCED)
"""Both keep the modules loaded, so they are stopped before these go."""

_UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_SECONDS = 180.0
_UP_SECONDS = 30.0
_PAUSE_SECONDS = 0.5
_LAST_LINES = 3


def systemctl(host: Host, *words: str) -> Done:
    """Run systemctl on the host."""
    return host.run(["systemctl", *words], seconds=_SECONDS)


def known(host: Host, unit: str) -> bool:
    """Say whether the host has a unit file of this service."""
    return any(host.exists(f"{folder}/{unit}.service") for folder in _UNIT_FOLDERS)


def active(host: Host, unit: str) -> bool:
    """Say whether a service runs."""
    return systemctl(host, "is-active", unit).ok


def last_words(host: Host, unit: str) -> str:
    """Return the end of a service's log."""
    done = host.run(["journalctl", "-u", unit, "-n", "20", "--no-pager", "-o", "cat"])
    return done.tail(_LAST_LINES) or "its log is empty"


def running(host: Host) -> tuple[str, ...]:
    """Return the driver's services that run."""
    return tuple(unit for unit in DRIVER_SERVICES if known(host, unit) and active(host, unit))


def stop(host: Host, units: Sequence[str]) -> None:
    """Stop services.

    Raises:
        DriverError: one does not stop; then its process still uses the GPUs.
    """
    for unit in units:
        done = systemctl(host, "stop", unit)
        if not done.ok and active(host, unit):
            raise DriverError(Reason.GPU_IN_USE, f"service {unit} cannot be stopped: {done.tail()}")


def start_persistenced(host: Host) -> None:
    """Start the persistence daemon where it is there. A driver without it works, only slower to start a process."""
    if known(host, PERSISTENCED) and not systemctl(host, "start", PERSISTENCED).ok:
        host.say(f"{PERSISTENCED} did not start: {last_words(host, PERSISTENCED)}")


def start_fabric_manager(host: Host) -> None:
    """Start the fabric manager, now and at each boot, and wait until it runs.

    Raises:
        DriverError: it does not run, with its last words.
    """
    systemctl(host, "daemon-reload")
    done = systemctl(host, "enable", "--now", FABRIC_MANAGER)
    if not done.ok or not wait_active(host, FABRIC_MANAGER):
        raise DriverError(
            Reason.FABRIC_MANAGER_FAILED, f"{FABRIC_MANAGER} did not start: {last_words(host, FABRIC_MANAGER)}"
        )


def wait_active(host: Host, unit: str) -> bool:
    """Wait until a service runs that is being started, and say whether it does; at once where it failed."""
    deadline = time.monotonic() + _UP_SECONDS
    while True:
        done = systemctl(host, "is-active", unit)
        if done.ok or "activating" not in done.output:
            return done.ok
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
