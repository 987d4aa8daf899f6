"""What a run needs of its container and node, looked at before anything is downloaded.

Standard-library Python 3.10. Every finding is one sentence; no finding means that the run can go on.
Usage: python3 preflight.py CHECKS, as JSON; prints a line for each finding, then one with what it saw of driver and
GPUs, and ends with 1 when there is a finding.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:
    # In the run's pod.
    import as_package  # type: ignore[import-not-found]  # noqa: F401

from mlperf_operator.agent.wrapper.telling import FACTS, FINDING

_MODE, _ERRORS = "ecc.mode.current", "ecc.errors.uncorrected.volatile.total"
_COLUMNS = (
    *("index", "name", "driver_version", "mig.mode.current", "compute_mode"),
    *(_MODE, _ERRORS, "power.limit", "power.default_limit"),
)
_SMI = ["nvidia-smi", f"--query-gpu={','.join(_COLUMNS)}", "--format=csv,noheader,nounits"]
_PROBE = [sys.executable, __file__, "cuda"]
_GPU_SECONDS = 120
"""Time for nvidia-smi and CUDA together: without persistence mode the driver wakes each GPU first."""

_END_SECONDS = 2
"""Time for a killed program to end; one that the driver holds never does."""

_ABSENT = 127
"""Exit code, the shell's, for a program or library that is not there."""

_KERNEL_DRIVER = Path("/proc/driver/nvidia/version")
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_SMI_ADVICE = {
    "Driver/library version mismatch": "the node's driver was changed under its loaded module: load the new module, or "
    "reboot the node",
    "communicate with the NVIDIA driver": "load the driver on the node: modprobe nvidia",
    "determine the device handle": "the GPU failed or fell off the bus: see the Xid messages in the node's dmesg, then "
    "reset or replace it",
    "No devices were found": "the container was given no GPU, or none of them works: see the node's dmesg",
}
"""What to do about nvidia-smi's own words."""

_CUDA_MEANING = {
    "2": "out of memory: another process uses the GPU",
    "46": "another process has the GPU for itself",
    "100": "no GPU: the container was given none, or none of them works",
    "214": "uncorrectable ECC error: reset or replace the GPU",
    "802": "system not ready: the fabric manager is not running or not of the driver's version",
    "803": "libcuda.so.1 in the container is not of the version of the driver in the kernel",
    "804": "the image's CUDA compatibility libraries do not fit this driver or GPU",
    "999": "unknown: see whether the node has the module nvidia_uvm loaded",
}
"""CUresult of cuda.h in words that help."""


def look(checks: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return what is wrong, all of it, and what was seen: the driver's version, the GPUs' product and count.

    Among what was seen is how many findings are about driver and GPUs: the others say nothing about these.
    """
    found = [f"the image has no {tool}" for tool in checks.get("tools", ()) if shutil.which(tool) is None]
    for volume in checks.get("volumes", ()):
        found += volume_findings(Path(volume["path"]), int(volume.get("minFreeBytes", 0)), volume.get("holds", ()))
    found += offline_findings(checks.get("offline") or {})
    found += shm_findings(int(checks.get("shmBytes", 0)))
    gpu = checks.get("gpu")
    if gpu is None:
        return found, {}
    more, facts = look_at_gpus(gpu)
    return found + memlock_findings() + more, {**facts, "gpuFindings": len(more)}


def volume_findings(folder: Path, min_free: int, holds: Iterable[str] = ()) -> list[str]:
    """Return what a volume cannot do that the harness needs: writing, links, renames, programs, locks, space.

    What earlier runs left in the folders `holds` need not be made again, and counts as free.
    """
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
    if free >= min_free:
        return found
    ready = sum(_size(folder / name) for name in holds)
    if free + ready < min_free:
        beside = f", beside {ready / 2**30:.1f} GiB of earlier runs," if ready else ""
        found.append(f"{folder} has {free / 2**30:.1f} GiB free{beside} and needs {min_free / 2**30:.1f} GiB")
    return found


def _size(folder: Path) -> int:
    """Return the bytes of the files below a folder, as far as they take up space."""
    paths = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sum(_blocks(path) for path in paths)


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        # Another run may tidy up meanwhile.
        return 0


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


def offline_findings(wanted: dict[str, Any]) -> list[str]:
    """Return which git repositories and files are missing that an offline run has instead of the network."""
    repositories = [path for path in wanted.get("repositories", ()) if not _is_repository(Path(path))]
    files = [pattern for pattern in wanted.get("files", ()) if not any(Path("/").glob(pattern.lstrip("/")))]
    missing = [*(f"git repository {path}" for path in repositories), *files]
    return [f"environment.offline is set and there is no {', no '.join(missing)}"] if missing else []


def _is_repository(path: Path) -> bool:
    return any((folder / "HEAD").is_file() and (folder / "objects").is_dir() for folder in (path, path / ".git"))


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


class Answer(NamedTuple):
    """What a program said that was asked about the GPUs."""

    code: int | None
    """Its exit code, negative after a signal; None when it did not end in time."""
    out: str = ""
    err: str = ""


def look_at_gpus(wanted: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return how the container's driver and GPUs differ from what the run wants, and what they are."""
    until = time.monotonic() + _GPU_SECONDS
    smi, cuda = [answer(process, until) for process in [start(argv) for argv in (_SMI, _PROBE)]]
    gpus, _ = smi_rows(smi.out)
    versions = sorted({gpu["driver_version"] for gpu in gpus if _VERSION.fullmatch(gpu["driver_version"])})
    versions = versions or [version for version in [kernel_driver()] if version]
    found = toolkit_findings(smi, cuda) + driver_findings(versions, wanted.get("driver"))
    facts: dict[str, Any] = {"driver": versions[0]} if len(versions) == 1 else {}
    if gpus:
        facts |= {"product": ", ".join(sorted({gpu["name"] for gpu in gpus}))[:96], "count": len(gpus)}
    return found + smi_findings(smi, wanted) + cuda_findings(cuda, wanted), facts


def start(argv: list[str]) -> subprocess.Popen[bytes] | Answer:
    """Start a program, or return that it is not there; CUDA counts the GPUs as nvidia-smi does."""
    environment = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    except OSError as error:
        return Answer(_ABSENT, err=f"{argv[0]}: {error.strerror}")


def answer(process: subprocess.Popen[bytes] | Answer, until: float) -> Answer:
    """Return what a program says until a moment (of time.monotonic); it is killed then."""
    if isinstance(process, Answer):
        return process
    in_time = True
    for seconds in (max(until - time.monotonic(), 1), _END_SECONDS):
        try:
            said = process.communicate(timeout=seconds)
            break
        except subprocess.TimeoutExpired as late:
            said, in_time = (late.output or b"", late.stderr or b""), False
            process.kill()
    out, err = (part.decode(errors="replace") for part in said)
    return Answer(process.returncode if in_time else None, out, err)


def toolkit_findings(smi: Answer, cuda: Answer) -> list[str]:
    """Return what of the driver the container toolkit did not put into the container."""
    missing = {name: said for name, said in (("nvidia-smi", smi), ("libcuda.so.1", cuda)) if said.code == _ABSENT}
    if not missing:
        return []
    remedy = (
        "NVIDIA Container Toolkit did not put the driver into it: see that the node has the toolkit, that containerd "
        "knows its runtime, and that pods get it (default runtime, or the operator's gpuRuntimeClass)"
    )
    if len(missing) == 1:
        needed = "utility" if "nvidia-smi" in missing else "compute"
        remedy = (
            f"NVIDIA_DRIVER_CAPABILITIES of the image must have {needed}, or NVIDIA Container Toolkit leaves it out"
        )
    words = "; ".join(" ".join(said.err.split())[:150] for said in missing.values())
    return [f"the container has no {' and no '.join(missing)} ({words}); {remedy}"]


def kernel_driver() -> str | None:
    """Return the version of the loaded kernel module, None where there is none."""
    if not _KERNEL_DRIVER.is_file():
        return None
    # "NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu ...", "NVIDIA UNIX Open Kernel Module for x86_64  550.54.14 ..."
    found = re.search(rf"Kernel Module(?: for \S+)?\s+({_VERSION.pattern})", _KERNEL_DRIVER.read_text())
    return found[1] if found else None


def driver_findings(versions: list[str], wanted: str | None) -> list[str]:
    """Return whether the driver is not of the wanted branch (550) or version (550.54.14); None wants nothing."""
    found = [f"drivers of several versions are at work: {', '.join(versions)}"] if len(versions) > 1 else []
    if wanted is None:
        return found
    if not versions:
        found.append(
            f"no driver's version is to be seen and the run wants {wanted}; see whether the node has one loaded"
        )
    remedy = "set driver.version to what the node has, or let the operator install it (driver.policy Ensure)"
    wrong = [version for version in versions if not f"{version}.".startswith(f"{wanted}.")]
    return found + [f"the driver is {version} and the run wants {wanted}; {remedy}" for version in wrong]


def smi_rows(text: str) -> tuple[list[dict[str, str]], list[str]]:
    """Return the GPUs of nvidia-smi's CSV by column, and what it said between the rows, such as of a lost GPU."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    gpus = [row for row in rows if len(row) == len(_COLUMNS) and row[0].isdigit()]
    return [dict(zip(_COLUMNS, row, strict=True)) for row in gpus], [", ".join(row) for row in rows if row not in gpus]


def smi_findings(smi: Answer, wanted: dict[str, Any]) -> list[str]:
    """Return what nvidia-smi finds wrong, and what of the GPUs in its answer is."""
    gpus, remarks = smi_rows(smi.out)
    if smi.code is None:
        found = [f"nvidia-smi does not answer within {_GPU_SECONDS:g} s; see the Xid messages in the node's dmesg"]
    elif smi.code:
        why = " ".join(" ".join([*remarks, smi.err]).split())
        found = [] if smi.code == _ABSENT else [f"nvidia-smi ended with {smi.code}: {why[:200]}{_advice(why)}"]
    else:
        found = [f"nvidia-smi says: {remark[:200]}{_advice(remark)}" for remark in remarks]
    if len(gpus) != wanted["count"] and (gpus or smi.code == 0):
        found.append(f"{len(gpus)} GPUs are visible and the system has {wanted['count']}")
    names = sorted({gpu["name"] for gpu in gpus})
    if len(names) > 1:
        found.append(f"the GPUs are of different products: {', '.join(names)}")
    problems = ((gpu["index"], text) for gpu in gpus for text in _problems(gpu, wanted.get("product")))
    return found + _by_gpu(problems)


def _advice(words: str) -> str:
    return next((f"; {advice}" for part, advice in _SMI_ADVICE.items() if part in words), "")


def _problems(gpu: dict[str, str], product: str | None) -> list[str]:
    # "[N/A]" and "[Not Supported]" where the driver or the GPU does not know.
    told = {column: value for column, value in gpu.items() if not value.startswith("[")}
    limit, default = _number(told.get("power.limit")), _number(told.get("power.default_limit"))
    errors, mode = _number(told.get(_ERRORS)), told.get("compute_mode", "Default")
    found = []
    if product and product not in gpu["name"]:
        found.append(f"is {gpu['name']} and the system has {product}")
    if told.get("mig.mode.current") == "Enabled":
        found.append("MIG is on; turn it off with nvidia-smi -mig 0")
    if mode != "Default":
        found.append(f"its compute mode is {mode}; nvidia-smi -c DEFAULT sets it back")
    if told.get(_MODE) == "Disabled":
        found.append("ECC is off, and MLPerf asks for it in datacenter systems; nvidia-smi -e 1 and a reset turn it on")
    if errors:
        found.append(f"has {errors:g} uncorrectable ECC errors; reset or replace it")
    if limit is not None and default is not None and limit != default:
        found.append(f"is limited to {limit:g} W and its default is {default:g} W; nvidia-smi -pl {default:g} sets it")
    return found


def _number(cell: str | None) -> float | None:
    return float(cell) if cell and re.fullmatch(r"[0-9]+(\.[0-9]+)?", cell) else None


def _by_gpu(problems: Iterable[tuple[str, str]]) -> list[str]:
    # What eight GPUs share is told once: a termination message has little room.
    gpus: dict[str, list[str]] = {}
    for index, text in problems:
        gpus.setdefault(text, []).append(index)
    return [f"GPU {', '.join(indexes)}: {text}" for text, indexes in gpus.items()]


def probe() -> int:
    """Make a CUDA context on every GPU, the one proof of a working fabric manager on A100, and print what CUDA says.

    In a process of its own: a call may never return, and only what was printed before tells which.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        print(error, file=sys.stderr)
        return _ABSENT
    code = cuda.cuInit(0)
    print("cuInit", code, flush=True)
    count = ctypes.c_int()
    if code == 0:
        cuda.cuDeviceGetCount(ctypes.byref(count))
        print("GPUs", count.value, flush=True)
    for index in range(count.value):
        device, context = ctypes.c_int(), ctypes.c_void_p()
        code = cuda.cuDeviceGet(ctypes.byref(device), index) or cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device)
        code = code or cuda.cuCtxDestroy_v2(context)
        print("GPU", index, code, flush=True)
    return 0


def cuda_findings(cuda: Answer, wanted: dict[str, Any]) -> list[str]:
    """Return whether CUDA does not work on every GPU, from what `probe` printed."""
    if cuda.code == _ABSENT:
        return []
    said = dict(re.findall(r"^(cuInit|GPUs|GPU \d+) (\d+)$", cuda.out, re.MULTILINE))
    codes = {name[4:]: code for name, code in said.items() if name.startswith("GPU ")}
    found = []
    if said.get("cuInit", "0") != "0":
        return [f"CUDA cannot be initialised: cuInit says {_meaning(said['cuInit'])}"]
    if said.get("GPUs") != str(len(codes)):
        how = f"does not answer within {_GPU_SECONDS:g} s"
        if cuda.code is not None:
            how = f"ended the probe with {cuda.code} {cuda.err.strip()[-150:]}".strip()
        where = f"GPU {len(codes)}, those after it were not tried" if "GPUs" in said else "cuInit, no GPU was tried"
        found.append(f"CUDA {how} at {where}; see the Xid messages in the node's dmesg")
    elif len(codes) != wanted["count"]:
        found.append(f"CUDA sees {len(codes)} GPUs and the system has {wanted['count']}")
    return found + _by_gpu(
        (gpu, f"no CUDA context: error {_meaning(code)}") for gpu, code in codes.items() if code != "0"
    )


def _meaning(code: str) -> str:
    return f"{code}, {_CUDA_MEANING[code]}" if code in _CUDA_MEANING else code


def main(argv: list[str]) -> int:
    """Print what is wrong and what was seen, and say by the exit code whether something is wrong."""
    if argv == _PROBE[2:]:
        return probe()
    found, facts = look(json.loads(argv[0]))
    for finding in found:
        # A finding is one line, whatever the system's texts in it hold.
        print(FINDING + " ".join(finding.split()), flush=True)
    if facts:
        # At the end, where stage.py still remembers it behind however many findings.
        print(FACTS + json.dumps(facts), flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
