"""What shows why a harness did not do its work: the telling lines of a command, the kernel's count, the age of files.

Standard-library Python 3.10, beside stage.py in the run's pod; causes.py turns what is found here into a cause. All of
it comes out of the user's image: lines are searched for fixed words only, which takes time in proportion to them.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path


def _cuda(*numbers: int) -> tuple[str, ...]:
    """Return how the errors of the CUDA runtime are told by TensorRT and by glog's CHECK_EQ (code/harness/*)."""
    told = [f"CUDA initialization failure with error: {number}" for number in numbers]
    checks = [f"{name} ({number} vs. 0)" for name in ("cudaSuccess", "CUDA_SUCCESS") for number in numbers]
    return (*told, *checks)


WORDS: dict[str, tuple[str, ...]] = {
    "NoRegisteredConfig": ("No registered config for",),
    "SystemNotMatched": ("did not match any known systems", "is a deprecated system"),
    "FabricManager": (
        *("system not yet initialized", "SystemNotReady", "SYSTEM_NOT_READY", "CUDA error 802", "error code 802"),
        *_cuda(802),
    ),
    "Driver": (
        *("requires NVIDIA Driver Version", "driver version is insufficient", "InsufficientDriver"),
        *("Driver/library version mismatch", "SYSTEM_DRIVER_MISMATCH", "forward compatibility was attempted"),
        *("no CUDA-capable device", "communicate with the NVIDIA driver", "Failed to initialize NVML"),
        *("GPU is lost", "fallen off the bus", *_cuda(35, 100, 803, 804)),
    ),
    "ScratchFull": ("No space left on device", "Disk quota exceeded"),
    "OutOfMemory": (
        *("out of memory", "MemoryAllocation", "OUT_OF_MEMORY", "OutOfMemory", "std::bad_alloc"),
        *("Cannot allocate memory", "MemoryError", "Bus error", *_cuda(2)),
    ),
    "Killed": ("Killed", "SIGKILL", "] Error 137"),
}
"""What lines say by the cause that they show, the most telling cause first: a killed compiler also fails a build.

From NVIDIA's v4.1 tree (code/main.py, code/common/systems, Makefile.const), TensorRT, CUDA, make and the kernel.
"""


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, words)))


FULL = _any_of(WORDS["ScratchFull"])
PATTERNS = {cause: _any_of(words) for cause, words in WORDS.items()}
TELLING = _any_of(word for words in WORDS.values() for word in words)
"""Lines that show a cause, although the harness may exit 0."""

COMPLAINT = re.compile(
    r"^[A-Za-z_.]{1,80}(?:Error|Exception): |\[TRT\] \[E\]|Check failed:|Segmentation fault|Building engines failed!"
)
"""Lines that say less, told where no other says more: the end of a Python traceback, TensorRT's and glog's errors."""

MAX_LINES = 12
_MAX_CHARACTERS = 300
_CONTEXT = 100

_COUNTS = ("memory.events", "memory/memory.oom_control")
"""Of cgroup v2 and v1, with a line `oom_kill N`."""


def shown(line: str) -> str:
    """Return the part of a line that tells: some lines describe the whole system."""
    found = TELLING.search(line) or COMPLAINT.search(line)
    start = max(0, found.start() - _CONTEXT) if found else 0
    return line[start : start + _MAX_CHARACTERS]


def most_telling(lines: Iterable[str]) -> list[str]:
    """Return the last lines that tell why; complaints where no line tells more."""
    given = list(lines)
    best = [line for line in given if TELLING.search(line)] or [line for line in given if COMPLAINT.search(line)]
    return [shown(line) for line in best[-MAX_LINES:]]


def oom_kills(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processes of this container the kernel killed for lack of memory; 0 where it does not say."""
    for name in _COUNTS:
        with contextlib.suppress(OSError, ValueError):
            lines = (root / name).read_text(encoding="ascii", errors="replace").splitlines()
            counts = dict(line.split(maxsplit=1) for line in lines if " " in line)
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
    return 0


def now_by(folder: Path) -> float:
    """Return the present time by the clock of a folder's file system: volumes have their own."""
    mark = folder / ".now"
    try:
        mark.touch()
        return mark.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            mark.unlink()


def older(files: Iterable[Path], moment: float) -> list[Path]:
    """Return the files that were last changed before a moment, give or take what coarse file systems round off."""
    return [file for file in files if file.stat().st_mtime < moment - _ROUNDING]


_ROUNDING = 2.0


def is_closed(log: Path) -> bool:
    """Say whether a log of answers, a JSON list, was written to its end."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64))
            return file.read().rstrip().endswith(b"]")
    except OSError:
        return False
