"""Looks at a host and changes nothing: files of /proc, /sys and /etc, and the programs that only tell."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from mlperf_operator.agent.driver import parse, services, users
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.facts import FabricManager, Facts, Packages, Smi
from mlperf_operator.agent.driver.host import Done, Host
from mlperf_operator.catalogue import Target
from mlperf_operator.driver_report import Reason

PCI = "/sys/bus/pci/devices"
NVIDIA = "0x10de"
GPU_CLASSES = ("0x0300", "0x0302")
BRIDGE_CLASS = "0x0680"
NVSWITCHES = "/proc/driver/nvidia-nvswitch/devices"
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
LOCK = "/run/nvidia/nvidia-driver.pid"
DRIVER_ROOT = "/run/nvidia/driver"
"""What a driver container mounts its root at."""
CONTAINERD_CONFIG = "/etc/containerd/config.toml"
RUNTIME = "nvidia-container-runtime"
SMI_SECONDS = 120.0


def look(
    host: Host, *, smi: bool = True, containerd_config: str = CONTAINERD_CONFIG, proc: Path = Path("/proc")
) -> Facts:
    """Return what is so on the host.

    Args:
        host: the host.
        smi: whether nvidia-smi is asked, which costs seconds and a benchmark some of its speed.
        containerd_config: containerd's file on the host.
        proc: the processes of the host: this container's own /proc, with hostPID.
    """
    kernel = os.uname().release
    loaded = parse.loaded_version(host.read("/proc/driver/nvidia/version") or "")
    kinds = tuple(pci_classes(host))
    nvswitches = _nvswitches(host, kinds, loaded)
    answer = ask_smi(host) if smi and loaded else None
    links_down: tuple[str, ...] = ()
    if nvswitches and answer is not None and answer.gpus:
        answer, links_down = _links(host, answer)
    found = users.uses(host, proc=proc)
    return Facts(
        os=parse.os_release(host.read("/etc/os-release") or host.read("/usr/lib/os-release") or ""),
        kernel=kernel,
        loaded=loaded,
        nouveau=host.exists("/sys/module/nouveau"),
        gpus=sum(kind in GPU_CLASSES for kind in kinds),
        product=product(host, answer) if smi else None,
        nvswitches=nvswitches,
        nvswitches_unseen=max(_on_bus(kinds) - nvswitches, 0),
        smi=answer,
        fabric_manager=fabric_manager(host) if nvswitches else FabricManager(),
        links_down=links_down,
        secure_boot=_secure_boot(host),
        headers=host.path(f"/lib/modules/{kernel}/build").is_dir(),
        users=tuple(use.user for use in found),
        computing=any(use.computes for use in found),
        runtime_configured=runtime_configured(host, containerd_config),
        foreign_lock=foreign_lock(host, proc),
    )


def look_for(host: Host, target: Target, *, smi: bool = True, proc: Path = Path("/proc")) -> Facts:
    """Return what is so on the host, where containerd's file is the one that the target names."""
    config = target.toolkit.containerd_config if target.toolkit is not None else CONTAINERD_CONFIG
    return look(host, smi=smi, containerd_config=config, proc=proc)


def pci_classes(host: Host) -> Iterator[str]:
    """Yield the class of each NVIDIA device on the PCI bus, such as 0x0302."""
    for slot in host.names(PCI):
        if (host.read(f"{PCI}/{slot}/vendor") or "").strip() == NVIDIA:
            yield (host.read(f"{PCI}/{slot}/class") or "").strip()[: len(BRIDGE_CLASS)]


def _nvswitches(host: Host, kinds: tuple[str, ...], loaded: str | None) -> int:
    if loaded and host.exists(NVSWITCHES):
        return len(host.names(NVSWITCHES))
    return _on_bus(kinds)


def _on_bus(kinds: tuple[str, ...]) -> int:
    return sum(kind == BRIDGE_CLASS for kind in kinds)


def ask_smi(host: Host) -> Smi:
    """Return what nvidia-smi says of every GPU, its fabric state included."""
    query = ["nvidia-smi", f"--query-gpu={parse.SMI_QUERY}", "--format=csv,noheader,nounits"]
    done = host.run(query, seconds=SMI_SECONDS)
    answer = parse.smi(done.output)
    if not done.ok:
        return replace(answer, error=answer.error or f"nvidia-smi ended with {done.code}")
    details = host.run(["nvidia-smi", "-q"], seconds=SMI_SECONDS)
    if not details.ok:
        return replace(answer, error=answer.error or f"nvidia-smi -q ended with {details.code}: {details.tail()}")
    return parse.with_fabric(answer, details.output)


def product(host: Host, answer: Smi | None) -> str | None:
    """Return the name of the GPUs, from nvidia-smi, or before there is a driver from lspci where the host has it."""
    names: tuple[str, ...] = tuple(gpu.name for gpu in answer.gpus) if answer is not None else ()
    if not names and host.has("lspci"):
        names = parse.gpu_names(host.run(["lspci", "-nn", "-d", "10de:"]).output)
    return ", ".join(sorted(set(names)))[:200] or None


def fabric_manager(host: Host) -> FabricManager:
    """Return the fabric manager's version and whether its service runs, with its last words where it does not."""
    if not host.has("nv-fabricmanager"):
        return FabricManager()
    version = parse.fabric_manager_version(host.run(["nv-fabricmanager", "--version"]).output)
    if services.active(host, services.FABRIC_MANAGER):
        return FabricManager(version, active=True)
    return FabricManager(version, active=False, detail=services.last_words(host, services.FABRIC_MANAGER))


def _links(host: Host, answer: Smi) -> tuple[Smi, tuple[str, ...]]:
    """Return the links that are down; where nvidia-smi does not tell, that is its error and no proof of any link."""
    done = host.run(["nvidia-smi", "nvlink", "--status"], seconds=SMI_SECONDS)
    if done.ok:
        return answer, parse.links_down(done.output)
    error = answer.error or f"nvidia-smi nvlink --status ended with {done.code}: {done.tail()}"
    return replace(answer, error=error), ()


def _secure_boot(host: Host) -> bool:
    try:
        return parse.secure_boot(host.path(SECURE_BOOT).read_bytes())
    except OSError:
        # No EFI, or none that tells.
        return False


def foreign_lock(host: Host, proc: Path = Path("/proc")) -> bool:
    """Say whether a driver container has the driver: it locks LOCK and mounts its root at DRIVER_ROOT.

    The lock is looked up in /proc/locks and never tried: who takes it for a moment makes a driver container fail.
    """
    if os.path.ismount(host.path(DRIVER_ROOT)):
        return True
    try:
        found = host.path(LOCK).stat()
    except OSError:
        return False
    # proc_locks(5): "6: FLOCK  ADVISORY  WRITE 5929 fe:00:9978067 0 EOF".
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any(file in line.split() for line in (proc / "locks").read_text().splitlines())


def runtime_configured(host: Host, config: str = CONTAINERD_CONFIG) -> bool:
    """Say whether containerd's file, or one that it imports, has the runtime `nvidia`, and its program is there."""
    programs = [program for document in _documents(host, config) for program in _runtimes(document)]
    # The last file wins (containerd-config.toml(5)).
    return bool(programs) and (host.exists(programs[-1]) if "/" in programs[-1] else host.has(programs[-1]))


def _documents(host: Host, config: str) -> Iterator[dict[str, Any]]:
    document = _toml(host, config)
    yield document
    for pattern in document.get("imports", ()):
        # A relative one begins where the file lies.
        place = PurePosixPath(config).parent / str(pattern)
        for name in host.names(str(place.parent)):
            if fnmatchcase(name, place.name):
                yield _toml(host, str(place.parent / name))


def _toml(host: Host, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(host.read(name) or "")
    except tomllib.TOMLDecodeError:
        # containerd does not start with it: no runtime of it works.
        return {}


def _runtimes(document: dict[str, Any]) -> Iterator[str]:
    # plugins."io.containerd.grpc.v1.cri" of version 2, plugins."io.containerd.cri.v1.runtime" of version 3.
    for plugin in document.get("plugins", {}).values():
        runtime = plugin.get("containerd", {}).get("runtimes", {}).get("nvidia")
        if runtime is not None:
            yield str(runtime.get("options", {}).get("BinaryName") or RUNTIME)


def packages(host: Host, manager: Literal["apt", "dnf", "zypper"]) -> Packages:
    """Return what the host's package manager knows of the driver's family.

    Raises:
        DriverError: PACKAGE_MANAGER_BROKEN when its database cannot be read.
    """
    if manager == "apt":
        found = parse.dpkg_packages(_read(host, parse.DPKG_QUERY).output, _read(host, ("apt-mark", "showhold")).output)
        # apt refuses everything while these are there: dpkg was killed between two packages.
        journal = any(name.isdigit() for name in host.names("/var/lib/dpkg/updates"))
        return replace(found, broken=(*found.broken, "dpkg (interrupted)")) if journal else found
    argv = ("dnf", "-q", "-C", "versionlock", "list") if manager == "dnf" else ("zypper", "-q", "locks")
    # Without the versionlock plugin dnf knows no such command, and nothing is locked.
    locks = host.run(argv)
    return parse.rpm_packages(_read(host, parse.RPM_QUERY).output, locks.output if locks.ok else "")


def _read(host: Host, argv: tuple[str, ...]) -> Done:
    done = host.run(argv)
    if not done.ok:
        raise DriverError(Reason.PACKAGE_MANAGER_BROKEN, f"{' '.join(argv[:2])} ended with {done.code}: {done.tail()}")
    return done
