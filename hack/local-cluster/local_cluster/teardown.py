"""Takes a cluster away, whatever state it is in, and leaves nothing of it on the machine."""

import errno
import shutil
import socket
from pathlib import Path

from local_cluster import containers, host, mounts, network, processes
from local_cluster.components import NAMES, components
from local_cluster.layout import Layout, Spec
from local_cluster.locks import locked
from local_cluster.progress import say

CNI_RESULTS = Path("/var/lib/cni/results")
CONTAINER_LOG_LINKS = Path("/var/log/containers")
# Folders that containerd's shims and the kubelet use whatever their configuration says.
SHIM_SOCKETS = Path("/run/containerd/s")
KUBELET_FOLDERS = (Path("/var/lib/kubelet/device-plugins"), Path("/var/lib/kubelet"))


def down(layout: Layout) -> None:
    """Stop every process and container; remove mounts, network, cgroups, settings and folders. Safe to repeat.

    Raises:
        RefusalError: pods of a node that is not ours would end too.
        ClusterError: something of the cluster stays.
    """
    with locked(f"cluster-{layout.name}", f"it changes the cluster {layout.name!r}"):
        spec = layout.read_spec()
        if spec is None and not layout.state.exists() and not layout.run.exists():
            say(f"there is no cluster {layout.name!r}")
            return
        if spec is not None and spec.full:
            host.refuse_foreign_pods(layout)
        if spec is not None:
            _stop_processes(layout, spec)
        if spec is not None and spec.full:
            _remove_node(layout)
        for folder in {layout.run, layout.state}:
            mounts.unmount_below(folder)
            _remove_folder(folder)
        say(f"the cluster {layout.name!r} is gone")


def _stop_processes(layout: Layout, spec: Spec) -> None:
    """Stop in the order opposite to the start, but containerd last: it holds no port that another one waits for."""
    processes.end_strays(layout.pids, layout.state, NAMES)
    for component in reversed(components(layout, spec, Path())):
        if component.name == "containerd":
            containers.end_all(layout)
        if processes.running(layout.pids, component.name):
            say(f"stopping {component.name}")
        processes.stop(layout.pids, component.name)


def _remove_node(layout: Layout) -> None:
    containers.end_all(layout)
    mounts.unmount_below(layout.run)
    containers.remove_cgroups(containers.cgroup_roots(Path("/sys/fs/cgroup")))
    containers.remove_cni_results(CNI_RESULTS)
    _remove_log_links(CONTAINER_LOG_LINKS, layout.state)
    for folder in (SHIM_SOCKETS, KUBELET_FOLDERS[0]):
        remove_dead_sockets(folder)
    _remove_empty(SHIM_SOCKETS, SHIM_SOCKETS.parent, *KUBELET_FOLDERS)
    network.remove()
    restore_sysctls(layout)


def _remove_log_links(links: Path, target: Path) -> None:
    """Remove the links that the kubelet keeps to container logs, in a folder that its configuration cannot move."""
    if not links.is_dir():
        return
    for link in list(links.iterdir()):
        if link.is_symlink() and link.readlink().is_relative_to(target):
            link.unlink()
    _remove_empty(links)


def remove_dead_sockets(folder: Path) -> None:
    """Remove the sockets on which nobody listens any more; those of another containerd's live shims stay."""
    for path in folder.glob("*"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if path.is_socket() and probe.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink()


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def restore_sysctls(layout: Layout) -> None:
    """Put the kernel settings back that the first start found."""
    file = layout.state / "sysctls"
    if file.exists():
        network.write_sysctls(dict(line.split("=", 1) for line in file.read_text().splitlines()))


def _remove_folder(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    _remove_empty(folder.parent)
