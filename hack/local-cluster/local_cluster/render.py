"""Configuration files of containerd, the network plug-in, the kubelet and kube-proxy; pure."""

import json
from dataclasses import dataclass
from pathlib import Path

from local_cluster.addresses import LOOPBACK, Place
from local_cluster.layout import Layout, Ports, Spec

PAUSE_IMAGE = "localhost/mlperf-local-cluster/pause:1"
CNI_PLUGINS = "/usr/lib/cni"


@dataclass(frozen=True)
class Files:
    """Rendered files by the name they get in the cluster's config folder."""

    by_name: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write every file that differs: kube-proxy ends when its file is written, even with the same content."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.by_name.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or target.read_text() != text:
                target.write_text(text)


def kubeconfig(layout: Layout, ports: Ports, user: str, host: str = LOOPBACK) -> str:
    """Return a kubeconfig (JSON is YAML) that names the certificate of `user` by its file."""
    cluster = {
        "server": f"https://{host}:{ports.apiserver}",
        "certificate-authority": str(layout.certs / "ca.crt"),
    }
    credentials = {
        "client-certificate": str(layout.certs / f"{user}.crt"),
        "client-key": str(layout.certs / f"{user}.key"),
    }
    context = f"mlperf-{layout.name}"
    return _json(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": context, "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
            "current-context": context,
        }
    )


def containerd(layout: Layout) -> str:
    """Return containerd's configuration: everything in the cluster's own folders, images only from the machine.

    `restrict_oom_score_adj` lets containers start where this process may not lower an OOM score.
    """
    return f"""version = 2
root = "{layout.state}/containerd"
state = "{layout.run}/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = "{layout.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{layout.config}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{layout.run}/runc"
"""


def cni(layout: Layout, place: Place) -> str:
    """Return the pod network: each pod has its own link to the machine, which routes between them.

    With ptp instead of a bridge, packets between pods pass the machine's rules, so services work without br_netfilter.
    """
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": place.pod_cidr}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{layout.run}/cni",
    }
    ptp = {"type": "ptp", "mtu": 1400, "ipMasq": False, "ipam": ipam}
    return _json({"cniVersion": "0.4.0", "name": place.cni_network, "plugins": [ptp]})


def kubelet(layout: Layout, ports: Ports, place: Place) -> str:
    """Return the kubelet's configuration.

    Images come from no registry, so nothing may collect them as garbage. Pods are evicted for want of disk only at the
    very last, because a development machine's disk is shared with everything else.
    """
    return _json(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": place.node_ip,
            "port": ports.kubelet,
            "healthzBindAddress": place.health_ip,
            "healthzPort": ports.kubelet_health,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{layout.certs}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{layout.certs}/kubelet-serving.crt",
            "tlsPrivateKeyFile": f"{layout.certs}/kubelet-serving.key",
            "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{place.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "makeIPTablesUtilChains": False,
            "podLogsDir": f"{layout.state}/pod-logs",
            "volumePluginDir": f"{layout.state}/volume-plugins",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "serializeImagePulls": False,
            "nodeStatusUpdateFrequency": "5s",
            "shutdownGracePeriod": "0s",
        }
    )


def kube_proxy(layout: Layout, ports: Ports, place: Place) -> str:
    """Return kube-proxy's configuration: nftables rules, and no change to the machine's connection tracking."""
    unchanged = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return _json(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": place.pod_cidr,
            "clientConnection": {"kubeconfig": f"{layout.config}/proxy.kubeconfig"},
            "healthzBindAddress": f"{place.health_ip}:{ports.proxy_health}",
            "metricsBindAddress": f"{place.health_ip}:{ports.proxy_metrics}",
            "conntrack": unchanged,
            "oomScoreAdj": 0,
        }
    )


def audit_policy() -> str:
    """Return an audit policy: who did what to which object, once a request, without bodies."""
    return _json(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata"}],
        }
    )


def all_files(layout: Layout, spec: Spec) -> Files:
    """Return every configuration file of a cluster."""
    ports, place = spec.ports, spec.place
    files = {
        f"{user}.kubeconfig": kubeconfig(layout, ports, user) for user in ("controller-manager", "scheduler", "admin")
    }
    files["audit-policy.json"] = audit_policy()
    if spec.full:
        files["proxy.kubeconfig"] = kubeconfig(layout, ports, "proxy", place.api_from_node)
        files["kubelet.kubeconfig"] = kubeconfig(layout, ports, "kubelet", place.api_from_node)
        files["containerd.toml"] = containerd(layout)
        files["cni/10-mlperf.conflist"] = cni(layout, place)
        files["kubelet.json"] = kubelet(layout, ports, place)
        files["kube-proxy.json"] = kube_proxy(layout, ports, place)
    return Files(files)


def _json(value: dict[str, object]) -> str:
    return json.dumps(value, indent=2) + "\n"
