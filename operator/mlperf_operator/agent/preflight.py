"""What a run needs of its container and node, looked at before anything is downloaded.

Standard-library Python 3.10. Every finding is one sentence; no finding means that the run can go on.
Usage: python3 preflight.py CHECKS, as JSON; prints a line for each finding and ends with 1 when there is one.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

_QUERY = "name,mig.mode.current,power.limit,power.default_limit"
_COLUMNS = len(_QUERY.split(","))
_CUDA_SYSTEM_NOT_READY = 802
_SMI_SECONDS = 120

FINDING = "[preflight] finding: "
"""How a line begins that says what is wrong; stage.py looks for it."""


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
    found: list[str] = []
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
        found.append(f"{folder} has {free / 2**30:.1f} GiB free and needs {min_free / 2**30:.1f} GiB")
    return found


def _probe(folder: Path) -> list[str]:
    script = folder / "script"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    abilities: list[tuple[str, Callable[[], object]]] = [
        ("symbolic links", lambda: (folder / "link").symlink_to(script)),
        ("programs", lambda: subprocess.run([str(script)], check=True, stdin=subprocess.DEVNULL)),
        ("file locks", lambda: _lock(script)),
        ("renames", lambda: script.rename(folder / "renamed")),
    ]
    return [text for what, act in abilities for text in _inability(folder.parent, what, act)]


def _inability(folder: Path, what: str, act: Callable[[], object]) -> list[str]:
    try:
        act()
    except (OSError, subprocess.SubprocessError) as error:
        return [f"{folder} does not do {what}: {getattr(error, 'strerror', None) or error}"]
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
    return [f"{_SHM} has {size / 2**30:.1f} GiB and needs {wanted / 2**30:.1f} GiB"] if size < wanted else []


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
        answer = subprocess.run(argv, check=False, capture_output=True, timeout=_SMI_SECONDS)
    except subprocess.TimeoutExpired:
        return [f"nvidia-smi does not answer within {_SMI_SECONDS} s"]
    except OSError as error:
        return [f"nvidia-smi cannot be started: {error.strerror}"]
    said = answer.stdout.decode(errors="replace")
    if answer.returncode:
        why = " ".join((answer.stderr.decode(errors="replace") or said).split())
        return [f"nvidia-smi ended with {answer.returncode}: {why[:300]}", *cuda_findings(wanted)]
    return smi_findings(said, wanted) + cuda_findings(wanted)


def smi_findings(text: str, wanted: dict[str, Any]) -> list[str]:
    """Return findings from nvidia-smi's CSV of name, MIG mode, power limit and default power limit (watts)."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    # A GPU that fell off the bus, or no GPU at all, is told in a sentence between the rows.
    found = [f"nvidia-smi says: {', '.join(row)[:200]}" for row in rows if len(row) != _COLUMNS]
    gpus = [row for row in rows if len(row) == _COLUMNS]
    if len(gpus) != wanted["count"]:
        found.append(f"{len(gpus)} GPUs are visible and the system has {wanted['count']}")
    for index, (name, mig, limit, default) in enumerate(gpus):
        if wanted.get("product") and wanted["product"] not in name:
            found.append(f"GPU {index} is {name} and the system has {wanted['product']}")
        if mig == "Enabled":
            found.append(f"GPU {index} has MIG on; turn it off with nvidia-smi -mig 0")
        watts, usual = _number(limit), _number(default)
        if watts is not None and usual is not None and watts != usual:
            found.append(f"GPU {index} is limited to {limit} W and its default is {default} W; nvidia-smi -pl sets it")
    return found


def _number(cell: str) -> float | None:
    # "[N/A]" and "[Not Supported]" where the driver or the GPU does not know.
    try:
        return float(cell)
    except ValueError:
        return None


def cuda_findings(wanted: dict[str, Any]) -> list[str]:
    """Return whether a CUDA context cannot be made on every GPU: the one proof of a working fabric manager on A100."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return [f"the CUDA driver library is not in the container: {error}"]
    code = cuda.cuInit(0)
    if code == _CUDA_SYSTEM_NOT_READY:
        return ["CUDA says 802, system not ready: the fabric manager is not running or not of the driver's version"]
    if code:
        return [f"CUDA cannot be initialised: cuInit says {code}"]
    count = ctypes.c_int()
    code = cuda.cuDeviceGetCount(ctypes.byref(count))
    if code or count.value != wanted["count"]:
        return [f"CUDA sees {count.value} GPUs (error {code}) and the system has {wanted['count']}"]
    return [text for index in range(count.value) for text in _context_findings(cuda, index)]


def _context_findings(cuda: ctypes.CDLL, index: int) -> list[str]:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    code = cuda.cuDeviceGet(ctypes.byref(device), index) or cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device)
    if code:
        return [f"no CUDA context can be made on GPU {index}: error {code}"]
    cuda.cuCtxDestroy_v2(context)
    return []


def main(argv: list[str]) -> int:
    """Print what is wrong and say by the exit code whether something is."""
    found = findings(json.loads(argv[0]))
    for finding in found:
        # A finding is one line, whatever the system's texts in it hold.
        print(FINDING + " ".join(finding.split()), flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
