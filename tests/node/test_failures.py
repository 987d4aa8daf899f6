"""What fails after the change began: the old driver comes back, and the report says what the node has now."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlperf_operator.catalogue import Repository
from mlperf_operator.driver_report import Reason
from node import debian_root, packages
from node.node import Node, Outcome, target, wanted_packages

pytestmark = pytest.mark.integration

OLD, FIRST = packages.OLD_BRANCH, packages.FIRST
REJECTED = "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service"


def failed(node: Node, outcome: Outcome, reason: Reason) -> None:
    """The attempt ended for this reason, and the report tells no lie about the node."""
    assert (outcome.code, outcome.report.reason) == (1, reason), outcome
    assert not outcome.report.ready
    assert outcome.report.driver == node.loaded()


def assert_old_driver_at_work(node: Node) -> None:
    assert node.installed() == wanted_packages(OLD)
    assert node.held() == set(wanted_packages(OLD))
    assert node.loaded() == OLD
    assert node.active("nvidia-fabricmanager")
    assert node.run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split() == [OLD] * 8


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("postinst nvidia-dkms-550-server", "Error! Bad return status for module build"),
        ("preinst nvidia-utils-550-server", ""),
        ("postinst nvidia-fabricmanager-550", ""),
    ],
)
def test_a_package_that_fails_brings_the_old_driver_back(
    old_node: Node, packages_of: Repository, moment: str, words: str
) -> None:
    old_node.fails(moment, words)
    outcome = old_node.ensure(target(packages_of))
    failed(old_node, outcome, Reason.INSTALL_FAILED)
    assert words in outcome.report.message
    assert moment.split()[1] in outcome.report.message
    assert_old_driver_at_work(old_node)
    old_node.no_knobs()
    old_node.made_ready(target(packages_of))
    assert old_node.installed() == wanted_packages(FIRST)


def test_a_module_whose_key_is_rejected_brings_the_old_driver_back(old_node: Node, packages_of: Repository) -> None:
    old_node.fails("modprobe nvidia", REJECTED, once=True)
    outcome = old_node.ensure(target(packages_of))
    failed(old_node, outcome, Reason.SECURE_BOOT)
    assert "Key was rejected" in outcome.report.message
    assert_old_driver_at_work(old_node)
    old_node.made_ready(target(packages_of))


def test_a_module_that_does_not_load_on_a_fresh_node_is_tried_again(node: Node, packages_of: Repository) -> None:
    node.fails("modprobe nvidia", "modprobe: ERROR: could not insert 'nvidia': Invalid argument")
    failed(node, node.ensure(target(packages_of)), Reason.MODULE_LOAD_FAILED)
    node.no_knobs()
    node.made_ready(target(packages_of))


def test_a_fabric_manager_that_does_not_start_is_a_failure_with_its_last_words(
    node: Node, packages_of: Repository
) -> None:
    node.fails("systemctl start nvidia-fabricmanager", "failed to initialize all the available NVSwitches")
    outcome = node.ensure(target(packages_of))
    failed(node, outcome, Reason.FABRIC_MANAGER_FAILED)
    assert "failed to initialize all the available NVSwitches" in outcome.report.message
    node.no_knobs()
    node.made_ready(target(packages_of))
    assert node.active("nvidia-fabricmanager")


def test_a_module_that_something_unknown_uses_asks_for_a_reboot(old_node: Node, packages_of: Repository) -> None:
    count = old_node.root / "sys/module/nvidia/refcnt"
    count.write_text(f"{int(count.read_text()) + 1}\n")
    outcome = old_node.ensure(target(packages_of))
    failed(old_node, outcome, Reason.REBOOT_REQUIRED)
    assert_old_driver_at_work(old_node)
    count.write_text(f"{int(count.read_text()) - 1}\n")
    old_node.made_ready(target(packages_of))


def test_a_containerd_that_does_not_come_up_gets_its_old_file_back(node: Node, packages_of: Repository) -> None:
    node.knob("containerd-rejects", "nvidia\n")
    outcome = node.ensure(target(packages_of, toolkit=True))
    failed(node, outcome, Reason.TOOLKIT_FAILED)
    assert (node.root / "etc/containerd/config.toml").read_text() == debian_root.CONTAINERD_CONFIG
    assert node.active("containerd")
    node.no_knobs()
    node.made_ready(target(packages_of, toolkit=True))


@pytest.fixture
def small_node(old_base: Path, tmp_path: Path) -> Iterator[Node]:
    """A node with the old driver whose disk is a tmpfs of 192 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=192m,mode=755", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a disk of limited size cannot be mounted here: {mounted.stderr.strip()}")
    try:
        debian_root.copy(old_base, place / "root")
        yield Node(place / "root", tmp_path)
    finally:
        debian_root.remove(place)


def test_a_full_disk_leaves_the_old_driver_at_work(small_node: Node, packages_of: Repository) -> None:
    filler = small_node.root / "opt/filler"
    space = small_node.free_bytes()
    with filler.open("wb") as file:
        file.write(bytes(space - 16384))
    outcome = small_node.ensure(target(packages_of))
    failed(small_node, outcome, Reason.DISK_FULL)
    filler.unlink()
    assert_old_driver_at_work(small_node)
    small_node.made_ready(target(packages_of))
