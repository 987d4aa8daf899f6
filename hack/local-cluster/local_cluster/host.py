"""What this machine must be before a cluster may start on it; each refusal is one sentence, before any change."""

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from local_cluster import network, ports, processes
from local_cluster.errors import RefusalError
from local_cluster.layout import Layout, Spec

OTHER_KUBERNETES = ("kubelet", "k3s", "k3s-server", "rke2", "k0s", "kubelite", "kube-proxy", "crio")
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
# Which ports, by their names in `Ports`, each process holds.
PURPOSES = {
    "etcd": ("etcd", "etcd_peer"),
    "kube-apiserver": ("apiserver",),
    "kube-controller-manager": ("controller_manager",),
    "kube-scheduler": ("scheduler",),
    "kubelet": ("kubelet", "kubelet_health"),
    "kube-proxy": ("proxy_health", "proxy_metrics"),
}


def distribution(os_release: str) -> set[str]:
    """Return what an os-release file says the machine is, and what it is like."""
    values = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    return {word for key in ("ID", "ID_LIKE") for word in values.get(key, "").strip("\"'").split()}


def is_debian_like() -> bool:
    """Say whether Debian's packages can be installed here."""
    file = Path("/etc/os-release")
    known = distribution(file.read_text()) if file.exists() else set()
    return bool(known & {"debian", "ubuntu"}) and shutil.which("apt-get") is not None


def lacks_capability(status: str, capability: int) -> bool:
    """Say whether a process lacks a capability, from the text of its /proc/<pid>/status."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return not int(line.split()[1], 16) >> capability & 1


def refuse_machine(*, full: bool) -> None:
    """Refuse a machine that cannot run a cluster of this kind at all."""
    if platform.system() != "Linux":
        raise RefusalError(f"the local cluster runs on Linux only, and this is {platform.system()}")
    if not full:
        return
    if os.geteuid() != 0:
        raise RefusalError("a cluster with a node needs root (--control-plane-only does not)")
    if not is_debian_like():
        raise RefusalError("a cluster with a node needs Debian or Ubuntu, whose packages it installs")
    status = Path("/proc/self/status").read_text()
    for name, capability in (("CAP_SYS_ADMIN", CAP_SYS_ADMIN), ("CAP_NET_ADMIN", CAP_NET_ADMIN)):
        if lacks_capability(status, capability):
            raise RefusalError(f"a cluster with a node needs {name}, which this container or session does not have")


def refuse_conflicts(layout: Layout, spec: Spec) -> None:
    """Refuse when something of the user's is in the way of a cluster's processes."""
    own = [name for name in PURPOSES if processes.running(layout.pids, name)]
    if spec.full:
        found = processes.find(OTHER_KUBERNETES)
        foreign = foreign_kubernetes(found, of_our_clusters(found, layout.base))
        if foreign:
            raise RefusalError(
                f"another Kubernetes node runs on this machine: {foreign}; stop it, or name its kubeconfig"
            )
        network.refuse_overlap(spec.place)
    # A port in the hands of our own live process is where it belongs.
    held = {purpose for name in own for purpose in PURPOSES[name]}
    # A node in a network namespace of its own has all ports to itself.
    used = ports.used_ports(spec.ports, node=spec.full and not spec.place.own_namespace)
    ports.refuse_taken({purpose: port for purpose, port in used.items() if purpose not in held})


def refuse_foreign_pods(layout: Layout) -> None:
    """Refuse to end the machine's pods and service rules while those of another node may be among them.

    A node inside a container, as kind makes it, has its own; it is in another process namespace.
    """
    found = processes.find(OTHER_KUBERNETES)
    ours = of_our_clusters(found, layout.base)
    elsewhere = {pid for pid in found if not processes.shares_namespace(pid)}
    foreign = foreign_kubernetes(found, ours | elsewhere)
    if foreign:
        raise RefusalError(
            f"another Kubernetes node runs on this machine: {foreign}; its pods would end with those of "
            f"{layout.name!r}: stop it first"
        )


def of_our_clusters(found: Mapping[int, list[str]], base: Path) -> set[int]:
    """Return which processes belong to a cluster below `base`: each has a path of its cluster in its command line."""
    return {pid for pid, argv in found.items() if f"{base}/" in " ".join(argv)}


def foreign_kubernetes(found: Mapping[int, list[str]], own: set[int]) -> str:
    """Return a short description of a node's program that is not ours, empty when there is none."""
    for pid, argv in sorted(found.items()):
        if pid not in own:
            return f"{Path(argv[0]).name} (process {pid})"
    return ""
