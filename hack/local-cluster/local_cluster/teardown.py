"""Takes a cluster away, whatever state it is in, and leaves nothing of it on the machine."""

import shutil
from pathlib import Path

from local_cluster import containers, host, machine, mounts, network, processes
from local_cluster.components import NAMES, components
from local_cluster.layout import Layout, Spec
from local_cluster.locks import locked
from local_cluster.progress import say

CNI_RESULTS = Path("/var/lib/cni/results")


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
        if spec is not None and spec.full and not spec.place.cgroup:
            host.refuse_foreign_pods(layout)
        if spec is not None:
            _stop_processes(layout, spec)
        if spec is not None and spec.full:
            _remove_node(layout, spec)
        # An earlier `down` may have been killed between the record's end and this.
        machine.give_back(layout)
        for folder in {layout.run, layout.state}:
            mounts.unmount_below(folder)
            _remove_folder(folder)
        say(f"the cluster {layout.name!r} is gone")


def _stop_processes(layout: Layout, spec: Spec) -> None:
    """Stop in the order opposite to the start, but containerd last: it holds no port that another one waits for."""
    processes.end_strays(layout.pids, layout.state, NAMES)
    for component in reversed(components(layout, spec, Path())):
        if component.name == "containerd":
            containers.end_all(layout, _cgroup_roots(spec))
        if processes.running(layout.pids, component.name):
            say(f"stopping {component.name}")
        processes.stop(layout.pids, component.name)


def _remove_node(layout: Layout, spec: Spec) -> None:
    roots = _cgroup_roots(spec)
    containers.end_all(layout, roots)
    network.remove(spec.place)
    mounts.unmount_below(layout.run)
    containers.remove_cgroups(roots if spec.place.cgroup else [root / "kubepods" for root in roots])
    containers.remove_cni_results(CNI_RESULTS, spec.place.cni_network)
    machine.remove_log_links(machine.CONTAINER_LOG_LINKS, layout.state)


def _cgroup_roots(spec: Spec) -> list[Path]:
    """Return the cgroups below which the kubelet keeps its own: of this cluster alone, or the machine's roots."""
    return [root / spec.place.cgroup for root in containers.cgroup_roots(containers.CGROUPS)]


def _remove_folder(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    machine.remove_empty(folder.parent)
