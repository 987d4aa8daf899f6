"""What real tools said, read: healthy and broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlperf_operator.agent.driver import parse
from mlperf_operator.agent.driver.facts import Os, Smi
from unit.agent.driver.facts_of import A100, recorded, smi_of

UBUNTU = "550.54.14-0ubuntu0.22.04.1"


@pytest.mark.parametrize(
    "name",
    [
        *("nvidia-driver-550-server", "nvidia-dkms-550-server", "libnvidia-compute-550-server", "nvidia-utils-550"),
        *("nvidia-fabricmanager-550", "cuda-drivers-fabricmanager-550", "cuda-drivers", "nvidia-kernel-common-550"),
        *("nvidia-compute-utils-550", "nvidia-headless-no-dkms-550-server-open", "xserver-xorg-video-nvidia-550"),
        *("linux-modules-nvidia-550-server-generic", "linux-objects-nvidia-550-5.15.0-101-generic", "nvidia-modprobe"),
        *("nvidia-firmware-550-server-550.54.14", "libnvidia-nscq-550", "nvidia-persistenced", "nvidia-open-570"),
        *("nvidia-smi", "libcuda1", "nvidia-driver", "nvidia-alternative", "nvidia-vulkan-icd", "libglx-nvidia0"),
        *("kmod-nvidia-latest-dkms", "nvidia-driver-cuda-libs", "nvidia-fabric-manager", "nvidia-kmod-common"),
        *("xorg-x11-drv-nvidia-cuda", "nvidia-libXNVCtrl", "nvidia-open-driver-G06-signed-kmp-default"),
        *("nvidia-compute-G06", "nvidia-gl-G06", "nvidia-video-G06", "nvidia-compute-utils-G06"),
    ],
)
def test_a_package_of_a_driver_is_one(name: str) -> None:
    assert parse.is_driver_package(name)
    assert not parse.is_toolkit_package(name)


@pytest.mark.parametrize(
    "name",
    [
        *("nvidia-cuda-toolkit", "nvidia-cuda-dev", "cuda-toolkit-12-4", "cuda-compat-12-4", "datacenter-gpu-manager"),
        *("nvidia-driver-local-repo-ubuntu2204-550.54.14", "nvidia-driver-assistant", "libnvidia-egl-wayland1"),
        *("nvidia-prime", "nvidia-cudnn", "linux-modules-5.15.0-101-generic", "libc6", "xserver-xorg-video-nouveau"),
    ],
)
def test_what_has_a_version_of_its_own_is_no_package_of_a_driver(name: str) -> None:
    assert not parse.is_driver_package(name)
    assert not parse.is_toolkit_package(name)


@pytest.mark.parametrize(
    "name",
    [
        *("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container1"),
        *("libnvidia-container-tools", "nvidia-container-runtime", "nvidia-docker2"),
    ],
)
def test_the_toolkit_is_no_driver(name: str) -> None:
    assert parse.is_toolkit_package(name)
    assert not parse.is_driver_package(name)


def test_dpkg_tells_what_is_installed_held_and_broken() -> None:
    found = parse.dpkg_packages(recorded("dpkg-query.txt"), recorded("apt-mark-showhold.txt"))
    assert found.installed == {
        "cuda-drivers-fabricmanager-550": "550.54.14-1",
        "libnvidia-compute-550-server": UBUNTU,
        "libnvidia-compute-550-server:i386": UBUNTU,
        "libnvidia-container1": "1.17.4-1",
        "nvidia-container-toolkit": "1.17.4-1",
        "nvidia-dkms-550-server": UBUNTU,
        "nvidia-driver-550-server": UBUNTU,
        "nvidia-fabricmanager-550": "550.54.14-1",
    }
    assert found.held == ("libnvidia-compute-550-server:i386", "nvidia-fabricmanager-550")
    assert found.broken == ("nvidia-dkms-550-server",)


def test_a_broken_package_of_any_family_is_told() -> None:
    rows = ["iU \tgrub-pc\tamd64\t2.06", "iHR\tlinux-image\tamd64\t5.15", "iiR\tvim\tamd64\t9", "it \tman-db\tamd64\t2"]
    rows.append("ii \tdpkg\tamd64\t1.22.6")
    found = parse.dpkg_packages("\n".join(rows), "")
    assert found.broken == ("grub-pc", "linux-image", "vim")
    assert found.installed == {}


def test_rpm_tells_epochs_and_foreign_architectures_and_what_is_there_twice() -> None:
    found = parse.rpm_packages(recorded("rpm-qa.txt"), "")
    assert found.installed == {
        "kmod-nvidia-latest-dkms": "3:550.54.14-1.el9",
        "libnvidia-container1": "1.17.4-1",
        "nvidia-driver": "3:550.54.14-1.el9",
        "nvidia-driver-cuda-libs": "3:550.54.14-1.el9",
        "nvidia-driver-cuda-libs.i686": "3:550.54.14-1.el9",
        "nvidia-fabric-manager": "550.54.14-1",
        "nvidia-kmod-common": "3:550.54.14-1.el9",
        "nvidia-open-driver-G06-signed-kmp-default": "550.54.14_k5.14.21_150500.53-150500.1",
    }
    assert found.broken == ("kmod-nvidia-latest-dkms",)
    assert found.held == ()


def test_dnf_locks_hold_what_they_name_and_an_excluded_version_holds_nothing() -> None:
    found = parse.rpm_packages(recorded("rpm-qa.txt"), recorded("dnf-versionlock-list.txt"))
    assert found.held == ("nvidia-driver", "nvidia-fabric-manager")


def test_dnf5_locks_are_read() -> None:
    text = "# Added by 'versionlock add' command\nPackage name: kmod-nvidia-latest-dkms\nevr = 3:550.54.14-1.el9\n"
    assert parse.rpm_packages("", text).held == ("kmod-nvidia-latest-dkms",)


def test_a_zypper_lock_with_a_pattern_holds_what_it_matches() -> None:
    rows = "rpm\tx86_64\t4\nnvidia-driver-G06-kmp-default\tx86_64\t550.54.14-1\n"
    found = parse.rpm_packages(rows, recorded("zypper-locks.txt"))
    assert found.held == ("nvidia-driver-G06*", "nvidia-driver-G06-kmp-default", "nvidia-fabricmanager")


def test_no_locks_in_words_hold_nothing() -> None:
    assert parse.rpm_packages(recorded("rpm-qa.txt"), "\nThere are no package locks defined.\n\n").held == ()


@pytest.mark.parametrize(
    ("file", "system"),
    [("os-release-debian-12.txt", Os("debian", "12")), ("os-release-ubuntu-22.04.txt", Os("ubuntu", "22.04"))],
)
def test_the_system_is_read(file: str, system: Os) -> None:
    assert parse.os_release(recorded(file)) == system


def test_a_system_that_does_not_say_what_it_is_has_no_name() -> None:
    assert parse.os_release("# nothing\n\nPRETTY_NAME='x\n") == Os("", "")


@pytest.mark.parametrize(
    ("file", "version"),
    [
        ("proc-version-proprietary.txt", "550.90.07"),
        ("proc-version-open.txt", "565.57.01"),
        ("proc-version-open-two-numbers.txt", "555.58"),
        ("nvidia-smi-mismatch.txt", None),
    ],
)
def test_the_loaded_version_is_read_of_both_kinds_of_module(file: str, version: str | None) -> None:
    assert parse.loaded_version(recorded(file)) == version


def test_the_fabric_managers_version_is_read() -> None:
    assert parse.fabric_manager_version(recorded("nv-fabricmanager-version.txt")) == "535.161.08"
    assert parse.fabric_manager_version("nv-fabricmanager: cannot execute binary file") is None


def test_nvidia_smi_shows_eight_gpus() -> None:
    assert parse.smi(recorded("nvidia-smi-a100x8.csv")) == smi_of()


def test_a_capped_gpu_shows_both_limits() -> None:
    capped = parse.smi(recorded("nvidia-smi-a100x8-capped.csv")).gpus[3]
    assert (capped.index, capped.power_limit, capped.default_power_limit) == (3, 225.0, 400.0)


def test_a_limit_that_is_not_told_is_none() -> None:
    found = parse.smi("0, 550.54.14, Tesla T4, [N/A], [Not Supported], [N/A]\n").gpus[0]
    assert (found.mig, found.power_limit, found.default_power_limit) == ("[N/A]", None, None)


def test_a_lost_gpu_leaves_the_others_their_numbers_and_is_told() -> None:
    found = parse.smi(recorded("nvidia-smi-a100x8-one-lost.csv"))
    assert [gpu.index for gpu in found.gpus] == [0, 2, 3, 4, 5, 6, 7]
    assert found.error == "Unable to determine the device handle for GPU 0000:0B:00.0: Unknown Error"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("nvidia-smi-mismatch.txt", "Driver/library version mismatch NVML library version: 570.124"),
        ("nvidia-smi-no-driver.txt", "it couldn't communicate with the NVIDIA driver"),
        ("nvidia-smi-lost-gpu.txt", "Unable to determine the device handle"),
    ],
)
def test_an_answer_without_gpus_says_why(file: str, words: str) -> None:
    found = parse.smi(recorded(file))
    assert (found.driver, found.gpus) == (None, ())
    assert words in found.error


@pytest.mark.parametrize(
    ("file", "states"),
    [
        ("nvidia-smi-q-h100x2.txt", ["Completed", "Completed"]),
        ("nvidia-smi-q-h100x2-in-progress.txt", ["In Progress", "In Progress"]),
        ("nvidia-smi-q-h100x2-insufficient.txt", ["Completed", "Completed (Insufficient Resources)"]),
    ],
)
def test_the_fabric_state_counts_with_its_status(file: str, states: list[str]) -> None:
    answer = parse.with_fabric(parse.smi(recorded("nvidia-smi-h100x2.csv")), recorded(file))
    assert [gpu.fabric_state for gpu in answer.gpus] == states


@pytest.mark.parametrize("file", ["nvidia-smi-q-a100x8.txt", "nvidia-smi-q-a100x8-without-fabric.txt"])
def test_an_a100_has_no_fabric_state(file: str) -> None:
    answer = parse.with_fabric(parse.smi(recorded("nvidia-smi-a100x8.csv")), recorded(file))
    assert {gpu.fabric_state for gpu in answer.gpus} == {"N/A"}


def test_fabric_states_of_another_number_of_gpus_are_nobodys_and_an_error() -> None:
    answer = Smi(driver="565.57.01", gpus=smi_of(1).gpus)
    told = parse.with_fabric(answer, recorded("nvidia-smi-q-h100x2-in-progress.txt"))
    assert told == replace(answer, error="nvidia-smi -q shows 2 GPUs and --query-gpu 1")


def test_links_that_are_up_are_no_finding() -> None:
    assert parse.links_down(recorded("nvlink-a100x2.txt")) == ()


def test_inactive_links_are_named() -> None:
    assert parse.links_down(recorded("nvlink-a100x2-inactive.txt")) == ("GPU 1: Link 3", "GPU 1: Link 5")


def test_links_that_only_other_gpus_show_are_down() -> None:
    down = parse.links_down(recorded("nvlink-h100x3-one-gpu-off.txt"))
    assert down == ("GPU 0: Link 16", "GPU 0: Link 17", "GPU 1: every link")


def test_gpus_without_any_link_say_so() -> None:
    assert parse.links_down(recorded("nvlink-a100-pcie-x2.txt")) == ("GPU 0: every link", "GPU 1: every link")


def test_a_link_before_any_gpu_is_nobodys() -> None:
    assert parse.links_down("\t Link 0: 25 GB/s\n") == ()


def test_lspci_names_the_gpus_and_nothing_else() -> None:
    names = ("GA102 [GeForce RTX 3090]", "GA100 [A100 SXM4 40GB]", "GA100 [A100 SXM4 40GB]", "GH100[H100 SXM5 80GB]")
    assert parse.gpu_names(recorded("lspci.txt")) == names


def test_a_gpu_that_lspci_does_not_know_is_a_device() -> None:
    assert parse.gpu_names(recorded("lspci-old-names.txt")) == ("Device",)


@pytest.mark.parametrize(
    ("variable", "on"),
    [(b"\x06\0\0\0\x01", True), (b"\x06\0\0\0\0", False), (b"\x06\0\0\0", False), (b"", False)],
)
def test_secure_boot_is_the_fifth_byte(variable: bytes, on: bool) -> None:
    assert parse.secure_boot(variable) is on


@pytest.mark.parametrize(
    ("file", "uid"),
    [
        ("cgroup-v2-systemd-containerd.txt", "7fda01c4-0ece-403d-88b4-c371d66d132a"),
        ("cgroup-v1-systemd-crio.txt", "a5c1f8d5-1919-434d-add7-4afaafdaef89"),
        ("cgroup-v1-cgroupfs.txt", "91a8fc3a-0ecf-48b4-81bf-78a7275d348c"),
        ("cgroup-v1-containerd-no-systemd.txt", "ff49d0be-16b7-4a49-bb9e-8ec1f1f4e27f"),
        ("cgroup-v2-static-pod.txt", "0123456789abcdef0123456789abcdef"),
        ("cgroup-v2-host.txt", None),
    ],
)
def test_a_processs_pod_is_in_its_cgroup(file: str, uid: str | None) -> None:
    assert parse.pod_uid(recorded(file)) == uid


def test_the_healthy_recordings_are_of_the_same_product() -> None:
    assert {gpu.name for gpu in parse.smi(recorded("nvidia-smi-a100x8.csv")).gpus} == {A100}
