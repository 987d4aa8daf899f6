"""A driver from the run file, beside the fabric manager's package; and the ways to and from packages."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent.driver import record
from mlperf_operator.agent.driver.ensure import ensure
from mlperf_operator.agent.driver.sources import runfile
from mlperf_operator.catalogue import Driver, Mode, Target
from mlperf_operator.driver_report import Reason
from unit.agent.driver import test_ensure
from unit.agent.driver.played import KERNEL, Answer, PlayedNode

VERSION, FILE, CONTENT = "550.54.14", "/opt/cuda_12.4.0_550.54.14_linux.run", "#!/bin/sh\n"


def target(mode: Mode = "Install", **changes: Any) -> Target:
    source = {
        "type": "RunFile",
        "os": ["debian"],
        "hostPath": FILE,
        "sha256": hashlib.sha256(CONTENT.encode()).hexdigest(),
        "repository": {"url": "https://packages.example.com", "key": "key"},
        "fabricManager": [{"name": "nvidia-fabricmanager-550", "version": f"{VERSION}-1"}],
        **changes,
    }
    fields = {"branch": "550", "version": VERSION, "minFreeBytes": 0, "sources": [source]}
    return Target(mode=mode, driver=Driver.model_validate(fields))


@pytest.fixture
def node(tmp_path: Path) -> PlayedNode:
    node = PlayedNode(tmp_path, nvswitches=1)
    node.put(FILE, CONTENT)

    def install(words: tuple[str, ...]) -> Answer:
        assert node.loaded() is None
        node.build(VERSION)
        node.put(runfile.UNINSTALLER)
        return 0, ""

    def uninstall(words: tuple[str, ...]) -> Answer:
        assert node.loaded() is None
        node.remove(runfile.UNINSTALLER)
        return 0, ""

    node.answers["sh", FILE] = install
    node.answers[runfile.UNINSTALLER,] = uninstall
    return node


def test_the_run_file_and_the_fabric_manager_of_its_version_are_installed_once(node: PlayedNode) -> None:
    report = ensure(node, target())
    assert report.ready, report
    assert (report.driver, report.fabric_manager) == (VERSION, VERSION)
    assert set(node.installed) == {"dpkg", "nvidia-fabricmanager-550"}
    node.ran.clear()
    assert ensure(node, target()).ready
    assert test_ensure.shortened(node) == []
    assert ("sh", FILE) not in [words[:2] for words in node.ran]


def test_a_file_of_another_checksum_is_not_run(node: PlayedNode) -> None:
    report = ensure(node, target(sha256="0" * 64))
    assert (report.reason, report.changed) == (Reason.CHECKSUM_MISMATCH, False)
    assert not [words for words in node.ran if words[0] == "sh"]
    assert record.read(node) is None


def test_packaged_drivers_of_somebody_else_are_refused_and_adopted_ones_go(node: PlayedNode) -> None:
    node.have(nvidia_driver_535="535.161.08-1", nvidia_dkms_535="535.161.08-1")
    node.load("535.161.08")
    assert ensure(node, target()).reason == Reason.DRIVER_PRESENT
    assert ensure(node, target("Adopt")).ready
    assert set(node.installed) == {"dpkg", "nvidia-fabricmanager-550"}


def test_our_own_packages_make_way_for_the_run_file_and_the_run_file_for_packages(node: PlayedNode) -> None:
    assert ensure(node, test_ensure.target()).ready
    assert ensure(node, target()).ready
    assert set(node.installed) == {"dpkg", "nvidia-fabricmanager-550"}
    assert ensure(node, test_ensure.target()).ready
    assert not node.exists(runfile.UNINSTALLER)
    assert set(node.installed) == {"dpkg", *test_ensure.packages(VERSION)}


def test_a_run_file_that_fails_brings_the_packages_back(node: PlayedNode) -> None:
    assert ensure(node, test_ensure.target(test_ensure.OLD)).ready
    node.answers["sh", FILE] = (1, "ERROR: Unable to find the kernel source tree for the currently running kernel.")
    report = ensure(node, target())
    assert (report.reason, report.driver) == (Reason.HEADERS_MISSING, test_ensure.OLD)
    assert set(node.installed) == {"dpkg", *test_ensure.packages(test_ensure.OLD)}


def test_another_run_file_that_cannot_be_begun_leaves_the_old_driver(node: PlayedNode) -> None:
    assert ensure(node, target()).ready
    other = target(hostPath="/opt/other.run", sha256=hashlib.sha256(b"other").hexdigest())
    node.put("/opt/other.run", "other")
    unload = node.answers["rmmod",]
    node.answers["rmmod", "nvidia"] = (1, "rmmod: ERROR: Module nvidia is in use")
    report = ensure(node, other)
    assert (report.reason, report.driver) == (Reason.REBOOT_REQUIRED, VERSION)
    assert "the driver that was there runs again" in report.message
    assert node.exists(runfile.UNINSTALLER)
    assert "nvidia-fabricmanager" in node.active
    node.answers["rmmod", "nvidia"] = unload
    node.answers["sh", "/opt/other.run"] = node.answers["sh", FILE]
    assert ensure(node, other).ready


def test_a_run_file_without_room_to_unpack_is_refused_before_anything_is_touched(
    node: PlayedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "free_bytes", lambda _: 2 * len(CONTENT) - 1)
    report = ensure(node, target())
    assert (report.reason, report.changed) == (Reason.DISK_FULL, False)
    assert "unpacking the run file takes" in report.message
    assert not [words for words in node.ran if words[0] == "sh"]


def test_a_run_file_is_run_again_for_a_new_kernel(node: PlayedNode) -> None:
    assert ensure(node, target()).ready
    node.remove(f"/lib/modules/{KERNEL}/updates/dkms/nvidia.ko")
    for name in ("nvidia_modeset", "nvidia_uvm", "nvidia"):
        node.run(["rmmod", name])
    node.active.discard("nvidia-fabricmanager")
    node.ran.clear()
    assert ensure(node, target()).ready
    assert ("sh", FILE) in [words[:2] for words in node.ran]
