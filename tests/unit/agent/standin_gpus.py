"""GPUs that are not there: an nvidia-smi that prints what it is told, and a CUDA driver library with given answers.

`sitecustomize` puts the library into every Python that a test starts, so that preflight.py itself needs no change.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shlex
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

A100 = {"product": "A100-SXM4-40GB", "count": 2, "driver": "550"}
"""What a run wants of them."""

HEALTHY = {
    "index": "0",
    "name": "NVIDIA A100-SXM4-40GB",
    "driver": "550.54.14",
    "mig": "Disabled",
    "mode": "Default",
    "ecc": "Enabled",
    "errors": "0",
    "limit": "400.00",
    "default": "400.00",
}
"""A row of nvidia-smi in the order of preflight's query."""


def row(index: int = 0, **changes: str) -> str:
    """Return a GPU as nvidia-smi prints it, with some cells changed."""
    return ", ".join({**HEALTHY, "index": str(index), **changes}.values()) + "\n"


def rows(count: int = 2, **changes: str) -> str:
    """Return that many equal GPUs."""
    return "".join(row(index, **changes) for index in range(count))


class Cuda:
    """The calls that preflight makes, with the given codes; a GPU may be silent, or crash the process."""

    def __init__(
        self,
        init: int = 0,
        count: int = 2,
        codes: Mapping[int, int] | None = None,
        silent: int | None = None,
        crash: int | None = None,
    ) -> None:
        self.init, self.count, self.codes, self.silent, self.crash = init, count, codes or {}, silent, crash
        self.open = 0

    def cuInit(self, _: int) -> int:  # noqa: N802 - CUDA's name
        if self.silent == -1:
            time.sleep(60)
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuCtxCreate_v2(self, _: Any, __: int, device: ctypes.c_int) -> int:  # noqa: N802
        if device.value == self.silent:
            time.sleep(60)
        if device.value == self.crash:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.kill(os.getpid(), signal.SIGSEGV)
        code = self.codes.get(device.value, 0)
        self.open += code == 0
        return code

    def cuCtxDestroy_v2(self, _: Any) -> int:  # noqa: N802
        self.open -= 1
        return 0


class Gpus:
    """Installs the stand-ins into a folder, for every program that the test starts; `kernel` is in place of /proc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel = folder / "version"
        folder.mkdir()
        tests = Path(__file__).parents[2]
        os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
        os.environ["PYTHONPATH"] = f"{folder}:{tests}"

    def smi(self, output: str = "", code: int = 0, *, script: str = "", errors: str = "") -> None:
        """Install an nvidia-smi that prints this and ends with that code, after a script if there is one."""
        program = self.folder / "nvidia-smi"
        said = f"printf %s {shlex.quote(output)}; printf %s {shlex.quote(errors)} >&2; exit {code}"
        program.write_text(f"#!/bin/sh\n{script}\n{said}\n")
        program.chmod(0o755)

    def cuda(self, **answers: Any) -> None:
        """Install a CUDA library; memory may be locked where it is."""
        (self.folder / "sitecustomize.py").write_text(
            "import ctypes, resource\n"
            "from unit.agent.standin_gpus import Cuda\n"
            f"ctypes.CDLL = lambda _: Cuda(**{answers!r})\n"
            "resource.getrlimit = lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY)\n"
        )

    def no_cuda(self) -> None:
        """Install what a container has whose driver library was mounted but is empty."""
        (self.folder / "libcuda.so.1").write_bytes(b"")
        os.environ["LD_LIBRARY_PATH"] = str(self.folder)
