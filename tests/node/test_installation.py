"""The agent makes a node match: fresh, from another version, and not at all where nothing is to be done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlperf_operator.catalogue import Repository
from mlperf_operator.driver_report import Reason
from node import debian_root, packages, repository
from node.node import Node, target, wanted_packages
from node.repository import Server

pytestmark = pytest.mark.integration

OLD, FIRST, SECOND = packages.OLD_BRANCH, packages.FIRST, packages.SECOND


def assert_matches(node: Node, version: str) -> None:
    """Everything on the node has this version, and runs."""
    assert node.installed() == wanted_packages(version)
    assert node.held() == set(wanted_packages(version))
    assert node.loaded() == version
    assert node.active("nvidia-fabricmanager")
    assert node.active("nvidia-persistenced")
    assert node.record()["version"] == version
    assert node.record()["state"] == "Complete"


def test_a_fresh_node_gets_driver_and_fabric_manager(node: Node, packages_of: Repository) -> None:
    report = node.made_ready(target(packages_of)).report
    assert (report.ready, report.reason, report.changed) == (True, Reason.MATCHED, True)
    assert (report.driver, report.fabric_manager) == (FIRST, FIRST)
    assert (report.gpus, report.managed_by) == (8, "mlperf-operator")
    assert "A100-SXM4-40GB" in (report.product or "")
    assert_matches(node, FIRST)


def test_a_second_attempt_changes_nothing_and_asks_no_repository(
    node: Node, packages_of: Repository, server: Server
) -> None:
    node.made_ready(target(packages_of))
    before = node.fingerprint()
    node.forget_calls()
    server.requested.clear()
    report = node.made_ready(target(packages_of)).report
    assert not report.changed
    assert report.managed_by == "mlperf-operator"
    assert node.fingerprint() == before
    assert node.changes() == []
    assert server.requested == []


@pytest.mark.parametrize(("before", "after"), [(OLD, FIRST), (FIRST, SECOND), (SECOND, FIRST), (FIRST, OLD)])
def test_another_version_replaces_what_is_there(node: Node, packages_of: Repository, before: str, after: str) -> None:
    node.made_ready(target(packages_of, before))
    node.forget_calls()
    assert node.made_ready(target(packages_of, after)).report.changed
    assert_matches(node, after)
    calls = node.calls()
    order = ["systemctl stop nvidia-fabricmanager", "rmmod nvidia_uvm", "rmmod nvidia"]
    order += [
        f"preinst {packages.driver_packages(after)[1]}",
        "modprobe nvidia",
        "systemctl start nvidia-fabricmanager",
    ]
    assert sorted(order, key=calls.index) == order


def test_a_fabric_manager_of_another_version_is_repaired(node: Node, packages_of: Repository, server: Server) -> None:
    node.made_ready(target(packages_of))
    node.apt(server, "install", f"nvidia-fabricmanager-550={SECOND}-1")
    assert not node.active("nvidia-fabricmanager")
    assert node.made_ready(target(packages_of)).report.changed
    assert_matches(node, FIRST)


@pytest.fixture
def needy_server(base: Path, tmp_path: Path) -> Iterator[Server]:
    """A repository as NVIDIA's: the driver depends on nvidia-modprobe, of which it serves the newest branch's."""
    driver, *rest = packages.driver_debs(FIRST)
    depends = f"{driver.relations['Depends']}, nvidia-modprobe"
    needy = replace(driver, relations={**driver.relations, "Depends": depends})
    modprobe = packages.Deb("nvidia-modprobe", "580.65.06-1")
    folder = tmp_path / "repository"
    folder.mkdir()
    with repository.signing_key() as key:
        debs = [packages.build(deb, folder) for deb in (needy, *rest, modprobe, packages.driver_debs(SECOND)[3])]
        repository.index(folder, key, debs)
        server = Server(folder, key)
        server.start()
        yield server
        server.stop()


def test_a_repair_never_takes_away_the_driver_beside_it(node: Node, needy_server: Server) -> None:
    wanted = target(needy_server.repository())
    node.made_ready(wanted)
    node.apt(needy_server, "install", f"nvidia-fabricmanager-550={SECOND}-1")
    # Holds keep apt from it as long as they are there.
    node.run("apt-mark", "unhold", *wanted_packages(FIRST))
    node.made_ready(wanted)
    assert_matches(node, FIRST)
    assert "nvidia-modprobe 580.65.06-1 install ok installed" in node.every_package()


def test_a_service_that_somebody_stopped_is_started_again(node: Node, packages_of: Repository) -> None:
    node.made_ready(target(packages_of))
    node.run("systemctl", "stop", "nvidia-fabricmanager")
    node.forget_calls()
    node.made_ready(target(packages_of))
    assert node.active("nvidia-fabricmanager")
    assert not [call for call in node.calls() if call.startswith(("preinst", "postinst", "rmmod"))]


def test_a_node_without_nvswitch_gets_no_fabric_manager(node: Node, packages_of: Repository) -> None:
    node.without(debian_root.SWITCH_CLASS)
    report = node.made_ready(target(packages_of)).report
    assert report.fabric_manager is None
    assert set(node.installed()) == set(packages.driver_packages(FIRST))
    assert not [call for call in node.calls() if "fabricmanager" in call]


def test_the_toolkit_is_installed_and_containerd_configured_once(node: Node, packages_of: Repository) -> None:
    node.made_ready(target(packages_of, toolkit=True))
    assert node.installed()[packages.TOOLKIT] == packages.TOOLKIT_VERSION
    assert packages.TOOLKIT in node.held()
    config = (node.root / "etc/containerd/config.toml").read_text()
    assert config.startswith(debian_root.CONTAINERD_CONFIG)
    assert config.count(".runtimes.nvidia]") == 1
    assert node.made_ready(target(packages_of, toolkit=True)).report.changed is False
    node.made_ready(target(packages_of, SECOND, toolkit=True))
    assert (node.root / "etc/containerd/config.toml").read_text() == config
    assert node.calls().count("systemctl restart containerd") == 1


def test_a_driver_that_matches_already_is_taken_as_it_is(node: Node, packages_of: Repository, server: Server) -> None:
    node.by_hand(server, FIRST)
    before = node.fingerprint()
    report = node.made_ready(target(packages_of)).report
    assert (report.changed, report.managed_by) == (False, "host")
    assert node.fingerprint() == before


def test_adopting_replaces_a_driver_of_somebody_else(node: Node, packages_of: Repository, server: Server) -> None:
    node.by_hand(server, OLD)
    node.made_ready(target(packages_of, mode="Adopt"))
    assert_matches(node, FIRST)


def test_verify_changes_nothing_whatever_it_finds(node: Node, packages_of: Repository, server: Server) -> None:
    node.by_hand(server, OLD)
    node.run("systemctl", "stop", "nvidia-fabricmanager")
    before = node.fingerprint()
    outcome = node.ensure(target(packages_of, mode="Verify"))
    assert outcome.code == 0
    assert not outcome.report.ready
    assert not outcome.report.changed
    assert outcome.report.driver == OLD
    assert node.fingerprint() == before
