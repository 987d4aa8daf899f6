"""Systems that the tree knows, and which of them this machine is."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from standin.faults import faults

_SMI = ("nvidia-smi", "--query-gpu=name,power.limit,mig.mode.current", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class SystemConfiguration:
    """A class of machines.

    Attributes:
        system_id: Name in folders of results.
        product: GPUs by nvidia-smi's name.
        count: How many.
        power_limit: Their limit in W; a machine whose GPUs are capped is another one.
    """

    system_id: str
    product: str
    count: int
    power_limit: float = 400.0


def _systems() -> dict[str, SystemConfiguration]:
    found = {
        f"{name}x{count}": SystemConfiguration(f"DGX-A100_{gpu}x{count}", f"NVIDIA {product}", count)
        for name, gpu, product in (
            ("A100_SXM4_40GB", "A100-SXM4-40GB", "A100-SXM4-40GB"),
            ("A100_SXM_80GB", "A100-SXM-80GB", "A100-SXM4-80GB"),
        )
        for count in (1, 8)
    }
    return found | _custom_systems()


def _custom_systems() -> dict[str, SystemConfiguration]:
    """Return the systems of the override folder, whose list must be there."""
    folder = os.environ.get("MLPINF_CUSTOM_DEFINITION_PATH")
    if folder is None:
        return {}
    if not Path(folder).exists():
        raise FileNotFoundError(f"MLPINF_CUSTOM_DEFINITION_PATH {folder} does not exist.")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found: dict[str, SystemConfiguration] = importlib.import_module("custom_systems.custom_list").custom_systems
    return found


KnownSystem = Enum("KnownSystem", _systems())  # type: ignore[misc]  # The names are known only here.
System = Enum


def detected(pair: str) -> SystemConfiguration:
    """Return what this machine is, by nvidia-smi alone; `pair` is for whom its GPUs may seem capped."""
    answer = subprocess.run(_SMI, capture_output=True, text=True, check=False).stdout
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    if not rows:
        return SystemConfiguration("", "no GPU", 0)
    name, limit, mig = rows[0]
    limit = "250.00" if "capped" in faults(f"{pair}/system") else limit
    return SystemConfiguration("", name if mig == "Disabled" else f"{name} MIG", len(rows), float(limit))


def matched(machine: SystemConfiguration) -> System | None:
    """Return the known system that a machine is."""
    for known in KnownSystem:
        system = known.value
        if (system.product, system.count, system.power_limit) == (machine.product, machine.count, machine.power_limit):
            return known
    return None
