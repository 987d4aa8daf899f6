"""What a run needs of its container and node, looked at before anything is downloaded.

Standard-library Python 3.10. Every finding is one sentence; no finding means that the run can go on.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

_QUERY = "name,mig.mode.current,power.limit,power.default_limit"
_CUDA_SYSTEM_NOT_READY = 802


def findings(checks: dict[str, Any]) -> list[str]:
    """Return what is wrong, all of it."""
    found = [f"the image has no {tool}" for tool in checks.get("tools", ()) if shutil.which(tool) is None]
    for volume in checks.get("volumes", ()):
        found += volume_findings(Path(volume["path"]), int(volume.get("minFreeBytes", 0)))
    found += shm_findings(int(checks.get("shmBytes", 0)))
    gpu = checks.get("gpu")
    if gpu is not None:
        found += memlock_findings() + gpu_findings(gpu)
    return found


def volume_findings(folder: Path, min_free: int) -> list[str]:
    """Return what a volume cannot do that the harness needs: writing, links, renames, programs, locks, space."""
    if not folder.is_dir():
        return [f"{folder} is not there"]
    probe = folder / f".mlperf-preflight-{uuid.uuid4().hex}"
    found = []
    try:
        probe.mkdir()
        found += _probe(probe)
    except OSError as error:
        found.append(f"{folder} cannot be written: {error.strerror}")
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if free < min_free:
        found.append(f"{folder} has {free / 2**30:.1f} GiB free and needs {min_free / 2**30:.1f}")
    return found


def _probe(folder: Path) -> list[str]:
    script = folder / "script"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    abilities: list[tuple[str, Callable[[], object]]] = [
        ("symbolic links", lambda: (folder / "link").symlink_to(script)),
        ("renames", lambda: (folder / "link").rename(folder / "renamed")),
        ("programs", lambda: subprocess.run([str(script)], check=True)),
        ("locks", lambda: _lock(script)),
    ]
    return [text for what, act in abilities for text in _inability(folder.parent, what, act)]


def _inability(folder: Path, what: str, act: Callable[[], object]) -> list[str]:
    try:
        act()
    except (OSError, subprocess.SubprocessError) as error:
        return [f"{folder} does not do {what}: {error}"]
    return []


def _lock(path: Path) -> None:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_SHM = "/dev/shm"  # noqa: S108 - the kernel's shared memory, no temporary file


def shm_findings(wanted: int) -> list[str]:
    """Return whether /dev/shm is too small."""
    if not wanted:
        return []
    space = os.statvfs(_SHM)
    size = space.f_blocks * space.f_frsize
    return [f"{_SHM} has {size} bytes and needs {wanted}"] if size < wanted else []


def memlock_findings() -> list[str]:
    """Return whether memory cannot be locked: neither without limit nor by IPC_LOCK (bit 14, capabilities(7))."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return []
    status = Path("/proc/self/status").read_text()
    effective = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    return [] if effective & (1 << 14) else [f"memory lock is limited to {soft} bytes and IPC_LOCK is missing"]


def gpu_findings(wanted: dict[str, Any]) -> list[str]:
    """Return how the container's GPUs differ from the system under test."""
    argv = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return [f"nvidia-smi does not answer: {error}"]
    return smi_findings(answer.stdout, wanted) + cuda_findings()


def smi_findings(text: str, wanted: dict[str, Any]) -> list[str]:
    """Return findings from nvidia-smi's CSV of name, MIG mode, power limit and default power limit (watts)."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    found = []
    if len(rows) != wanted["count"]:
        found.append(f"{len(rows)} GPUs are visible and the system has {wanted['count']}")
    for index, (name, mig, limit, default) in enumerate(rows):
        if wanted.get("product") and wanted["product"] not in name:
            found.append(f"GPU {index} is {name} and the system has {wanted['product']}")
        if mig == "Enabled":
            found.append(f"GPU {index} has MIG on; turn it off with nvidia-smi -mig 0")
        if limit != default:
            found.append(f"GPU {index} is limited to {limit} W, its default is {default} W")
    return found


def cuda_findings() -> list[str]:
    """Return whether a CUDA context cannot be made on every GPU: the one proof of a working fabric manager on A100."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return [f"the CUDA driver library is not in the container: {error}"]
    code = cuda.cuInit(0)
    if code == _CUDA_SYSTEM_NOT_READY:
        return ["CUDA says 802, system not ready: the fabric manager is not running or not of the driver's version"]
    if code:
        return [f"cuInit says {code}"]
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    found = []
    for index in range(count.value):
        context = ctypes.c_void_p()
        code = cuda.cuCtxCreate_v2(ctypes.byref(context), 0, index)
        if code:
            found.append(f"no CUDA context on GPU {index}: error {code}")
        else:
            cuda.cuCtxDestroy_v2(context)
    return found
