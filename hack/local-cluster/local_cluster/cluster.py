"""The life of a cluster: up, down and status."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

from local_cluster import (
    api,
    binaries,
    certs,
    containers,
    host,
    machine,
    mounts,
    network,
    packages,
    ports,
    processes,
    render,
    volumes,
)
from local_cluster.addresses import free_slot
from local_cluster.components import NAMES, Component, components, node_name
from local_cluster.errors import ClusterError, RefusalError
from local_cluster.layout import Condition, Layout, Ports, Spec, all_specs
from local_cluster.locks import locked
from local_cluster.progress import say, tail

POLL_SECONDS = 0.1
NODE_SECONDS = 120.0
NOT_READY_TAINT = "node.kubernetes.io/not-ready"


def up(layout: Layout, *, full: bool, audit: bool) -> Path:
    """Start what does not run, wait until the cluster can be used, and return its kubeconfig.

    Raises:
        RefusalError: this machine, or a cluster of the same name and another kind, does not allow it.
        ClusterError: something did not start.
    """
    host.refuse_machine(full=full)
    with locked(f"cluster-{layout.name}", f"it changes the cluster {layout.name!r}"):
        new = layout.read_spec() is None
        spec = _spec(layout, full=full, audit=audit)
        processes.end_strays(layout.pids, layout.state, NAMES)
        try:
            host.refuse_conflicts(layout, spec)
            packages.ensure(packages.NODE if full else packages.CONTROL_PLANE)
            programs = binaries.ensure_programs("kube", *(["pause"] if full else []))
        except RefusalError:
            if new:
                _forget(layout)
            raise
        _write_spec(layout, spec)
        _prepare(layout, spec)
        identities = api.identities(layout.certs)
        for component in components(layout, spec, programs):
            _ensure(component, layout, identities)
            if component.name == "containerd":
                containers.ensure_pause_image(layout, programs / "pause")
        _finish(layout, spec, identities["admin"])
        return layout.kubeconfig


def _spec(layout: Layout, *, full: bool, audit: bool) -> Spec:
    """Return the record of the cluster, made now if it is new. Slot and ports are chosen once."""
    existing = layout.read_spec()
    if existing and existing.full != full:
        kind = "with a node" if existing.full else "without a node"
        raise RefusalError(f"the cluster {layout.name!r} exists {kind}; choose another --name, or take it down first")
    if existing:
        return replace(existing, audit=existing.audit or audit)
    with locked("ports", "it chooses ports"):
        others = all_specs(layout.base)
        slot = free_slot(other.slot for other in others if other.full) if full else 0
        if full and slot == 0:
            spec = Spec(layout.name, full, audit, Ports(), slot)
        else:
            reserved = [port for other in others for port in vars(other.ports).values()]
            spec = Spec(layout.name, full, audit, ports.choose_free(reserved, ports.is_free), slot)
        # Written before the lock is released, or a caller beside this one could choose the same.
        _write_spec(layout, spec)
    return spec


def _write_spec(layout: Layout, spec: Spec) -> None:
    layout.state.mkdir(parents=True, exist_ok=True)
    partial = layout.spec_file.with_suffix(".partial")
    partial.write_text(spec.to_json())
    partial.rename(layout.spec_file)


def _forget(layout: Layout) -> None:
    """Free the slot and the ports of a cluster that cannot be made."""
    layout.spec_file.unlink()
    machine.remove_empty(layout.state, layout.base)


def _prepare(layout: Layout, spec: Spec) -> None:
    """Make what the processes need: folders, certificates, configuration, and for a node its network."""
    layout.run.mkdir(parents=True, exist_ok=True)
    certs.ensure(layout.certs, certs.plan(node_name(spec), spec.place))
    render.all_files(layout, spec).write(layout.config)
    shutil.copyfile(layout.config / "admin.kubeconfig", layout.kubeconfig)
    layout.kubeconfig.chmod(0o600)
    if spec.full:
        for folder in ("pod-logs", "volume-plugins"):
            (layout.state / folder).mkdir(exist_ok=True)
        machine.take(layout)
        if spec.place.own_namespace:
            containers.ensure_cgroup(containers.cgroup_roots(containers.CGROUPS), spec.place.cgroup)
            layout.device_plugins.mkdir(exist_ok=True)
            mounts.share(layout.kubelet_root)
            mounts.share(layout.run)
        network.ensure(spec.place, layout.network_namespace)


def _ensure(component: Component, layout: Layout, identities: dict[str, api.Identity]) -> None:
    """Bring one process to health: start it, or restart it when its configuration changed or it stays unwell."""
    identity = identities["etcd" if component.name == "etcd" else "admin"]
    record = processes.running(layout.pids, component.name)
    if record and record.digest == processes.digest(component):
        if _wait(component, layout, identity):
            return
        say(f"{component.name} runs but is not well: restarting it")
    if record:
        processes.stop(layout.pids, component.name)
    say(f"starting {component.name}")
    processes.start(component, layout.pids, layout.logs)
    if not _wait(component, layout, identity):
        log = layout.logs / f"{component.name}.log"
        raise ClusterError(f"{component.name} did not become healthy; the end of {log}:\n{tail(log)}")


def _wait(component: Component, layout: Layout, identity: api.Identity) -> bool:
    """Wait until a process is healthy; False when it ended or its time is over."""
    deadline = time.monotonic() + component.ready_seconds
    while time.monotonic() < deadline:
        if api.is_healthy(identity, component.health):
            return True
        if processes.running(layout.pids, component.name) is None:
            return False
        time.sleep(POLL_SECONDS)
    return False


def _finish(layout: Layout, spec: Spec, identity: api.Identity) -> None:
    """Wait for what users build on: volumes, the default service account and the node."""
    client = api.Api(f"https://127.0.0.1:{spec.ports.apiserver}", identity)
    again = volumes.ensure(client, layout.volumes)
    if again:
        say(f"{again} volumes whose claims are gone were emptied and can be claimed again")
    deadline = time.monotonic() + NODE_SECONDS
    while problem := _missing(client, spec):
        if time.monotonic() > deadline:
            raise ClusterError(f"the cluster started, but {problem}")
        time.sleep(POLL_SECONDS)


def _missing(client: api.Api, spec: Spec) -> str:
    """Say what a cluster lacks to be usable, empty when nothing."""
    if client.get("/api/v1/namespaces/default/serviceaccounts/default") is None:
        return "the default service account does not exist"
    if not spec.full:
        return ""
    node = client.get(f"/api/v1/nodes/{node_name(spec)}")
    if node is None:
        return "its node is not registered"
    ready = next((item for item in node["status"].get("conditions", []) if item["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        return f"its node is not Ready: {ready['message'] if ready else 'it has not reported yet'}"
    blocking = [taint["key"] for taint in node["spec"].get("taints", []) if taint["key"] == NOT_READY_TAINT]
    return f"its node still has the taint {NOT_READY_TAINT}" if blocking else ""


def status(layout: Layout) -> list[Condition]:
    """Return one line for each process, and one for the node and service account.

    Raises:
        RefusalError: there is no such cluster.
    """
    spec = required_spec(layout)
    identities = api.identities(layout.certs)
    lines = []
    for component in components(layout, spec, binaries.bin_dir()):
        record = processes.running(layout.pids, component.name)
        identity = identities["etcd" if component.name == "etcd" else "admin"]
        healthy = record is not None and api.is_healthy(identity, component.health)
        lines.append(Condition(component.name, record.pid if record else None, healthy))
    client = api.Api(f"https://127.0.0.1:{spec.ports.apiserver}", identities["admin"])
    try:
        problem = _missing(client, spec)
    except ClusterError as error:
        problem = str(error)
    return [*lines, Condition("cluster", None, not problem, problem)]


def required_spec(layout: Layout) -> Spec:
    """Return the cluster's record, or refuse when there is no such cluster."""
    spec = layout.read_spec()
    if spec is None:
        raise RefusalError(f"there is no cluster {layout.name!r}; `up` makes one")
    return spec
