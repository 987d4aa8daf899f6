"""Systems under test: which are known, and which one this machine is."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from harness.constants import HarnessError


@dataclass(frozen=True)
class SystemConfiguration:
    """A class of machines that the harness has configs for.

    Attributes:
        system_id: Name in result folders.
        architectures: Machine types that match, as `uname -m` prints them.
        min_memory_bytes: Least memory of a matching machine.
    """

    system_id: str
    architectures: tuple[str, ...] = ("x86_64", "aarch64")
    min_memory_bytes: int = 512 * 1024**2


class KnownSystem:
    """The known systems as attributes; custom_systems of the override folder are added at import."""

    CPU_REFERENCE = SystemConfiguration("CPU_REFERENCE")


def override_folder() -> Path | None:
    """Return the folder that MLPINF_CUSTOM_DEFINITION_PATH names, None when it is unset.

    Raises:
        HarnessError: the folder does not exist.
    """
    name = os.environ.get("MLPINF_CUSTOM_DEFINITION_PATH", "")
    if not name:
        return None
    if not Path(name).is_dir():
        raise HarnessError(f"MLPINF_CUSTOM_DEFINITION_PATH={name} is not an existing folder")
    return Path(name)


def load_file(name: str, path: Path) -> ModuleType:
    """Import a Python file by its path."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise HarnessError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def register_custom_systems() -> None:
    """Add the override folder's systems to KnownSystem.

    Raises:
        HarnessError: the folder has no custom_systems/custom_list.py with a dict `custom_systems`.
    """
    folder = override_folder()
    if folder is None:
        return
    path = folder / "custom_systems" / "custom_list.py"
    if not path.is_file():
        raise HarnessError(f"{path} is missing: it must define custom_systems, which may be an empty dict")
    systems = getattr(load_file("custom_systems.custom_list", path), "custom_systems", None)
    if not isinstance(systems, dict):
        raise HarnessError(f"{path} must define custom_systems as a dict of name to SystemConfiguration")
    for name, system in systems.items():
        setattr(KnownSystem, name, system)


def known_systems() -> dict[str, SystemConfiguration]:
    """Return every known system by its id."""
    systems = (value for value in vars(KnownSystem).values() if isinstance(value, SystemConfiguration))
    return {system.system_id: system for system in systems}


@dataclass(frozen=True)
class DetectedSystem:
    """What this machine is."""

    architecture: str
    cpu: str
    logical_cpus: int
    memory_bytes: int


def detect() -> DetectedSystem:
    """Describe this machine from the kernel's own files."""
    pages = os.sysconf("SC_PHYS_PAGES")
    return DetectedSystem(
        architecture=platform.machine(),
        cpu=_cpu_model(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
        logical_cpus=len(os.sched_getaffinity(0)),
        memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
    )


def _cpu_model(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return "unknown"


def match(detected: DetectedSystem, name: str | None) -> SystemConfiguration | None:
    """Return the known system that this machine is.

    Args:
        detected: This machine.
        name: A system id to insist on, from --system_name; None takes the first that matches.
    """
    for system in known_systems().values():
        fits = detected.architecture in system.architectures and detected.memory_bytes >= system.min_memory_bytes
        if fits and name in (None, system.system_id):
            return system
    return None
