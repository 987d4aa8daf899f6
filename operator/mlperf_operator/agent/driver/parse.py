"""Pure reading of what a host's tools and files say about packages, GPUs and processes. No file is opened here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from mlperf_operator.agent.driver.facts import Os, Packages, Smi, SmiGpu

_DRIVER_NAMES = (
    # Ubuntu, Debian, and NVIDIA's own apt repository.
    *("nvidia-driver*", "nvidia-dkms-*", "nvidia-kernel-*", "nvidia-open", "nvidia-open-*", "nvidia-headless-*"),
    *("nvidia-utils-*", "nvidia-compute-*", "nvidia-firmware-*", "nvidia-imex*", "nvidia-linux-grid-*"),
    *("nvidia-fabricmanager*", "nvidia-fabric-manager*", "cuda-drivers*", "libnvidia-*", "libnvsdm*"),
    *("xserver-xorg-video-nvidia*", "nvidia-modprobe", "nvidia-persistenced", "nvidia-settings", "nvidia-xconfig"),
    *("linux-modules-nvidia-*", "linux-objects-nvidia-*", "linux-signatures-nvidia-*"),
    *("nvidia-smi", "nvidia-alternative*", "nvidia-vdpau-driver*", "nvidia-*-icd*", "nvidia-*-common"),
    *("libcuda1*", "libcudadebugger1", "libnvcuvid1", "libnvoptix1", "libgl*-nvidia*", "libegl-nvidia*"),
    # RHEL family and SUSE.
    *("kmod-nvidia*", "dkms-nvidia*", "akmod-nvidia*", "nvidia-kmod*", "xorg-x11-*nvidia*", "nvidia-libXNVCtrl*"),
    *("nvidia-gl*-G0?", "nvidia-glG0?", "nvidia-video-G0?", "nvidia-videoG0?", "x11-video-nvidiaG0?"),
    *("nvidia-computeG0?", "nvidia-common-G0?"),
)
_NO_DRIVER_NAMES = (
    # Libraries with versions of their own, a repository as a package, and a tool that only gives advice.
    *("libnvidia-container*", "libnvidia-egl-*", "nvidia-driver-local-repo-*", "nvidia-driver-assistant*"),
)
_TOOLKIT_NAMES = ("nvidia-container-toolkit*", "nvidia-container-runtime*", "libnvidia-container*", "nvidia-docker*")


def is_driver_package(name: str) -> bool:
    """Say whether a package is part of a driver of some branch, fabric manager included: an upgrade replaces it."""
    return _any(_DRIVER_NAMES, name) and not _any(_NO_DRIVER_NAMES, name)


def is_toolkit_package(name: str) -> bool:
    """Say whether a package is part of NVIDIA Container Toolkit."""
    return _any(_TOOLKIT_NAMES, name)


def _any(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


DPKG_QUERY = ("dpkg-query", "-W", "-f", "${db:Status-Abbrev}\\t${Package}\\t${Architecture}\\t${Version}\\n")
"""What dpkg_packages reads: one line a package."""
RPM_QUERY = ("rpm", "-qa", "--qf", "%{NAME}\\t%{ARCH}\\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\\n")
"""What rpm_packages reads: one line a package."""

_DPKG_ABSENT, _DPKG_BROKEN = "nc", "HUF"


def dpkg_packages(status_text: str, hold_text: str) -> Packages:
    """Return the driver's family from dpkg's states (dpkg-query(1), db:Status-Abbrev) and `apt-mark showhold`.

    A package of a foreign architecture is `name:arch`, as apt writes it. One that is unpacked or half configured is
    both installed and broken; one of which only configuration files are left is neither.
    """
    rows = [line.split("\t") for line in status_text.splitlines() if line.count("\t") == 3]
    # dpkg itself is always of the architecture that needs no suffix.
    native = next((architecture for _, name, architecture, _ in rows if name == "dpkg"), "all")
    installed, broken = {}, []
    for state, bare, architecture, version in rows:
        name = bare if architecture in ("all", native) else f"{bare}:{architecture}"
        if state[1:2] in _DPKG_BROKEN or state[2:3] == "R":
            broken.append(name)
        if state[1:2] not in _DPKG_ABSENT and _is_ours(bare):
            installed[name] = version
    held = [name for name in hold_text.split() if _is_ours(name.partition(":")[0])]
    return Packages(installed, tuple(sorted(held)), tuple(sorted(broken)))


def rpm_packages(text: str, locks_text: str) -> Packages:
    """Return the driver's family from RPM_QUERY's lines, and `dnf versionlock list` or `zypper locks`.

    A package of a foreign architecture is `name.arch`. One that is there in two versions, as an interrupted
    transaction leaves it, is broken; only modules for several kernels (kmp) may be.
    """
    rows = [line.split("\t") for line in text.splitlines() if line.count("\t") == 2]
    native = next((architecture for name, architecture, _ in rows if name == "rpm"), "noarch")
    installed: dict[str, str] = {}
    broken = set()
    for bare, architecture, version in rows:
        if not _is_ours(bare):
            continue
        name = bare if architecture in ("noarch", native) else f"{bare}.{architecture}"
        if installed.get(name, version) != version and "-kmp-" not in name:
            broken.add(name)
        installed[name] = version
    locks = tuple(_locks(locks_text))
    held = {name for name in locks if _is_ours(name)} | {name for name in installed if _any(locks, name)}
    return Packages(installed, tuple(sorted(held)), tuple(sorted(broken)))


def _is_ours(name: str) -> bool:
    return is_driver_package(name) or is_toolkit_package(name)


_DNF5_LOCK = re.compile(r"Package name: (\S+)")
_ZYPPER_LOCK = re.compile(r"\d+\s*\|\s*(\S+)\s*\|\s*package\b")
_DNF4_LOCK = re.compile(r"(?:\d+:)?([^!\s]\S*)-(?:\d+:)?[^-:\s]+-[^-:\s]+")


def _locks(text: str) -> Iterator[str]:
    for line in map(str.strip, text.splitlines()):
        match = _DNF5_LOCK.match(line) or _ZYPPER_LOCK.match(line) or _DNF4_LOCK.fullmatch(line)
        if match:
            yield match[1]


def os_release(text: str) -> Os:
    """Return ID and VERSION_ID of /etc/os-release (os-release(5)); empty where they are not told."""
    told = dict(line.strip().partition("=")[::2] for line in text.splitlines())
    return Os(*(told.get(key, "").strip("\"'") for key in ("ID", "VERSION_ID")))


_LOADED = re.compile(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)(?:\s|$)", re.MULTILINE)


def loaded_version(text: str) -> str | None:
    """Return the module's version from /proc/driver/nvidia/version, of the proprietary or the open module."""
    match = _LOADED.search(text)
    return match[1] if match else None


_FABRIC_MANAGER = re.compile(r"Fabric Manager version is\s*:\s*(\S+)", re.IGNORECASE)


def fabric_manager_version(text: str) -> str | None:
    """Return what `nv-fabricmanager --version` says."""
    match = _FABRIC_MANAGER.search(text)
    return match[1] if match else None


SMI_QUERY = "index,driver_version,name,mig.mode.current,power.limit,power.default_limit"
"""Columns that old drivers have, too. fabric.state is none: they refuse the whole query for it. See with_fabric."""
_SMI_COLUMNS = len(SMI_QUERY.split(","))


def smi(text: str) -> Smi:
    """Return what `nvidia-smi --query-gpu=SMI_QUERY --format=csv,noheader,nounits` said.

    A GPU that is lost, or no GPU at all, is told in a sentence between the rows: it becomes the error.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    gpus = [row for row in rows if len(row) == _SMI_COLUMNS and row[0].isdigit()]
    said = " ".join(", ".join(row) for row in rows if row not in gpus)
    return Smi(
        driver=gpus[0][1] if gpus else None,
        gpus=tuple(
            SmiGpu(name, mig, _number(limit), _number(default), "N/A", index=int(index))
            for index, _, name, mig, limit, default in gpus
        ),
        error=said[:500],
    )


def _number(cell: str) -> float | None:
    # "[N/A]" and "[Not Supported]" where the driver or the GPU does not know.
    try:
        return float(cell)
    except ValueError:
        return None


def with_fabric(answer: Smi, text: str) -> Smi:
    """Return nvidia-smi's answer with the fabric states of `nvidia-smi -q`, whose GPUs stand in the same order.

    The state counts only with its status: Completed with another status than Success is a failed registration
    (NVML's nvmlGpuFabricInfo_t). Drivers older than Hopper have no such section there.
    """
    sections = re.split(r"^GPU [0-9A-Fa-f]{4,8}:", text, flags=re.MULTILINE)[1:]
    if len(sections) != len(answer.gpus):
        # Between two questions a GPU was lost: no state can be told.
        said = f"nvidia-smi -q shows {len(sections)} GPUs and --query-gpu {len(answer.gpus)}"
        return replace(answer, error=answer.error or said)
    states = [_fabric_state(section) for section in sections]
    gpus = [replace(gpu, fabric_state=state) for gpu, state in zip(answer.gpus, states, strict=True)]
    return replace(answer, gpus=tuple(gpus))


_FABRIC = re.compile(r"^    Fabric\n        State +: (?P<state>.+)\n        Status +: (?P<status>.+)$", re.MULTILINE)


def _fabric_state(section: str) -> str:
    match = _FABRIC.search(section)
    if match is None:
        return "N/A"
    state, status = match["state"].strip(), match["status"].strip()
    return f"{state} ({status})" if state == "Completed" and status != "Success" else state


_LINK = re.compile(r"\s+Link (\d+): (.+)")


def links_down(text: str) -> tuple[str, ...]:
    """Return the NVLinks that `nvidia-smi nvlink --status` does not call up, such as `GPU 0: Link 3`.

    A link that is down is `<inactive>`, or missing while another GPU has it, or told for all of a GPU in a sentence.
    """
    up: dict[int, set[int]] = {}
    known: set[int] = set()
    links: set[int] = set()
    for line in text.splitlines():
        if match := re.match(r"GPU (\d+):", line):
            links = up[int(match[1])] = set()
        elif match := _LINK.match(line):
            known.add(int(match[1]))
            if "inactive" not in match[2].lower():
                links.add(int(match[1]))
    return tuple(down for index, active in up.items() for down in _down(index, known, active))


def _down(gpu: int, known: set[int], links: set[int]) -> list[str]:
    return [f"GPU {gpu}: Link {link}" for link in sorted(known - links)] if links else [f"GPU {gpu}: every link"]


_PCI_NAME = re.compile(r"\S+ [^:\[]+\[(\w{4})\]: (?:NVIDIA Corporation )?(.+?) \[10de:\w{4}\]")
_GPU_CLASSES = ("0300", "0302")


def gpu_names(text: str) -> tuple[str, ...]:
    """Return the names of the GPUs in `lspci -nn`, in order: `GA100 [A100 SXM4 40GB]`, or `Device` of an old list."""
    found = (_PCI_NAME.match(line) for line in text.splitlines())
    return tuple(match[2] for match in found if match and match[1] in _GPU_CLASSES)


def secure_boot(variable: bytes) -> bool:
    """Say whether the EFI variable SecureBoot, as efivarfs shows it, is on: four bytes of attributes, one of value."""
    return variable[4:5] == b"\x01"


_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?![0-9a-f])")


def pod_uid(cgroup: str) -> str | None:
    """Return the pod's uid in /proc/PID/cgroup, None where the process is in no pod.

    The kubelet's group is kubepods[/QOS]/pod<uid> with cgroupfs and kubepods-QOS-pod<uid with _>.slice with systemd,
    whatever the runtime puts below; static pods have a hash without dashes.
    """
    match = _POD.search(cgroup)
    return match[1].replace("_", "-") if match else None
