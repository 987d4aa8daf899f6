"""What the stage wrapper leaves on the results volume beside the harness's own logs: stage logs, configuration, node.

Standard-library Python 3.10, beside stage.py in the run's pod. Nothing here may stop the work: a volume that is full
or broken costs these copies, and that is said once.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlperf_operator.agent.wrapper.files import read_object

HEAD_BYTES = 32 * 1024 * 1024
"""Size at which a stage's log goes on in its first tail file."""

TAIL_BYTES = 16 * 1024 * 1024
"""Size of each of the two tail files, of which the older is dropped when the newer is full."""

SMI_SECONDS, END_SECONDS = 60, 2
"""Time for nvidia-smi to answer, and for a killed one to end; one that the driver holds never does."""

_GPU_COLUMNS = (
    *("index", "name", "uuid", "pci.bus_id", "memory.total", "driver_version", "vbios_version"),
    *("power.limit", "power.default_limit", "clocks.max.sm", "pcie.link.gen.max", "pcie.link.width.max"),
)
_VERSIONS = ("CUDA_VERSION", "CUDA_DRIVER_VERSION", "CUDNN_VERSION", "TRT_VERSION", "NCCL_VERSION", "CUBLAS_VERSION")
"""Variables in which NVIDIA's images say what they hold."""


class StageLog:
    """A copy of all that a stage prints, from all attempts: the first 32 MiB, and at least the last 16 MiB.

    Safe to be written by several threads. It never raises: `told` is called once with the reason when it gives up.
    """

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._file = -1
        self._size = self._limit = self._dropped = 0
        self._head = Path()

    def open(self, folder: Path, name: str) -> None:
        """Go on where an earlier attempt ended, in <folder>/<name>.log or the newest of its tail files."""
        self.close()
        self._head, self._dropped = folder / f"{name}.log", 0
        with self._lock:
            self._guarded(self._open_last)

    def write(self, data: bytes) -> None:
        """Append; what comes before `open` or after a failure is dropped."""
        with self._lock:
            if self._file >= 0:
                self._guarded(lambda: self._append(data))

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
            self._told(f"{self._head}: the stage's output is no longer kept here: {error.strerror}")

    def _open_last(self) -> None:
        self._head.parent.mkdir(parents=True, exist_ok=True)
        tail = self._tail(0)
        self._use(tail if tail.exists() else self._head, TAIL_BYTES if tail.exists() else HEAD_BYTES)

    def _use(self, path: Path, limit: int) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        # The harness may write in this folder too: no link of its making leads elsewhere.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        self._size, self._limit = os.fstat(self._file).st_size, limit

    def _tail(self, age: int) -> Path:
        return self._head.with_name(f"{self._head.stem}.tail{'.old' if age else ''}.log")

    def _append(self, data: bytes) -> None:
        if self._size + len(data) > self._limit and self._size:
            self._turn()
        while data:
            written = os.write(self._file, data)
            self._size += written
            data = data[written:]

    def _turn(self) -> None:
        newer, older = self._tail(0), self._tail(1)
        if newer.exists():
            with contextlib.suppress(FileNotFoundError):
                self._dropped += older.lstat().st_size
            newer.replace(older)
        self._use(newer, TAIL_BYTES)
        if self._dropped:
            said = f"[mlperf] about {self._dropped} bytes of this attempt before {older.name} were dropped\n"
            self._size += os.write(self._file, said.encode())


def copy_config(results: Path, plan: Path, overrides: Path) -> None:
    """Keep what the run was told: the plan and the overrides as they are mounted.

    Raises:
        OSError: they cannot be read, or not written there.
    """
    target = results / "config"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(plan, target / "plan.json")
    if overrides.is_dir():
        # A ConfigMap's files are links beside hidden folders of their contents.
        hidden = shutil.ignore_patterns("..*")
        shutil.copytree(overrides, target / "overrides", ignore=hidden, dirs_exist_ok=True)


def copy_measurements(results: Path, work: Path, result: dict[str, Any]) -> None:
    """Keep what the harness told LoadGen for one result: mlperf.conf, user.conf and what it writes beside them.

    NVIDIA's harness writes them into build/loadgen-configs/<system>/<variant>/<scenario> (code/common/submission.py).

    Raises:
        OSError: they cannot be read, or not written there.
    """
    origin = work / "build" / "loadgen-configs"
    target = results / "config" / "measurements" / result["mode"]
    for folder in sorted(origin.glob(f"*/{result['variant']}/{result['scenario']}")):
        shutil.copytree(folder, target / folder.relative_to(origin), symlinks=True, dirs_exist_ok=True)


def node_facts(*, gpus: bool, storage: Iterable[Path]) -> dict[str, Any]:
    """Return what this container shows of its node: what it cannot show is left out.

    The operating system is the image's, the kernel the node's.
    """
    facts: dict[str, Any] = {
        "hostname": socket.gethostname(),
        "bootId": boot_id(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "imageOs": _os_name(),
        "product": " ".join(filter(None, (_text(f"/sys/class/dmi/id/{n}") for n in ("sys_vendor", "product_name")))),
        "cpu": cpu_facts(_text("/proc/cpuinfo")),
        "memoryBytes": _memory(_text("/proc/meminfo")),
        "versions": {name: os.environ[name] for name in _VERSIONS if os.environ.get(name)},
        "storage": [_space(path) for path in storage],
    }
    if gpus:
        facts["gpus"] = gpu_facts(_ask(f"--query-gpu={','.join(_GPU_COLUMNS)}", "--format=csv,noheader,nounits"))
        facts["gpuTopology"] = _ask("topo", "-m")
    return {name: value for name, value in facts.items() if value not in (None, "", [], {})}


def boot_id() -> str:
    """Return what tells one start of one node from every other, empty where the kernel does not say."""
    return _text("/proc/sys/kernel/random/boot_id")


def merge_earlier(facts: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return the facts with those of an earlier attempt on another node or another boot, which may have measured."""
    earlier = list(before.get("earlier") or [])
    last = {name: value for name, value in before.items() if name != "earlier"}
    if last and last.get("bootId") != facts.get("bootId"):
        earlier.append(last)
    return {**facts, "earlier": earlier} if earlier else facts


def cpu_facts(text: str) -> dict[str, Any]:
    """Return model, sockets, cores of each socket and threads, from /proc/cpuinfo."""
    blocks = [dict(re.findall(r"^([^\t:]+?)\s*:[ \t]*(.*)$", block, re.MULTILINE)) for block in text.split("\n\n")]
    blocks = [block for block in blocks if "processor" in block]
    if not blocks:
        return {}
    cores = {(block.get("physical id", "0"), block.get("core id", block["processor"])) for block in blocks}
    sockets = {socket_id for socket_id, _ in cores}
    return {
        "model": blocks[0].get("model name", ""),
        "sockets": len(sockets),
        "coresPerSocket": len(cores) // len(sockets),
        "threads": len(blocks),
    }


def gpu_facts(text: str) -> list[dict[str, str]]:
    """Return the GPUs of nvidia-smi's CSV by column, without what it does not know."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    known = [dict(zip(_GPU_COLUMNS, row)) for row in rows if len(row) == len(_GPU_COLUMNS)]  # noqa: B905 - Python 3.10
    return [{name: cell for name, cell in row.items() if not cell.startswith("[")} for row in known]


def node_text(path: Path, facts: dict[str, Any]) -> str:
    """Return node.json's new text, in which the facts of earlier attempts are kept."""
    return json.dumps(merge_earlier(facts, read_object(path)), indent=1, sort_keys=True) + "\n"


def _ask(*arguments: str) -> str:
    # A driver that hangs holds the process, and a killed one's pipe: neither is waited for without end.
    try:
        process = subprocess.Popen(
            ["nvidia-smi", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return ""
    try:
        return process.communicate(timeout=SMI_SECONDS)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        process.kill()
        return ""
    finally:
        if process.stdout is not None:
            process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _os_name() -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', _text("/etc/os-release"), re.MULTILINE)
    return found[1] if found else ""


def _memory(text: str) -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _space(path: Path) -> dict[str, Any]:
    space = os.statvfs(path)
    return {
        "path": str(path),
        "totalBytes": space.f_blocks * space.f_frsize,
        "freeBytes": space.f_bavail * space.f_frsize,
    }
