"""The processes of a cluster: command lines, the files they read, how to ask them whether they are well; pure."""

from dataclasses import dataclass
from pathlib import Path

from local_cluster.layout import Layout, Spec
from local_cluster.network import NODE_IP, POD_CIDR, SERVICE_CIDR

NAMES = (
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)


@dataclass(frozen=True)
class Component:
    """One process. `health` is an HTTP(S) address that answers 200, or `unix:` and a socket that accepts."""

    name: str
    argv: tuple[str, ...]
    health: str
    config_files: tuple[Path, ...] = ()
    ready_seconds: float = 90.0
    needs_proxy: bool = False


def node_name(spec: Spec) -> str:
    """Return the name of the cluster's only node."""
    return f"mlperf-{spec.name}"


def components(layout: Layout, spec: Spec, programs: Path) -> list[Component]:
    """Return the cluster's processes in the order in which they start; they stop in the reverse order."""
    control_plane = [build(layout, spec, programs) for build in (_etcd, _apiserver, _controller_manager, _scheduler)]
    if not spec.full:
        return control_plane
    return [_containerd(layout), *control_plane, _kubelet(layout, spec, programs), _proxy(layout, spec, programs)]


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
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={certs}/sa.pub",
        f"--service-account-signing-key-file={certs}/sa.key",
        "--allow-privileged",
        "--profiling=false",
    ]
    if spec.full:
        argv += [
            "--bind-address=0.0.0.0",
            f"--advertise-address={NODE_IP}",
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


def _containerd(layout: Layout) -> Component:
    config = layout.config / "containerd.toml"
    argv = ("containerd", f"--config={config}")
    files = (config, layout.config / "cni/10-mlperf.conflist")
    return Component("containerd", argv, f"unix:{layout.containerd_socket}", files, needs_proxy=True)


def _kubelet(layout: Layout, spec: Spec, programs: Path) -> Component:
    config = layout.config / "kubelet.json"
    argv = (
        str(programs / "kubelet"),
        f"--config={config}",
        f"--kubeconfig={layout.config}/kubelet.kubeconfig",
        f"--root-dir={layout.state}/kubelet",
        f"--cert-dir={layout.certs}",
        f"--hostname-override={node_name(spec)}",
        f"--node-ip={NODE_IP}",
    )
    return Component("kubelet", argv, f"http://127.0.0.1:{spec.ports.kubelet_health}/healthz", (config,))


def _proxy(layout: Layout, spec: Spec, programs: Path) -> Component:
    config = layout.config / "kube-proxy.json"
    argv = (str(programs / "kube-proxy"), f"--config={config}", f"--hostname-override={node_name(spec)}")
    return Component("kube-proxy", argv, f"http://127.0.0.1:{spec.ports.proxy_health}/healthz", (config,))


def no_proxy() -> str:
    """Return the addresses that containerd must reach without an HTTP proxy."""
    return f"localhost,127.0.0.1,{NODE_IP},{POD_CIDR},{SERVICE_CIDR}"
