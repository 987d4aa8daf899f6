"""What is known of a host: plain data, gathered by look.py, judged by judge.py and prechecks.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlperf_operator.driver_report import GpuUser


@dataclass(frozen=True)
class Os:
    """The host's system, from /etc/os-release."""

    id: str
    version: str

    def fits(self, names: tuple[str, ...]) -> bool:
        """Say whether one of these names means this system: `ubuntu`, or `ubuntu 22.04`."""
        return any(name in (self.id, f"{self.id} {self.version}") for name in names)

    def __str__(self) -> str:
        return f"{self.id} {self.version}".strip()


@dataclass(frozen=True)
class SmiGpu:
    """One row of nvidia-smi."""

    name: str
    mig: str
    power_limit: float | None
    """Watts; None where it is not told."""
    default_power_limit: float | None
    fabric_state: str
    """Completed, In Progress, N/A ...; N/A is normal before Hopper."""
    index: int = 0
    """What `nvidia-smi -i` takes."""


@dataclass(frozen=True)
class Smi:
    """What nvidia-smi said."""

    driver: str | None = None
    gpus: tuple[SmiGpu, ...] = ()
    error: str = ""
    """Why there is no answer, or what stood between the rows."""


@dataclass(frozen=True)
class FabricManager:
    """The fabric manager as it is on the host."""

    version: str | None = None
    """What `nv-fabricmanager --version` says; None where it is not installed."""
    active: bool = False
    """Whether its service runs."""
    detail: str = ""
    """Its last words where it does not run."""


@dataclass(frozen=True)
class Facts:
    """A host at one moment."""

    os: Os
    kernel: str
    """Release of the running kernel, as uname -r prints it."""
    loaded: str | None = None
    """Version of the loaded nvidia kernel module, from /proc/driver/nvidia/version."""
    nouveau: bool = False
    gpus: int = 0
    """NVIDIA GPUs on the PCI bus (vendor 10de, class 0300 or 0302)."""
    product: str | None = None
    nvswitches: int = 0
    """NVSwitches: of /proc/driver/nvidia-nvswitch/devices, before the driver is loaded of the PCI bus (10de, 0680)."""
    nvswitches_unseen: int = 0
    """Those of the PCI bus that the loaded driver does not see."""
    smi: Smi | None = None
    """None where it was not asked."""
    fabric_manager: FabricManager = field(default_factory=FabricManager)
    links_down: tuple[str, ...] = ()
    """NVLinks that nvidia-smi nvlink --status calls inactive, such as `GPU 0: Link 3`."""
    secure_boot: bool = False
    headers: bool = False
    """Whether /lib/modules/<kernel>/build leads to a folder."""
    users: tuple[GpuUser, ...] = ()
    """Processes that have a GPU open, monitors such as the device plugin among them."""
    computing: bool = False
    """Whether one of them has /dev/nvidia-uvm open, as every process with a CUDA context does and no monitor."""
    runtime_configured: bool = False
    """Whether containerd knows the runtime `nvidia`, and its program is there."""
    foreign_lock: bool = False
    """Whether a driver container holds /run/nvidia/nvidia-driver.pid, or /run/nvidia/driver is mounted."""


@dataclass(frozen=True)
class Packages:
    """What the package manager knows of the driver's family."""

    installed: Mapping[str, str] = field(default_factory=dict)
    """Version by name: only packages of the driver, its fabric manager and the container toolkit."""
    held: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    """Packages that are half installed or half configured, of any family."""
