"""Daemons that outlive their starter: started, found again and stopped through a record in a file."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from local_cluster.components import Component

STOP_SECONDS = 20.0
_LOG_LIMIT_BYTES = 50 * 1024 * 1024
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


@dataclass(frozen=True)
class Record:
    """Identifies one process beyond its number, which the kernel gives out again; `digest` tells its configuration."""

    pid: int
    start_time: int
    boot_id: str
    digest: str


def digest(component: Component) -> str:
    """Return a digest of a component's command line and configuration: when it differs, the process must restart."""
    value = hashlib.sha256("\0".join(component.argv).encode())
    for file in component.config_files:
        value.update(file.read_bytes())
    return value.hexdigest()[:16]


def running(pids: Path, name: str) -> Record | None:
    """Return the record of a component's live process, None when it has ended or belongs to an earlier boot."""
    try:
        record = Record(**json.loads((pids / f"{name}.json").read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    same = record.boot_id == boot_id() and start_time(record.pid) == record.start_time
    return record if same else None


def start(component: Component, pids: Path, logs: Path) -> None:
    """Start a component in a session of its own, with its output appended to its log."""
    pids.mkdir(parents=True, exist_ok=True)
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{component.name}.log"
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.rename(log.with_suffix(".log.1"))
    with log.open("ab") as sink, Path(os.devnull).open("rb") as nothing:
        # Not subprocess: its objects complain when they are dropped before their process has ended.
        pid = os.posix_spawnp(
            component.argv[0],
            component.argv,
            environment(dict(os.environ), component.no_proxy),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, sink.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, sink.fileno(), 2),
            ],
            setsid=True,
        )
    record = Record(pid, start_time(pid) or 0, boot_id(), digest(component))
    partial = pids / f".{component.name}.partial"
    partial.write_text(json.dumps(asdict(record)))
    partial.rename(pids / f"{component.name}.json")


def environment(variables: dict[str, str], no_proxy: str) -> dict[str, str]:
    """Return a daemon's environment. Only containerd may know an HTTP proxy: the others talk to this machine alone."""
    kept: dict[str, str] = {name: variables[name] for name in ("PATH", "HOME", "LANG") if name in variables}
    if no_proxy:
        kept |= {name: variables[name] for name in _PROXIES if name in variables}
        kept["NO_PROXY"] = no_proxy
    return kept


def stop(pids: Path, name: str) -> None:
    """End a component and wait until it has: first politely, then not."""
    record = running(pids, name)
    if record:
        end([record.pid], signal.SIGTERM, STOP_SECONDS)
        if running(pids, name):
            end([record.pid], signal.SIGKILL, STOP_SECONDS)
    (pids / f"{name}.json").unlink(missing_ok=True)


def end_strays(pids: Path, state: Path, names: Sequence[str]) -> None:
    """Kill this cluster's processes that have no record: their starter was killed before it could write one."""
    known = {record.pid for record in (running(pids, name) for name in names) if record}
    strays = [pid for pid, argv in find(names).items() if pid not in known and f"{state}/" in " ".join(argv)]
    end(strays, signal.SIGKILL, STOP_SECONDS)


def end(process_ids: Sequence[int], sig: signal.Signals, seconds: float) -> list[int]:
    """Send a signal to processes and wait; return those that still live."""
    before = {pid: start_time(pid) for pid in process_ids}
    for pid in process_ids:
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + seconds
    while True:
        left = [pid for pid, started in before.items() if started is not None and start_time(pid) == started]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None when it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def shares_namespace(pid: int) -> bool:
    """Say whether a process sees the same processes as this one, False when it has ended."""
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()
    except OSError:
        return False


def boot_id() -> str:
    """Return the kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def find(names: Sequence[str]) -> dict[int, list[str]]:
    """Return the command lines, by process id, of all processes of the machine whose program has one of these names."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argv and Path(argv[0]).name in names:
            found[int(folder.name)] = argv
    return found
