"""What can be found out beforehand is found out before the running driver is touched."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mlperf_operator.catalogue import Repository, Target
from mlperf_operator.driver_report import REMEDIES, NodeReport, Reason
from node import debian_root, packages, repository
from node.node import LOCK, Node, target
from node.repository import Server

pytestmark = pytest.mark.integration

OLD, FIRST = packages.OLD_BRANCH, packages.FIRST
EFI = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def refused(node: Node, wanted: Target, reason: Reason) -> NodeReport:
    """Return the report of an attempt that must refuse for this reason and leave everything as it was."""
    before, state = node.fingerprint(), (node.every_package(), node.loaded(), node.active("nvidia-fabricmanager"))
    node.forget_calls()
    outcome = node.ensure(wanted)
    assert (outcome.code, outcome.report.reason) == (1, reason), outcome
    assert not outcome.report.ready
    assert not outcome.report.changed
    assert REMEDIES[reason] in outcome.report.message
    assert node.changes() == []
    assert (node.every_package(), node.loaded(), node.active("nvidia-fabricmanager")) == state
    after = node.fingerprint()
    ours = ("etc/apt", "var/lib/apt", "var/lib/dpkg", "var/lib/mlperf-operator")
    assert {
        name for name in {**before, **after} if before.get(name) != after.get(name) and not name.startswith(ours)
    } == set()
    return outcome.report


def no_gpu(node: Node) -> None:
    node.without(debian_root.GPU_CLASS)


def nouveau(node: Node) -> None:
    (node.root / "sys/module/nouveau").mkdir()


def secure_boot(node: Node) -> None:
    file = node.root / EFI
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\x06\x00\x00\x00\x01")


def no_headers(node: Node) -> None:
    folder = node.root / debian_root.headers()
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (no_gpu, Reason.NO_GPU),
        (nouveau, Reason.NOUVEAU_LOADED),
        (secure_boot, Reason.SECURE_BOOT),
        (no_headers, Reason.HEADERS_MISSING),
    ],
)
def test_a_node_that_cannot_have_the_driver_is_refused(
    node: Node, packages_of: Repository, arrange: Callable[[Node], None], reason: Reason
) -> None:
    arrange(node)
    refused(node, target(packages_of), reason)


def test_a_signed_module_is_installed_under_secure_boot(node: Node, packages_of: Repository) -> None:
    secure_boot(node)
    node.made_ready(target(packages_of, signed_module=True))


def test_a_system_without_a_source_is_refused_and_named(node: Node, packages_of: Repository) -> None:
    report = refused(node, target(packages_of, os=("rocky 9",)), Reason.UNSUPPORTED_OS)
    assert "debian" in report.message or "ubuntu" in report.message


def test_too_little_space_is_refused(node: Node, packages_of: Repository) -> None:
    wanted = target(packages_of)
    assert wanted.driver is not None
    greedy = wanted.driver.model_copy(update={"min_free_bytes": 1 << 60})
    refused(node, wanted.model_copy(update={"driver": greedy}), Reason.DISK_FULL)


def test_a_driver_of_somebody_else_is_refused(node: Node, packages_of: Repository, server: Server) -> None:
    node.by_hand(server, OLD)
    report = refused(node, target(packages_of), Reason.DRIVER_PRESENT)
    assert report.driver == OLD
    assert OLD in report.message


def test_a_process_that_uses_a_gpu_is_named(old_node: Node, packages_of: Repository) -> None:
    with (old_node.root / "dev/nvidia0").open() as device:
        process = subprocess.Popen(["sleep", "300"], stdin=device)
    try:
        report = refused(old_node, target(packages_of), Reason.GPU_IN_USE)
    finally:
        process.kill()
        process.wait()
    assert [(user.pid, user.command.split()[0]) for user in report.users] == [(process.pid, "sleep")]
    assert str(process.pid) in report.message
    old_node.made_ready(target(packages_of))


def test_a_hold_of_somebody_else_is_refused_and_named(node: Node, packages_of: Repository, server: Server) -> None:
    node.by_hand(server, OLD)
    node.run("apt-mark", "hold", "nvidia-driver-535-server")
    report = refused(node, target(packages_of, mode="Adopt"), Reason.PACKAGE_HELD)
    assert "nvidia-driver-535-server" in report.message
    node.run("apt-mark", "unhold", "nvidia-driver-535-server")
    node.made_ready(target(packages_of, mode="Adopt"))


def test_a_package_that_somebody_else_left_half_configured_is_refused_and_named(
    node: Node, packages_of: Repository, server: Server
) -> None:
    node.fails(f"postinst {packages.TOOLKIT}", "it does not work")
    with pytest.raises(AssertionError, match="it does not work"):
        node.apt(server, "install", packages.TOOLKIT)
    node.no_knobs()
    report = refused(node, target(packages_of), Reason.PACKAGE_MANAGER_BROKEN)
    assert packages.TOOLKIT in report.message
    node.run("dpkg", "--configure", "-a")
    node.made_ready(target(packages_of))


def test_a_package_manager_at_work_is_waited_for_by_another_attempt(old_node: Node, packages_of: Repository) -> None:
    with (old_node.root / "var/lib/dpkg/lock-frontend").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        refused(old_node, target(packages_of), Reason.PACKAGE_MANAGER_BUSY)
    old_node.made_ready(target(packages_of))


def test_two_agents_do_not_work_on_one_node(old_node: Node, packages_of: Repository) -> None:
    with (old_node.root / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(old_node, target(packages_of), Reason.NODE_LOCKED)
    old_node.made_ready(target(packages_of))


def test_a_driver_container_at_work_is_left_alone(node: Node, packages_of: Repository) -> None:
    file = node.root / "run/nvidia/nvidia-driver.pid"
    file.parent.mkdir()
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = node.ensure(target(packages_of))
    assert outcome.code == 1
    assert outcome.report.reason in (Reason.DRIVER_PRESENT, Reason.NODE_LOCKED)
    assert node.changes() == []


def test_a_repository_that_is_gone_leaves_the_old_driver_at_work(
    old_node: Node, packages_of: Repository, server: Server
) -> None:
    server.stop()
    report = refused(old_node, target(packages_of), Reason.REPOSITORY_UNREACHABLE)
    assert server.url in report.message
    assert report.driver == OLD
    server.healthy()
    old_node.made_ready(target(packages_of))


def test_a_package_that_the_repository_lost_leaves_the_old_driver_at_work(
    old_node: Node, packages_of: Repository, server: Server
) -> None:
    server.missing.add("nvidia-dkms-550-server")
    outcome = old_node.ensure(target(packages_of))
    assert outcome.code == 1
    assert outcome.report.reason in (Reason.REPOSITORY_UNREACHABLE, Reason.PACKAGES_NOT_FOUND)
    assert not outcome.report.changed
    assert old_node.changes() == []


def test_a_version_that_the_repository_does_not_have_is_named(old_node: Node, packages_of: Repository) -> None:
    report = refused(old_node, target(packages_of, "550.99.99"), Reason.PACKAGES_NOT_FOUND)
    assert "550.99.99" in report.message


def test_packages_signed_by_another_key_are_not_installed(
    old_node: Node, packages_of: Repository, tmp_path: Path
) -> None:
    with repository.signing_key() as other:
        stranger = packages_of.model_copy(update={"key": other.public()})
    outcome = old_node.ensure(target(stranger))
    assert outcome.code == 1
    assert not outcome.report.changed
    assert old_node.changes() == []
    assert old_node.loaded() == OLD
