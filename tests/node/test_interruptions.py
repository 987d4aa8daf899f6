"""Whatever moment the pod is killed at, the next attempt goes on from there and the node matches."""

from __future__ import annotations

import threading

import pytest

from mlperf_operator.catalogue import Repository, Target
from mlperf_operator.driver_report import Reason
from node import packages
from node.node import Node, Outcome, target, terminate, wait_for, wanted_packages
from node.repository import Server

pytestmark = pytest.mark.integration

OLD, FIRST = packages.OLD_BRANCH, packages.FIRST
MOMENTS = (
    "systemctl stop nvidia-fabricmanager",
    "rmmod nvidia_uvm",
    "rmmod nvidia",
    "prerm nvidia-dkms-535-server",
    "preinst nvidia-utils-550-server",
    "postinst nvidia-dkms-550-server",
    "postinst nvidia-driver-550-server",
    "modprobe nvidia",
    "modprobe nvidia_uvm",
    "systemctl start nvidia-persistenced",
    "systemctl start nvidia-fabricmanager",
    f"preinst {packages.TOOLKIT}",
    f"postinst {packages.TOOLKIT}",
    "nvidia-ctk",
    "systemctl stop containerd",
    "systemctl start containerd",
)
TOOLKIT = {packages.TOOLKIT: packages.TOOLKIT_VERSION}


def assert_whole(node: Node) -> None:
    """Nothing is left of the interruption."""
    wanted = wanted_packages(FIRST) | TOOLKIT
    assert node.dpkg() == {name: (version, "installed") for name, version in wanted.items()}
    assert node.held() == set(wanted)
    assert node.loaded() == FIRST
    assert all(node.active(unit) for unit in ("nvidia-fabricmanager", "nvidia-persistenced", "containerd"))
    assert (node.root / "etc/containerd/config.toml").read_text().count(".runtimes.nvidia]") == 1
    assert node.record()["state"] == "Complete"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_pod_that_is_killed_is_resumed(old_node: Node, packages_of: Repository, moment: str) -> None:
    wanted = target(packages_of, toolkit=True)
    old_node.slow(moment)
    process = old_node.start(wanted)
    try:
        wait_for(lambda: old_node.reached(moment), process=process)
    finally:
        old_node.kill(process)
    assert old_node.record()["state"] == "Changing"
    old_node.no_knobs()
    old_node.made_ready(wanted)
    assert_whole(old_node)


@pytest.mark.parametrize("file", ["InRelease", "nvidia-utils-550-server"])
def test_a_pod_that_is_killed_while_it_fetches_has_touched_nothing(
    old_node: Node, packages_of: Repository, server: Server, file: str
) -> None:
    wanted = target(packages_of, toolkit=True)
    server.requested.clear()
    server.held[file] = threading.Event()
    process = old_node.start(wanted)
    try:
        wait_for(lambda: any(file in path for path in server.requested), process=process)
    finally:
        old_node.kill(process)
    assert old_node.installed() == wanted_packages(OLD)
    assert old_node.loaded() == OLD
    assert old_node.active("nvidia-fabricmanager")
    server.healthy()
    old_node.made_ready(wanted)
    assert_whole(old_node)


def test_a_pod_that_is_killed_twice_is_resumed(old_node: Node, packages_of: Repository) -> None:
    wanted = target(packages_of, toolkit=True)
    for moment in ("postinst nvidia-dkms-550-server", "modprobe nvidia"):
        old_node.slow(moment)
        process = old_node.start(wanted)
        try:
            wait_for(lambda moment=moment: old_node.reached(moment), process=process)  # type: ignore[misc]
        finally:
            old_node.kill(process)
        old_node.no_knobs()
    old_node.made_ready(wanted)
    assert_whole(old_node)


def test_another_version_may_follow_a_pod_that_was_killed(old_node: Node, packages_of: Repository) -> None:
    moment = "postinst nvidia-dkms-550-server"
    old_node.slow(moment)
    process = old_node.start(target(packages_of))
    try:
        wait_for(lambda: old_node.reached(moment), process=process)
    finally:
        old_node.kill(process)
    old_node.no_knobs()
    old_node.made_ready(target(packages_of, OLD))
    assert old_node.dpkg() == {name: (version, "installed") for name, version in wanted_packages(OLD).items()}
    assert old_node.loaded() == OLD


def terminated_at(node: Node, moment: str, wanted: Target) -> Outcome:
    """Ask the agent to end at a moment that lasts a while, and return how it ended."""
    node.slow(moment, 3)
    process = node.start(wanted)
    wait_for(lambda: node.reached(moment), process=process)
    terminate(process)
    return node.finish(process, 30)


def test_a_pod_that_is_asked_to_end_amid_the_transaction_leaves_the_new_driver(
    old_node: Node, packages_of: Repository
) -> None:
    outcome = terminated_at(old_node, "postinst nvidia-dkms-550-server", target(packages_of))
    assert (outcome.code, outcome.report.reason) == (0, Reason.MATCHED), outcome
    assert old_node.installed() == wanted_packages(FIRST)
    assert old_node.loaded() == FIRST
    assert old_node.active("nvidia-fabricmanager")


def test_a_pod_that_is_asked_to_end_before_the_transaction_leaves_the_old_driver(
    old_node: Node, packages_of: Repository
) -> None:
    outcome = terminated_at(old_node, "rmmod nvidia", target(packages_of))
    assert (outcome.code, outcome.report.reason) == (1, Reason.INTERRUPTED), outcome
    assert "the driver that was there runs again" in outcome.report.message
    assert old_node.installed() == wanted_packages(OLD)
    assert old_node.loaded() == OLD
    assert old_node.active("nvidia-fabricmanager")
    old_node.no_knobs()
    old_node.made_ready(target(packages_of))
    assert old_node.installed() == wanted_packages(FIRST)
