"""Which ports a cluster uses, and who holds one that is taken."""

import random
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from local_cluster.errors import RefusalError
from local_cluster.layout import Ports

# Below the ports that Linux gives to outgoing connections (32768 and up).
FREE_RANGE = range(20000, 30000)
CONTROL_PLANE = ("etcd", "etcd_peer", "apiserver", "controller_manager", "scheduler")
_LISTEN = "0A"


def choose_free(reserved: Iterable[int], is_free: Callable[[int], bool]) -> Ports:
    """Return ports for a cluster beside others: free now, and not in another cluster's record."""
    names = [field.name for field in fields(Ports)]
    candidates = [port for port in FREE_RANGE if port not in set(reserved)]
    random.SystemRandom().shuffle(candidates)
    chosen = []
    for port in candidates:
        if is_free(port):
            chosen.append(port)
        if len(chosen) == len(names):
            return Ports(**dict(zip(names, chosen, strict=True)))
    raise RefusalError(f"no free ports between {FREE_RANGE.start} and {FREE_RANGE.stop}")


def used_ports(ports: Ports, *, node: bool) -> dict[str, int]:
    """Return the ports that a cluster listens on in the machine's network, by what they are for."""
    return {field.name: getattr(ports, field.name) for field in fields(Ports) if node or field.name in CONTROL_PLANE}


def is_free(port: int) -> bool:
    """Say whether nobody listens on a port, on any of the machine's addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - a probe, closed at once: it must see listeners on every address
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now, for a program that a test or a benchmark starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refuse_taken(wanted: dict[str, int]) -> None:
    """Refuse when a port is taken, and say by whom."""
    for purpose, port in wanted.items():
        if not is_free(port):
            raise RefusalError(f"port {port} ({purpose.replace('_', ' ')}) is taken by {holder(port)}")


def holder(port: int) -> str:
    """Return who listens on a port, as far as this user may see it."""
    inodes = set[str]()
    for table in ("tcp", "tcp6"):
        file = Path("/proc/net") / table
        if file.exists():
            inodes |= listening_inodes(file.read_text(), port)
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and wanted & _links(folder / "fd"):
            return f"{(folder / 'comm').read_text().strip()} (process {folder.name})"
    return "a process that this user cannot see"


def listening_inodes(table: str, port: int) -> set[str]:
    """Return the socket numbers that listen on a port, from the text of /proc/net/tcp or tcp6."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {row[9] for row in rows if row[3] == _LISTEN and int(row[1].rsplit(":", 1)[1], 16) == port}


def _links(folder: Path) -> set[str]:
    """Return what a process has open; processes and their files come and go while we look."""
    found = set[str]()
    try:
        for link in folder.iterdir():
            with suppress(FileNotFoundError):
                found.add(str(link.readlink()))
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return found
    return found
