"""The driver's kernel modules: what is loaded, in which order they go, and how they come."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.host import Host
from mlperf_operator.agent.driver.users import gpu_users
from mlperf_operator.driver_report import Reason

UNLOAD_ORDER = (
    *("nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia_peermem", "nvidia_fs", "nvidia_vgpu_vfio"),
    *("gdrdrv", "nvidia"),
)
"""Each before what it uses; as NVIDIA's k8s-driver-manager does it."""

LOADED = ("nvidia", "nvidia_uvm", "nvidia_modeset")
"""What a benchmark needs. The others come again where they were before."""

_SECONDS = 120.0
_UNSIGNED = re.compile(r"Key was rejected by service|Required key not available")
_NO_FILE = re.compile(r"not found in directory")
_MODULE = re.compile(r"nvidia(-(current|tesla|legacy)[a-z0-9-]*)?\.ko(\.(gz|xz|zst))?")
"""The module's file. Debian's own packages call it nvidia-current.ko and let modprobe translate."""
_PARTS = re.compile(r"-(uvm|modeset|drm|peermem)\.")


def loaded(host: Host) -> tuple[str, ...]:
    """Return the driver's modules that are loaded, in the order in which they can be unloaded."""
    return tuple(name for name in UNLOAD_ORDER if host.exists(f"/sys/module/{name}"))


def unload(host: Host) -> None:
    """Unload all of the driver's modules.

    Raises:
        DriverError: GPU_IN_USE with the processes that use a GPU, or REBOOT_REQUIRED where something else holds it.
    """
    for name in loaded(host):
        done = host.run(["rmmod", name], seconds=_SECONDS)
        if host.exists(f"/sys/module/{name}"):
            raise _still_loaded(host, name, done.tail())


def _still_loaded(host: Host, name: str, words: str) -> DriverError:
    users = gpu_users(host)
    if users:
        return DriverError(Reason.GPU_IN_USE, f"module {name} cannot be unloaded: {words}", users=users)
    count = (host.read(f"/sys/module/{name}/refcnt") or "unknown").strip()
    holders = ", ".join(host.names(f"/sys/module/{name}/holders")) or "no module"
    seen = f"no process uses a GPU, the reference count is {count}, held by {holders}"
    return DriverError(Reason.REBOOT_REQUIRED, f"module {name} cannot be unloaded ({words}); {seen}")


def built(host: Host, kernel: str) -> bool:
    """Say whether there is a module of the driver for a kernel."""
    found = host.path(f"/lib/modules/{kernel}").rglob("nvidia*.ko*")
    return any(_MODULE.fullmatch(file.name) and not _PARTS.search(file.name) for file in found)


def load(host: Host, kernel: str, again: Sequence[str] = ()) -> None:
    """Load what a benchmark needs, and what was loaded before and is still there; then make the device files.

    Args:
        host: where.
        kernel: release of the running kernel.
        again: modules that were loaded before.

    Raises:
        DriverError: with the reason that modprobe's words tell.
    """
    if not built(host, kernel):
        raise _unbuilt(host, kernel)
    for name in LOADED:
        done = host.run(["modprobe", name], seconds=_SECONDS)
        if not done.ok:
            raise DriverError(_reason(host, kernel, done.output), f"modprobe {name} failed: {done.tail()}")
    for name in reversed(UNLOAD_ORDER):
        if name in again and name not in LOADED and not host.run(["modprobe", name], seconds=_SECONDS).ok:
            host.say(f"module {name} was loaded before and cannot be loaded again: the driver does not need it")
    if host.has("nvidia-modprobe"):
        minors = [word for index, _ in enumerate(host.names("/proc/driver/nvidia/gpus")) for word in ("-c", str(index))]
        host.run(["nvidia-modprobe", "-u", *minors], seconds=_SECONDS)


def _reason(host: Host, kernel: str, output: str) -> Reason:
    if _UNSIGNED.search(output):
        return Reason.SECURE_BOOT
    if _NO_FILE.search(output):
        return _unbuilt(host, kernel).reason
    return Reason.MODULE_LOAD_FAILED


def _unbuilt(host: Host, kernel: str) -> DriverError:
    """Return the error for a kernel without a module: it could not be built, or the packages are for another kernel."""
    others = [name for name in host.names("/lib/modules") if name != kernel and built(host, name)]
    seen = f"there is no nvidia module for the running kernel {kernel}"
    if others:
        seen += f", only for {', '.join(others)}"
    if not host.exists(f"/lib/modules/{kernel}/build"):
        return DriverError(Reason.HEADERS_MISSING, seen)
    if others:
        return DriverError(Reason.REBOOT_REQUIRED, seen)
    # Headers are there, so to ask for them would mislead: the compiler, or a kernel too new for this driver.
    return DriverError(Reason.INSTALL_FAILED, f"{seen}, though its headers are there: see make.log under /var/lib/dkms")
