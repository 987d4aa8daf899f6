"""Addresses and ports: what is chosen, and what is refused."""

import ipaddress
import socket
import sys
from dataclasses import fields

import pytest
from local_cluster import network, ports
from local_cluster.addresses import SLOTS, free_slot, place
from local_cluster.errors import RefusalError
from local_cluster.layout import Ports

EVERYWHERE = socket.inet_ntoa(bytes(4))
HEADER = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"


def _route(interface: str, destination: str, mask: str) -> str:
    def number(address: str) -> str:
        return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}"

    return f"{interface} {number(destination)} 00000000 0001 0 0 0 {number(mask)} 0 0 0\n"


@pytest.mark.parametrize(
    ("interface", "destination", "mask", "taken"),
    [
        ("eth0", EVERYWHERE, EVERYWHERE, None),
        ("eth0", "192.168.0.0", "255.255.0.0", None),
        ("mlperf0", "10.99.0.0", "255.255.255.0", None),
        ("veth1a2b3c", "10.97.0.5", "255.255.255.255", None),
        ("tun0", "10.0.0.0", "255.0.0.0", "10.0.0.0/8 on tun0"),
        ("docker0", "10.97.8.0", "255.255.255.0", "10.97.8.0/24 on docker0"),
        ("veth1a2b3c", "10.97.0.0", "255.255.0.0", "10.97.0.0/16 on veth1a2b3c"),
    ],
)
def test_a_route_inside_the_clusters_ranges_is_found(
    interface: str, destination: str, mask: str, taken: str | None
) -> None:
    assert network.overlapping(HEADER + _route(interface, destination, mask), place(0)) == taken


def test_pods_keep_their_address_among_themselves_and_hide_it_from_the_world() -> None:
    rule = next(line for line in network.nft_rules(place(0)).splitlines() if "masquerade" in line)
    assert "ip saddr 10.97.0.0/16 " in rule
    assert "ip daddr != { 10.97.0.0/16, 10.96.0.0/16, 10.99.0.0/24 }" in rule


def test_a_further_node_leaves_the_machine_under_its_address_as_its_pods_do() -> None:
    rule = next(line for line in network.nft_rules(place(1)).splitlines() if "masquerade" in line)
    assert "ip saddr { 10.98.5.0/24, 10.98.4.0/24 } " in rule
    assert "ip daddr != { 10.98.5.0/24, 10.98.6.0/24, 10.98.4.0/24 }" in rule
    assert ("-s", "10.98.4.0/24") in {forward[:2] for forward in network.forward_rules(place(1))}


@pytest.mark.parametrize("slot", SLOTS)
def test_the_routes_of_one_cluster_are_in_no_others_way(slot: int) -> None:
    other = place(slot)
    routes = [ipaddress.IPv4Network(cidr) for cidr in other.ranges]
    table = HEADER + "".join(_route(other.interface, str(cidr[0]), str(cidr.netmask)) for cidr in routes)
    assert [network.overlapping(table, place(mine)) for mine in SLOTS] == [None] * len(SLOTS)


def test_every_slot_has_names_and_addresses_of_its_own() -> None:
    for name in ("interface", "nft_table", "cni_network", "cgroup", "node_ip", "pod_cidr", "service_cidr"):
        assert len({getattr(place(slot), name) for slot in SLOTS}) == len(SLOTS)
    assert all(len(place(slot).interface) < 16 for slot in SLOTS)


@pytest.mark.parametrize(("taken", "free"), [([], 0), ([0], 1), ([1], 0), ([0, 2], 1), ([0, 0, 1], 2)])
def test_a_cluster_gets_the_lowest_slot_that_is_free(taken: list[int], free: int) -> None:
    assert free_slot(taken) == free


def test_no_free_slot_is_refused() -> None:
    with pytest.raises(RefusalError, match="16 clusters with a node are on this machine already"):
        free_slot(SLOTS)


@pytest.mark.parametrize(("slot", "address"), [(0, "10.96.0.1"), (1, "10.98.6.1")])
def test_the_first_service_address_lies_in_the_service_range(slot: int, address: str) -> None:
    assert place(slot).service_ip == address
    assert ipaddress.ip_address(address) in ipaddress.ip_network(place(slot).service_cidr)


def test_a_control_plane_gets_ports_that_are_free_and_nobody_elses() -> None:
    reserved = set(ports.FREE_RANGE) - set(range(20100, 20120))
    chosen = ports.choose_free(reserved, lambda port: port % 2 == 0)
    numbers = list(vars(chosen).values())
    assert sorted(numbers) == sorted(set(numbers))
    assert all(port in range(20100, 20120) and port % 2 == 0 for port in numbers)


def test_no_free_ports_are_refused() -> None:
    with pytest.raises(RefusalError, match="no free ports between 20000 and 30000"):
        ports.choose_free([], lambda _: False)


def test_a_control_plane_listens_on_five_ports_and_a_first_node_on_the_others() -> None:
    assert set(ports.used_ports(Ports(), node=False)) == {
        "etcd",
        "etcd_peer",
        "apiserver",
        "controller_manager",
        "scheduler",
    }
    assert len(ports.used_ports(Ports(), node=True)) == len(fields(Ports))


def test_a_taken_port_is_refused_and_its_holder_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(RefusalError, match=rf"port {port} \(etcd peer\) is taken by \S.* \(process \d+\)"):
            ports.refuse_taken({"etcd_peer": port})


def test_a_free_port_is_not_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ports.refuse_taken({"etcd": port})


def test_only_listening_sockets_count() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1\n"
        "   1: 0100007F:192B 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 222 1\n"
        "   2: 00000000:192C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1\n"
    )
    assert ports.listening_inodes(table, 6443) == {"111"}
