"""What every cluster with a node changes on the machine as a whole; the last one that goes puts it back."""

import errno
import socket
from contextlib import AbstractContextManager
from pathlib import Path

from local_cluster import network
from local_cluster.components import KUBELET_DEVICE_PLUGINS
from local_cluster.layout import Layout, all_specs
from local_cluster.locks import locked

CONTAINER_LOG_LINKS = Path("/var/log/containers")
# Folders that containerd's shims and the kubelet use whatever their configuration says.
SHIM_SOCKETS = Path("/run/containerd/s")
SETTINGS = "sysctls"
DEVICE_PLUGINS = Path(KUBELET_DEVICE_PLUGINS)


def take(layout: Layout) -> None:
    """Change the kernel's settings as a node needs them, and make the kubelet's fixed folder.

    Only the first cluster still sees the machine's own settings, so it remembers them for the last.
    """
    with _locked():
        file = _remembered(layout)
        if not file.exists():
            partial = file.with_suffix(".partial")
            partial.write_text("".join(f"{name}={value}\n" for name, value in network.read_sysctls().items()))
            partial.rename(file)
        network.write_sysctls(network.OWN_SYSCTLS)
        DEVICE_PLUGINS.mkdir(parents=True, exist_ok=True)


def give_back(layout: Layout) -> None:
    """End this cluster's record, and put settings and folders back if no other cluster with a node is left.

    Both under one lock: of two clusters that go at once, one must see that it is the last.
    """
    with _locked():
        file = _remembered(layout)
        layout.spec_file.unlink(missing_ok=True)
        if not file.exists() or any(other.full for other in all_specs(layout.base)):
            return
        remove_dead_sockets(SHIM_SOCKETS)
        remove_dead_sockets(DEVICE_PLUGINS)
        remove_empty(CONTAINER_LOG_LINKS, SHIM_SOCKETS, SHIM_SOCKETS.parent, DEVICE_PLUGINS, DEVICE_PLUGINS.parent)
        network.write_sysctls(dict(line.split("=", 1) for line in file.read_text().splitlines()))
        file.unlink()


def _remembered(layout: Layout) -> Path:
    """Return the file that remembers the machine's settings for all clusters; it was the only cluster's own once."""
    file, earlier = layout.base / SETTINGS, layout.state / SETTINGS
    if earlier.exists():
        earlier.rename(file)
    return file


def remove_log_links(links: Path, target: Path) -> None:
    """Remove the links that the kubelet keeps to container logs, in a folder that its configuration cannot move."""
    for link in list(links.iterdir()) if links.is_dir() else []:
        if link.is_symlink() and link.readlink().is_relative_to(target):
            link.unlink()


def remove_dead_sockets(folder: Path) -> None:
    """Remove the sockets on which nobody listens any more; those of live shims stay."""
    for path in folder.glob("*"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if path.is_socket() and probe.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink()


def remove_empty(*folders: Path) -> None:
    """Remove the folders that hold nothing, in this order."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _locked() -> AbstractContextManager[None]:
    return locked("machine", "it changes the machine's settings")
