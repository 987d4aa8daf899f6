"""The node's addresses, its bridge and its rules for leaving the machine; pure planning first, effects after."""

import ipaddress
import subprocess
import sys
from pathlib import Path

from local_cluster.errors import ClusterError, RefusalError

BRIDGE = "mlperf0"
NODE_IP = "10.99.0.1"
NODE_CIDR = "10.99.0.1/24"
POD_CIDR = "10.97.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
SERVICE_IP = "10.96.0.1"
NFT_TABLE = "mlperf-local-cluster"
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
_COMMENT = ("-m", "comment", "--comment", NFT_TABLE)
_FORWARDS = (("-s", POD_CIDR, *_COMMENT, "-j", "ACCEPT"), ("-d", POD_CIDR, *_COMMENT, "-j", "ACCEPT"))


def overlapping(routes: str) -> str | None:
    """Return the first route that overlaps a range of the cluster and is not a pod's or the bridge's.

    `routes` is the text of /proc/net/route, whose numbers are hexadecimal in the order of this machine's memory.
    """
    ours = [ipaddress.ip_network(cidr, strict=False) for cidr in (NODE_CIDR, POD_CIDR, SERVICE_CIDR)]
    for row in (line.split() for line in routes.splitlines()[1:]):
        interface, mask = row[0], _address(row[7])
        route = ipaddress.ip_network(f"{_address(row[1])}/{mask}", strict=False)
        own = interface == BRIDGE or (interface.startswith("veth") and route.prefixlen == 32)
        if route.prefixlen > 0 and not own and any(route.overlaps(network) for network in ours):
            return f"{route} on {interface}"
    return None


def _address(number: str) -> str:
    return str(ipaddress.ip_address(int(number, 16).to_bytes(4, sys.byteorder)))


def nft_rules() -> str:
    """Return the rules that give pods the machine's address when they talk to the world outside."""
    own = f"{{ {POD_CIDR}, {SERVICE_CIDR}, {ipaddress.ip_network(NODE_CIDR, strict=False)} }}"
    return f"""table ip {NFT_TABLE}
delete table ip {NFT_TABLE}
table ip {NFT_TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {POD_CIDR} ip daddr != {own} masquerade
  }}
}}
"""


def refuse_overlap() -> None:
    """Refuse when the machine already routes one of the cluster's ranges elsewhere."""
    taken = overlapping(Path("/proc/net/route").read_text())
    if taken:
        ranges = f"{POD_CIDR}, {SERVICE_CIDR} and {NODE_CIDR}"
        raise RefusalError(f"this machine already has a route to {taken}, inside the cluster's ranges ({ranges})")


def ensure() -> None:
    """Create the bridge with the node's address, the masquerade rule and the forward rules."""
    if not _works("ip", "link", "show", BRIDGE):
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "replace", NODE_CIDR, "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    _run("nft", "-f", "-", stdin=nft_rules())
    for rule in _FORWARDS if forward_is_dropped() else ():
        if not _works("iptables", "-C", "FORWARD", *rule):
            _run("iptables", "-I", "FORWARD", *rule)


def forward_is_dropped() -> bool:
    """Say whether iptables drops forwarded packets, as Docker sets it: then pods reach nothing without a rule."""
    return "-P FORWARD DROP" in _read("iptables", "-S", "FORWARD")


def remove() -> None:
    """Remove the bridge and every rule that the cluster made, those of its kube-proxy too."""
    if _works("ip", "link", "show", BRIDGE):
        _run("ip", "link", "delete", BRIDGE)
    tables = _read("nft", "list", "tables").splitlines()
    for family, table in (("ip", NFT_TABLE), ("ip", "kube-proxy"), ("ip6", "kube-proxy")):
        if f"table {family} {table}" in tables:
            _run("nft", "delete", "table", family, table)
    for rule in _FORWARDS:
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
