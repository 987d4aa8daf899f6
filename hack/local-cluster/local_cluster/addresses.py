"""Where a node has its place on this machine: its slot decides its addresses and its names; pure.

The first cluster with a node has slot 0 and uses the machine's own network. Each further one lives in a network
namespace behind a link: kube-proxy's nftables tables have fixed names, so there can be one set in each namespace.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from local_cluster.errors import RefusalError

SLOTS = range(16)
LOOPBACK = "127.0.0.1"
FURTHER_RANGE = "10.98.0.0/16"
"""Further nodes take their addresses from here: four networks of 256 addresses a slot, the last of them unused."""


@dataclass(frozen=True)
class Place:
    """One node's addresses and the names of what it has on the machine."""

    slot: int
    node_ip: str
    api_ip: str
    node_cidr: str
    pod_cidr: str
    service_cidr: str

    @property
    def own_namespace(self) -> bool:
        """Whether the node's processes run in a network namespace of their own."""
        return self.slot > 0

    @property
    def interface(self) -> str:
        """The machine's interface to the node: a bridge that has the node's address, or the link to its namespace."""
        return f"mlperf{self.slot}"

    @property
    def nft_table(self) -> str:
        """The table with the rules for leaving the machine. It is also the comment of the rules in iptables."""
        return "mlperf-local-cluster" + (f"-{self.slot}" if self.slot else "")

    @property
    def cni_network(self) -> str:
        """The pod network's name. None begins with another's and a hyphen: the CNI library names files so."""
        return f"mlperf{self.slot}" if self.slot else "mlperf-local-cluster"

    @property
    def cgroup(self) -> str:
        """The cgroup below which the kubelet keeps its own, empty for the root."""
        return f"mlperf{self.slot}" if self.slot else ""

    @property
    def health_ip(self) -> str:
        """Where the node's processes say whether they are well, as seen from the machine."""
        return self.node_ip if self.own_namespace else LOOPBACK

    @property
    def api_from_node(self) -> str:
        """Where the node's processes find the API server."""
        return self.api_ip if self.own_namespace else LOOPBACK

    @property
    def service_ip(self) -> str:
        """The address of the service `kubernetes`, the first of its range."""
        return str(next(ipaddress.ip_network(self.service_cidr).hosts()))

    @property
    def node_network(self) -> str:
        """The network that the node's address belongs to."""
        return str(ipaddress.ip_network(self.node_cidr, strict=False))

    @property
    def ranges(self) -> tuple[str, ...]:
        """All networks of the cluster."""
        return self.pod_cidr, self.service_cidr, self.node_network


def place(slot: int) -> Place:
    """Return a slot's addresses."""
    if slot == 0:
        return Place(0, "10.99.0.1", "10.99.0.1", "10.99.0.1/24", "10.97.0.0/16", "10.96.0.0/16")
    nodes, pods, services = list(ipaddress.IPv4Network(FURTHER_RANGE).subnets(new_prefix=24))[4 * slot : 4 * slot + 3]
    return Place(slot, str(nodes[1]), str(nodes[254]), f"{nodes[1]}/24", str(pods), str(services))


def free_slot(taken: Iterable[int]) -> int:
    """Return the lowest slot that no other cluster has.

    Raises:
        RefusalError: all are taken.
    """
    used = set(taken)
    free = next((slot for slot in SLOTS if slot not in used), None)
    if free is None:
        raise RefusalError(f"{len(SLOTS)} clusters with a node are on this machine already; take one down first")
    return free
