"""The processes of a cluster: command lines, the files they read, how to ask them whether they are well; pure."""

from dataclasses import dataclass
from pathlib import Path

from local_cluster.addresses import Place
from local_cluster.layout import Layout, Spec

NAMES = (
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)

KUBELET_DEVICE_PLUGINS = "/var/lib/kubelet/device-plugins"


@dataclass(frozen=True)
class Component:
    """One process. `health` is an HTTP(S) address that answers 200, or `unix:` and a socket that accepts.

    `no_proxy` is for a process that may know an HTTP proxy: what it must reach without one.
    """

    name: str
    argv: tuple[str, ...]
    health: str
    config_files: tuple[Path, ...] = ()
    ready_seconds: float = 90.0
    no_proxy: str = ""


def node_name(spec: Spec) -> str:
    """Return the name of the cluster's only node."""
    return f"mlperf-{spec.name}"


def components(layout: Layout, spec: Spec, programs: Path) -> list[Component]:
    """Return the cluster's processes in the order in which they start; they stop in the reverse order."""
    control_plane = [build(layout, spec, programs) for build in (_etcd, _apiserver, _controller_manager, _scheduler)]
    if not spec.full:
        return control_plane
    return [_containerd(layout, spec), *control_plane, _kubelet(layout, spec, programs), _proxy(layout, spec, programs)]


def _etcd(layout: Layout, spec: Spec, programs: Path) -> Component:
    client, peer = f"https://127.0.0.1:{spec.ports.etcd}", f"https://127.0.0.1:{spec.ports.etcd_peer}"
    certs = layout.certs
    argv = (
        str(programs / "etcd"),
        f"--name={spec.name}",
        f"--data-dir={layout.state}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={spec.name}={peer}",
        f"--cert-file={certs}/etcd.crt",
        f"--key-file={certs}/etcd.key",
        f"--trusted-ca-file={certs}/etcd-ca.crt",
        "--client-cert-auth",
        f"--peer-cert-file={certs}/etcd.crt",
        f"--peer-key-file={certs}/etcd.key",
        f"--peer-trusted-ca-file={certs}/etcd-ca.crt",
        "--peer-client-cert-auth",
        # A cluster for development may lose its last writes in a power failure; syncing each one costs test time.
        "--unsafe-no-fsync",
        "--auto-compaction-retention=1",
        "--log-level=warn",
    )
    return Component("etcd", argv, f"{client}/health")


def _apiserver(layout: Layout, spec: Spec, programs: Path) -> Component:
    certs, ports = layout.certs, spec.ports
    argv = [
        str(programs / "kube-apiserver"),
        f"--secure-port={ports.apiserver}",
        f"--etcd-servers=https://127.0.0.1:{ports.etcd}",
        f"--etcd-cafile={certs}/etcd-ca.crt",
        f"--etcd-certfile={certs}/apiserver-etcd-client.crt",
        f"--etcd-keyfile={certs}/apiserver-etcd-client.key",
        f"--tls-cert-file={certs}/apiserver.crt",
        f"--tls-private-key-file={certs}/apiserver.key",
        f"--client-ca-file={certs}/ca.crt",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction,PodSecurity",
        f"--service-cluster-ip-range={spec.place.service_cidr}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={certs}/sa.pub",
        f"--service-account-signing-key-file={certs}/sa.key",
        "--allow-privileged",
        "--profiling=false",
    ]
    if spec.full:
        argv += [
            "--bind-address=0.0.0.0",
            f"--advertise-address={spec.place.api_ip}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={certs}/ca.crt",
            f"--kubelet-client-certificate={certs}/apiserver-kubelet-client.crt",
            f"--kubelet-client-key={certs}/apiserver-kubelet-client.key",
        ]
    else:
        # Without a node nobody uses the service address, and its endpoint may not be a loopback address.
        argv += ["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"]
    if spec.audit:
        argv += [
            f"--audit-policy-file={layout.config}/audit-policy.json",
            f"--audit-log-path={layout.logs}/audit.log",
            "--audit-log-maxsize=200",
            "--audit-log-maxbackup=2",
        ]
    health = f"https://127.0.0.1:{ports.apiserver}/readyz"
    return Component("kube-apiserver", tuple(argv), health, (layout.config / "audit-policy.json",))


def _controller_manager(layout: Layout, spec: Spec, programs: Path) -> Component:
    certs, port = layout.certs, spec.ports.controller_manager
    argv = (
        *_client(layout, programs / "kube-controller-manager", "controller-manager"),
        f"--secure-port={port}",
        f"--root-ca-file={certs}/ca.crt",
        f"--cluster-signing-cert-file={certs}/ca.crt",
        f"--cluster-signing-key-file={certs}/ca.key",
        f"--service-account-private-key-file={certs}/sa.key",
        "--use-service-account-credentials",
        f"--flex-volume-plugin-dir={layout.state}/volume-plugins",
        # Seconds until a node that stopped answering counts as lost: short, for tests that kill it.
        "--node-monitor-grace-period=20s",
    )
    return Component("kube-controller-manager", argv, f"https://127.0.0.1:{port}/healthz")


def _scheduler(layout: Layout, spec: Spec, programs: Path) -> Component:
    port = spec.ports.scheduler
    argv = (*_client(layout, programs / "kube-scheduler", "scheduler"), f"--secure-port={port}")
    return Component("kube-scheduler", argv, f"https://127.0.0.1:{port}/healthz")


def _client(layout: Layout, program: Path, user: str) -> tuple[str, ...]:
    kubeconfig = f"{layout.config}/{user}.kubeconfig"
    return (
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--tls-cert-file={layout.certs}/{user}.crt",
        f"--tls-private-key-file={layout.certs}/{user}.key",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
    )


def _containerd(layout: Layout, spec: Spec) -> Component:
    config = layout.config / "containerd.toml"
    argv = (*_in_namespaces(layout, spec, mounts=True), "containerd", f"--config={config}")
    files = (config, layout.config / "cni/10-mlperf.conflist")
    return Component("containerd", argv, f"unix:{layout.containerd_socket}", files, no_proxy=no_proxy(spec.place))


def _kubelet(layout: Layout, spec: Spec, programs: Path) -> Component:
    config = layout.config / "kubelet.json"
    argv = (
        *_in_namespaces(layout, spec, mounts=True),
        str(programs / "kubelet"),
        f"--config={config}",
        f"--kubeconfig={layout.config}/kubelet.kubeconfig",
        f"--root-dir={layout.kubelet_root}",
        f"--cert-dir={layout.certs}",
        f"--hostname-override={node_name(spec)}",
        f"--node-ip={spec.place.node_ip}",
    )
    return Component("kubelet", argv, f"http://{spec.place.health_ip}:{spec.ports.kubelet_health}/healthz", (config,))


def _proxy(layout: Layout, spec: Spec, programs: Path) -> Component:
    config = layout.config / "kube-proxy.json"
    argv = (
        *_in_namespaces(layout, spec, mounts=False),
        str(programs / "kube-proxy"),
        f"--config={config}",
        f"--hostname-override={node_name(spec)}",
    )
    health = f"http://{spec.place.health_ip}:{spec.ports.proxy_health}/healthz"
    return Component("kube-proxy", argv, health, (config,))


def _in_namespaces(layout: Layout, spec: Spec, *, mounts: bool) -> tuple[str, ...]:
    """Return what starts a further node's process in the node's network; it becomes the process, so its number stays.

    With `mounts` the process, and what it mounts into pods, also sees the cluster's own folder of device plug-ins: its
    path is fixed, and each kubelet empties it. Other mounts reach everybody, because those are below folders that
    `mounts.share` made pass them on.
    """
    if not spec.place.own_namespace:
        return ()
    network = ("nsenter", f"--net={layout.network_namespace}")
    folder = KUBELET_DEVICE_PLUGINS
    script = f'mount --make-slave "$(findmnt -nro TARGET -T {folder})" && mount --bind "$0" {folder} && exec "$@"'
    own_view = ("unshare", "--mount", "--propagation=unchanged", "sh", "-c", script, str(layout.device_plugins))
    return (*network, *own_view) if mounts else network


def no_proxy(place: Place) -> str:
    """Return the addresses that containerd must reach without an HTTP proxy."""
    return f"localhost,127.0.0.1,{place.node_ip},{place.pod_cidr},{place.service_cidr}"
