"""Modules go in the right order and come again; why one does not is told apart."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mlperf_operator.agent.driver import modules
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.driver_report import Reason
from unit.agent.driver.played import KERNEL, PlayedNode


@pytest.fixture
def node(tmp_path: Path) -> PlayedNode:
    node = PlayedNode(tmp_path)
    node.load("550.54.14")
    return node


def test_each_module_goes_before_what_it_uses(node: PlayedNode) -> None:
    for name in ("gdrdrv", "nvidia_uvm", "nvidia_modeset", "nvidia_drm", "nvidia_peermem"):
        node.put(f"/sys/module/{name}/refcnt", "0\n")
    modules.unload(node)
    order = ["nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia_peermem", "gdrdrv", "nvidia"]
    assert node.programs() == [f"rmmod {name}" for name in order]
    assert modules.loaded(node) == ()


def test_a_module_in_use_names_the_process(node: PlayedNode) -> None:
    node.answers["rmmod",] = (1, "rmmod: ERROR: Module nvidia is in use")
    with node.path("/dev/nvidia0").open() as device:
        process = subprocess.Popen(["sleep", "60"], stdin=device)
    try:
        with pytest.raises(DriverError) as caught:
            modules.unload(node)
    finally:
        process.kill()
        process.wait()
    assert caught.value.reason == Reason.GPU_IN_USE
    assert process.pid in [user.pid for user in caught.value.users]


def test_a_module_that_no_process_uses_and_that_stays_asks_for_a_reboot(node: PlayedNode) -> None:
    node.answers["rmmod",] = (1, "rmmod: ERROR: Module nvidia is in use")
    node.put("/sys/module/nvidia/refcnt", "3\n")
    node.put("/sys/module/nvidia/holders/mystery")
    with pytest.raises(DriverError) as caught:
        modules.unload(node)
    assert caught.value.reason == Reason.REBOOT_REQUIRED
    assert "the reference count is 3, held by mystery" in caught.value.detail


def test_what_was_loaded_before_is_loaded_again_where_it_still_can(node: PlayedNode) -> None:
    node.answers["modprobe", "nvidia_fs"] = (1, "modprobe: FATAL: Module nvidia_fs not found")
    modules.load(node, KERNEL, ("nvidia_drm", "nvidia_uvm", "nvidia_fs"))
    assert node.programs() == [
        *("modprobe nvidia", "modprobe nvidia_uvm", "modprobe nvidia_modeset"),
        *("modprobe nvidia_fs", "modprobe nvidia_drm"),
    ]
    assert "nvidia_fs" in node.said[0]


def test_device_files_are_made_for_every_gpu(node: PlayedNode) -> None:
    node.put("/usr/bin/nvidia-modprobe")
    for slot in ("0000:07:00.0", "0000:08:00.0"):
        node.put(f"/proc/driver/nvidia/gpus/{slot}/information")
    modules.load(node, KERNEL)
    assert node.programs()[-1] == "nvidia-modprobe -u -c 0 -c 1"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service", Reason.SECURE_BOOT),
        ("modprobe: ERROR: could not insert 'nvidia': Required key not available", Reason.SECURE_BOOT),
        ("modprobe: ERROR: could not insert 'nvidia': No such device", Reason.MODULE_LOAD_FAILED),
        ("modprobe: ERROR: could not insert 'nvidia': Exec format error", Reason.MODULE_LOAD_FAILED),
    ],
)
def test_why_a_module_does_not_load_is_told_apart(node: PlayedNode, words: str, reason: Reason) -> None:
    node.answers["modprobe", "nvidia"] = (1, words)
    with pytest.raises(DriverError) as caught:
        modules.load(node, KERNEL)
    assert caught.value.reason == reason
    assert words in caught.value.detail


@pytest.mark.parametrize(("headers", "reason"), [(False, Reason.HEADERS_MISSING), (True, Reason.REBOOT_REQUIRED)])
def test_a_module_for_another_kernel_is_no_module(tmp_path: Path, headers: bool, reason: Reason) -> None:
    node = PlayedNode(tmp_path)
    node.put("/lib/modules/5.0-other/updates/dkms/nvidia.ko.xz")
    if not headers:
        node.path(f"/lib/modules/{KERNEL}/build").rmdir()
    with pytest.raises(DriverError) as caught:
        modules.load(node, KERNEL)
    assert caught.value.reason == reason
    assert f"kernel {os.uname().release}, only for 5.0-other" in caught.value.detail
    assert node.ran == []


@pytest.mark.parametrize(
    ("file", "is_driver"),
    [
        ("updates/dkms/nvidia.ko", True),
        ("updates/dkms/nvidia.ko.zst", True),
        ("updates/dkms/nvidia-current.ko", True),
        ("updates/dkms/nvidia-tesla-470.ko.xz", True),
        ("updates/dkms/nvidia-current-uvm.ko", False),
        ("updates/dkms/nvidia-uvm.ko", False),
        ("kernel/drivers/video/fbdev/nvidia/nvidiafb.ko", False),
        ("kernel/drivers/platform/x86/nvidia-wmi-ec-backlight.ko", False),
    ],
)
def test_the_drivers_module_is_told_from_the_kernels_own(tmp_path: Path, file: str, is_driver: bool) -> None:
    node = PlayedNode(tmp_path)
    node.put(f"/lib/modules/{KERNEL}/{file}")
    assert modules.built(node, KERNEL) is is_driver


def test_headers_that_are_there_are_not_asked_for(tmp_path: Path) -> None:
    node = PlayedNode(tmp_path)
    node.put(f"/lib/modules/{KERNEL}/build/Makefile")
    with pytest.raises(DriverError, match="though its headers are there") as caught:
        modules.load(node, KERNEL)
    assert caught.value.reason == Reason.INSTALL_FAILED
