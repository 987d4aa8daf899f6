"""What a driver pod says about its node: the reasons, what to do about each, and the report itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from mlperf_operator.models import Lenient

MANAGED_HERE, MANAGED_BY_HOST = "mlperf-operator", "host"
"""NodeReport.managed_by: a driver that a driver pod installed, and one that was there before."""

MAX_MESSAGE = 1500
"""Longest message in bytes: the whole report must fit a termination message of 4,096."""


class Reason(StrEnum):
    """Why a node is, or is not, as it should be."""

    MATCHED = "Matched"
    # Nothing was touched.
    UNSUPPORTED_OS = "UnsupportedOS"
    NO_GPU = "NoGPU"
    DRIVER_PRESENT = "DriverPresent"
    GPU_IN_USE = "GPUInUse"
    NODE_LOCKED = "NodeLocked"
    NOUVEAU_LOADED = "NouveauLoaded"
    SECURE_BOOT = "SecureBootModuleUnsigned"
    HEADERS_MISSING = "KernelHeadersMissing"
    DISK_FULL = "DiskFull"
    REPOSITORY_UNREACHABLE = "RepositoryUnreachable"
    PACKAGES_NOT_FOUND = "PackagesNotFound"
    PACKAGE_HELD = "PackageHeld"
    PACKAGE_MANAGER_BROKEN = "PackageManagerBroken"
    PACKAGE_MANAGER_BUSY = "PackageManagerBusy"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    # Something was changed.
    INSTALL_FAILED = "InstallFailed"
    MODULE_LOAD_FAILED = "ModuleLoadFailed"
    REBOOT_REQUIRED = "RebootRequired"
    TOOLKIT_FAILED = "ToolkitFailed"
    INTERRUPTED = "Interrupted"
    # The driver as it is now.
    DRIVER_NOT_LOADED = "DriverNotLoaded"
    DRIVER_MISMATCH = "DriverMismatch"
    SMI_FAILED = "NvidiaSmiFailed"
    GPU_MISSING = "GPUMissing"
    FABRIC_MANAGER_MISSING = "FabricManagerMissing"
    FABRIC_MANAGER_MISMATCH = "FabricManagerMismatch"
    FABRIC_MANAGER_FAILED = "FabricManagerFailed"
    FABRIC_NOT_READY = "FabricNotReady"
    TOOLKIT_MISSING = "ToolkitMissing"


REMEDIES: dict[Reason, str] = {
    Reason.MATCHED: "nothing to do",
    Reason.UNSUPPORTED_OS: "add a source for this system to the driver's catalogue entry",
    Reason.NO_GPU: "take the opt-in label off this node, or see whether its GPUs are on the PCI bus (lspci -d 10de:)",
    Reason.DRIVER_PRESENT: "label the node mlperf.dev/driver-opt-in=adopt to have it replaced, or verify to keep it",
    Reason.GPU_IN_USE: "end what uses the GPUs, or let the operator evict GPU pods (chart value driver.evictGpuPods)",
    Reason.NODE_LOCKED: "wait: another agent is at work on this node; it is tried again",
    Reason.NOUVEAU_LOADED: "blacklist nouveau (/etc/modprobe.d), rebuild the initramfs and reboot the node",
    Reason.SECURE_BOOT: "use packages with a signed module (signedModule in the catalogue), enroll the key, or turn "
    "Secure Boot off",
    Reason.HEADERS_MISSING: "install the headers of the running kernel, or reboot into the kernel that has them",
    Reason.DISK_FULL: "free space on the node",
    Reason.REPOSITORY_UNREACHABLE: "see whether the node reaches the repository; with no internet set driver.mirrors",
    Reason.PACKAGES_NOT_FOUND: "correct the versions in the catalogue, or use a repository that keeps old versions",
    Reason.PACKAGE_HELD: "release the hold if it may change: apt-mark unhold, dnf versionlock delete or "
    "zypper removelock",
    Reason.PACKAGE_MANAGER_BROKEN: "repair it on the node: dpkg --configure -a, apt-get -f install, or rpm --rebuilddb",
    Reason.PACKAGE_MANAGER_BUSY: "wait for the other package manager, such as unattended-upgrades; it is tried again",
    Reason.CHECKSUM_MISMATCH: "correct sha256 in the catalogue, or the file; it was not run",
    Reason.INSTALL_FAILED: "read /var/log/mlperf-operator/driver.log on the node; it is tried again",
    Reason.MODULE_LOAD_FAILED: "read the kernel's log (dmesg) on the node; it is tried again",
    Reason.REBOOT_REQUIRED: "reboot the node",
    Reason.TOOLKIT_FAILED: "read /var/log/mlperf-operator/driver.log on the node; it is tried again",
    Reason.INTERRUPTED: "nothing: the next attempt goes on from here",
    Reason.DRIVER_NOT_LOADED: "load it (modprobe nvidia), or let the operator install one",
    Reason.DRIVER_MISMATCH: "set driver.version to what the node has, or let the operator install what is wanted",
    Reason.SMI_FAILED: "read what it says, and the kernel's log (dmesg) on the node",
    Reason.GPU_MISSING: "a GPU fell off the bus or failed: see the Xid messages in dmesg, reboot or replace",
    Reason.FABRIC_MANAGER_MISSING: "install the fabric manager of exactly the driver's version",
    Reason.FABRIC_MANAGER_MISMATCH: "install the fabric manager of exactly the driver's version",
    Reason.FABRIC_MANAGER_FAILED: "read its log on the node: journalctl -u nvidia-fabricmanager",
    Reason.FABRIC_NOT_READY: "restart the fabric manager; if a link stays down, see dmesg for SXid messages",
    Reason.TOOLKIT_MISSING: "install NVIDIA Container Toolkit and configure containerd, or add it to the catalogue",
}
"""What to do next, by reason; docs/driver.md explains each."""

ShortMessage = Annotated[str, StringConstraints(max_length=MAX_MESSAGE)]


class GpuUser(Lenient):
    """A process that has a GPU open."""

    pid: int
    command: str
    pod_uid: str | None = None
    """The pod that it belongs to, by its cgroup."""


class NodeReport(Lenient):
    """What a driver pod found or did. The init container's termination message, and each line of the main one's log."""

    ready: bool = Field(description="Whether everything matches.")
    reason: str = Field(description="A Reason.")
    message: ShortMessage = Field(default="", description="What is so, and what to do next.")
    changed: bool = Field(default=False, description="Whether the host was changed.")
    driver: str | None = Field(default=None, description="Version of the loaded kernel module.")
    fabric_manager: str | None = Field(default=None, description="Version of the fabric manager, where NVSwitch is.")
    gpus: int = Field(default=0, description="NVIDIA GPUs on the PCI bus.")
    product: str | None = Field(default=None, description="Name of the GPUs.")
    managed_by: str | None = Field(default=None, description="mlperf-operator, or host where it was there before.")
    users: tuple[GpuUser, ...] = Field(default=(), description="With GPUInUse: who.")


def encode(report: NodeReport) -> str:
    """Return the report as one line of JSON of at most 4,096 bytes."""
    return report.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=False)
