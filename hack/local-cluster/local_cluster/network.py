"""The node's interface and the rules for leaving the machine; pure planning first, effects after."""

import ipaddress
import subprocess
import sys
from pathlib import Path

from local_cluster import addresses, mounts
from local_cluster.addresses import Place
from local_cluster.errors import ClusterError, RefusalError

OWN_SYSCTLS = {"net.ipv4.ip_forward": "1"}
# The kubelet sets these when it starts (pkg/kubelet/cm, setupKernelTunables); `down` puts the old values back.
KUBELET_SYSCTLS = (
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)
_NODE_INTERFACE = "eth0"
NODE_IP = addresses.place(0).node_ip
"""The first node's address. That node has the machine's own network: its pods reach what listens here."""


def overlapping(routes: str, place: Place) -> str | None:
    """Return the first route that overlaps a range of the cluster and is not a pod's or the node's own.

    `routes` is the text of /proc/net/route, whose numbers are hexadecimal in the order of this machine's memory.
    """
    ours = [ipaddress.ip_network(cidr) for cidr in place.ranges]
    for row in (line.split() for line in routes.splitlines()[1:]):
        interface, mask = row[0], _address(row[7])
        route = ipaddress.ip_network(f"{_address(row[1])}/{mask}", strict=False)
        own = interface == place.interface or (interface.startswith("veth") and route.prefixlen == 32)
        if route.prefixlen > 0 and not own and any(route.overlaps(network) for network in ours):
            return f"{route} on {interface}"
    return None


def _address(number: str) -> str:
    return str(ipaddress.ip_address(int(number, 16).to_bytes(4, sys.byteorder)))


def nft_rules(place: Place) -> str:
    """Return the rules that give pods the machine's address when they talk to the world outside.

    In a namespace of its own the node does so too.
    """
    inside = f"{{ {place.pod_cidr}, {place.node_network} }}" if place.own_namespace else place.pod_cidr
    return f"""table ip {place.nft_table}
delete table ip {place.nft_table}
table ip {place.nft_table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {inside} ip daddr != {{ {", ".join(place.ranges)} }} masquerade
  }}
}}
"""


def forward_rules(place: Place) -> list[tuple[str, ...]]:
    """Return the iptables rules that let packets of the cluster pass where the machine drops what it forwards."""
    comment = ("-m", "comment", "--comment", place.nft_table)
    inside = (place.pod_cidr, place.node_network) if place.own_namespace else (place.pod_cidr,)
    return [(direction, cidr, *comment, "-j", "ACCEPT") for cidr in inside for direction in ("-s", "-d")]


def refuse_overlap(place: Place) -> None:
    """Refuse when the machine already routes one of the cluster's ranges elsewhere."""
    taken = overlapping(Path("/proc/net/route").read_text(), place)
    if taken:
        ranges = f"{place.pod_cidr}, {place.service_cidr} and {place.node_cidr}"
        raise RefusalError(f"this machine already has a route to {taken}, inside the cluster's ranges ({ranges})")


def ensure(place: Place, namespace: Path) -> None:
    """Give the node its address, in its own namespace where it has one, and its way out of the machine."""
    if place.own_namespace:
        _ensure_link(place, namespace)
    else:
        _ensure_bridge(place)
    _run("nft", "-f", "-", stdin=nft_rules(place))
    for rule in forward_rules(place) if forward_is_dropped() else ():
        if not _works("iptables", "-C", "FORWARD", *rule):
            _run("iptables", "-I", "FORWARD", *rule)


def _ensure_bridge(place: Place) -> None:
    if not _works("ip", "link", "show", place.interface):
        _run("ip", "link", "add", place.interface, "type", "bridge")
    _run("ip", "address", "replace", place.node_cidr, "dev", place.interface)
    _run("ip", "link", "set", place.interface, "up")


def _ensure_link(place: Place, namespace: Path) -> None:
    """Make the namespace, a link to it, and the routes through that: to pods and services, and to the world."""
    if not mounts.below(Path("/proc/self/mountinfo").read_text(), namespace):
        namespace.touch()
        _run("unshare", f"--net={namespace}", "true")
    if not _works("ip", "link", "show", place.interface):
        peer = ("peer", "name", _NODE_INTERFACE, "netns", str(namespace))
        _run("ip", "link", "add", place.interface, "type", "veth", *peer)
    prefix = ipaddress.ip_network(place.node_network).prefixlen
    _run("ip", "address", "replace", f"{place.api_ip}/{prefix}", "dev", place.interface)
    _run("ip", "link", "set", place.interface, "up")
    inside = ("nsenter", f"--net={namespace}")
    _run(*inside, "ip", "link", "set", "lo", "up")
    _run(*inside, "ip", "address", "replace", place.node_cidr, "dev", _NODE_INTERFACE)
    _run(*inside, "ip", "link", "set", _NODE_INTERFACE, "up")
    _run(*inside, "ip", "route", "replace", "default", "via", place.api_ip)
    for name, value in OWN_SYSCTLS.items():
        _run(*inside, "sysctl", "-q", "-w", f"{name}={value}")
    for cidr in (place.pod_cidr, place.service_cidr):
        _run("ip", "route", "replace", cidr, "via", place.node_ip)


def forward_is_dropped() -> bool:
    """Say whether iptables drops forwarded packets, as Docker sets it: then pods reach nothing without a rule."""
    return "-P FORWARD DROP" in _read("iptables", "-S", "FORWARD")


def remove(place: Place) -> None:
    """Remove the node's interface and every rule that the cluster made on the machine.

    The rules of a kube-proxy in a namespace of its own go with that.
    """
    # A link goes by itself when its namespace does, perhaps just now.
    if not _works("ip", "link", "delete", place.interface) and _works("ip", "link", "show", place.interface):
        raise ClusterError(f"cannot remove the network interface {place.interface}")
    tables = _read("nft", "list", "tables").splitlines()
    kube_proxy = () if place.own_namespace else (("ip", "kube-proxy"), ("ip6", "kube-proxy"))
    for family, table in (("ip", place.nft_table), *kube_proxy):
        if f"table {family} {table}" in tables:
            _run("nft", "delete", "table", family, table)
    for rule in forward_rules(place):
        if _works("iptables", "-C", "FORWARD", *rule):
            _run("iptables", "-D", "FORWARD", *rule)


def read_sysctls() -> dict[str, str]:
    """Return the present values of the kernel settings that a cluster changes, so that `down` can restore them."""
    values = {}
    for name in (*OWN_SYSCTLS, *KUBELET_SYSCTLS):
        value = _read("sysctl", "-n", name).strip()
        if value:
            values[name] = value
    return values


def write_sysctls(values: dict[str, str]) -> None:
    """Set kernel settings."""
    for name, value in values.items():
        _run("sysctl", "-q", "-w", f"{name}={value}")


def _run(*argv: str, stdin: str = "") -> str:
    answer = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ClusterError(f"{' '.join(argv)} failed: {answer.stderr.strip() or answer.stdout.strip()}")
    return answer.stdout


def _works(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _read(*argv: str) -> str:
    """Return a command's output, nothing when the command fails or does not exist on this machine."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
