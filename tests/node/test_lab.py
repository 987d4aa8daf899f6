"""The stand-ins behave as the real things do where the tests rely on it."""

from __future__ import annotations

import subprocess

import pytest

from node import packages
from node.node import Node, wanted_packages
from node.repository import Server

pytestmark = pytest.mark.integration


def test_apt_installs_the_stand_ins_from_the_signed_repository_and_the_module_loads(node: Node, server: Server) -> None:
    node.by_hand(server, packages.FIRST)
    assert node.loaded() == packages.FIRST
    assert node.active("nvidia-fabricmanager")
    rows = node.run("nvidia-smi", "--query-gpu=name,driver_version,mig.mode.current", "--format=csv,noheader")
    assert rows.splitlines() == [f"NVIDIA A100-SXM4-40GB, {packages.FIRST}, Disabled"] * 8


def test_a_branch_excludes_the_other(node: Node, server: Server) -> None:
    node.by_hand(server, packages.OLD_BRANCH)
    node.apt(server, "install", *(f"{name}={version}" for name, version in wanted_packages(packages.FIRST).items()))
    assert node.installed() == wanted_packages(packages.FIRST)


def test_the_metapackage_of_the_fabric_manager_brings_another_version(node: Node, server: Server) -> None:
    driver = [f"{name}={packages.FIRST}-1" for name in packages.driver_packages(packages.FIRST)]
    node.apt(server, "install", *driver, f"cuda-drivers-fabricmanager-550={packages.FIRST}-1")
    assert node.installed()["nvidia-fabricmanager-550"] == f"{packages.SECOND}-1"
    node.run("modprobe", "nvidia")
    start = ["chroot", str(node.root), "/usr/sbin/systemctl", "start", "nvidia-fabricmanager"]
    assert subprocess.run(start, capture_output=True, check=False).returncode == 1
    words = node.run("journalctl", "-u", "nvidia-fabricmanager", "-n", "20", "--no-pager", "-o", "cat")
    assert f"version {packages.SECOND} don't match with driver version {packages.FIRST}" in words


def test_a_module_that_a_service_uses_does_not_unload(node: Node, server: Server) -> None:
    node.by_hand(server, packages.FIRST)
    node.run("rmmod", "nvidia_modeset", "nvidia_uvm")
    with pytest.raises(AssertionError, match="Module nvidia is in use"):
        node.run("rmmod", "nvidia")
    node.run("systemctl", "stop", "nvidia-persistenced", "nvidia-fabricmanager")
    node.run("rmmod", "nvidia")
    assert node.loaded() is None
    assert not (node.root / "dev/nvidia0").exists()
