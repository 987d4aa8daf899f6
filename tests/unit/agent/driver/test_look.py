"""What is found out about a host, from its files and from programs that only tell."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from mlperf_operator.agent.driver import look, parse
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.facts import FabricManager, Facts, Os
from mlperf_operator.agent.driver.host import TIMED_OUT
from mlperf_operator.agent.driver.judge import findings
from mlperf_operator.driver_report import Reason
from unit.agent.driver.facts_of import (
    A100,
    SMI_ROWS,
    VERSION,
    ScriptedHost,
    a100_host,
    failed,
    processes,
    recorded,
    smi_of,
    target_of,
)

V2 = 'plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia'
V3 = 'plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia'
PROGRAM = "/usr/bin/nvidia-container-runtime"


@pytest.fixture
def host(tmp_path: Path) -> ScriptedHost:
    return a100_host(tmp_path / "host")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return processes(tmp_path / "proc")


def looked(host: ScriptedHost, proc: Path, *, smi: bool = True) -> Facts:
    return look.look(host, smi=smi, proc=proc)


def test_a_healthy_node_is_seen_as_it_is(host: ScriptedHost, proc: Path) -> None:
    assert looked(host, proc) == Facts(
        os=Os("ubuntu", "22.04"),
        kernel=os.uname().release,
        loaded=VERSION,
        gpus=8,
        product=A100,
        nvswitches=6,
        smi=smi_of(),
        fabric_manager=FabricManager(VERSION, active=True),
    )


def test_a_look_that_is_cheap_asks_nvidia_smi_nothing(host: ScriptedHost, proc: Path) -> None:
    facts = looked(host, proc, smi=False)
    assert (facts.loaded, facts.gpus, facts.smi, facts.links_down) == (VERSION, 8, None, ())
    assert host.ran == ["nv-fabricmanager --version", "systemctl is-active nvidia-fabricmanager"]


def test_without_a_driver_gpus_and_nvswitches_are_those_of_the_bus(host: ScriptedHost, proc: Path) -> None:
    host.remove("/proc/driver/nvidia/version")
    host.put("/sys/module/nouveau/version")
    host.program("lspci")
    host.answers["lspci -nn -d 10de:"] = recorded("lspci.txt").replace("GA102 [GeForce RTX 3090]", "GA100 [A100]")
    facts = looked(host, proc)
    assert (facts.loaded, facts.smi, facts.nouveau, facts.gpus, facts.nvswitches) == (None, None, True, 8, 6)
    assert facts.product == "GA100 [A100 SXM4 40GB], GA100 [A100], GH100[H100 SXM5 80GB]"


def test_a_driver_that_sees_no_nvswitch_counts_more_than_the_bus(host: ScriptedHost, proc: Path) -> None:
    for name in host.names(look.NVSWITCHES):
        host.remove(f"{look.NVSWITCHES}/{name}")
    facts = looked(host, proc)
    assert (facts.nvswitches, facts.nvswitches_unseen, facts.fabric_manager) == (0, 6, FabricManager())
    assert not [command for command in host.ran if "fabric" in command or "nvlink" in command]


def test_a_host_without_gpus_has_no_product(tmp_path: Path, proc: Path) -> None:
    facts = looked(ScriptedHost(tmp_path / "empty"), proc)
    assert (facts.gpus, facts.product, facts.os) == (0, None, Os("", ""))


def test_a_fabric_manager_that_does_not_run_has_last_words(host: ScriptedHost, proc: Path) -> None:
    host.answers["systemctl is-active nvidia-fabricmanager"] = failed("systemctl", 3, "failed\n")
    host.answers["journalctl -u nvidia-fabricmanager -n 20 --no-pager -o cat"] = "starting\nno NVSwitch\n"
    manager = looked(host, proc).fabric_manager
    assert (manager.version, manager.active) == (VERSION, False)
    assert "no NVSwitch" in manager.detail


def test_a_fabric_manager_that_is_not_installed_is_not_asked(host: ScriptedHost, proc: Path) -> None:
    host.remove("/usr/bin/nv-fabricmanager")
    assert looked(host, proc).fabric_manager == FabricManager()


def test_links_that_are_down_are_seen(host: ScriptedHost, proc: Path) -> None:
    host.answers["nvidia-smi nvlink --status"] = recorded("nvlink-a100x2-inactive.txt")
    assert looked(host, proc).links_down == ("GPU 1: Link 3", "GPU 1: Link 5")


def test_the_fabric_state_is_that_of_nvidia_smi_q(host: ScriptedHost, proc: Path) -> None:
    host.answers[SMI_ROWS] = recorded("nvidia-smi-h100x2.csv")
    host.answers["nvidia-smi -q"] = recorded("nvidia-smi-q-h100x2-in-progress.txt")
    smi = looked(host, proc).smi
    assert smi is not None
    assert [gpu.fabric_state for gpu in smi.gpus] == ["In Progress", "In Progress"]


@pytest.mark.parametrize(
    ("command", "code", "output", "error"),
    [
        (SMI_ROWS, 18, recorded("nvidia-smi-mismatch.txt"), "Driver/library version mismatch"),
        (SMI_ROWS, 15, "", "nvidia-smi ended with 15"),
        ("nvidia-smi -q", 124, "no end within 120 s", "nvidia-smi -q ended with 124: no end within 120 s"),
    ],
)
def test_an_nvidia_smi_that_fails_says_why(
    host: ScriptedHost, proc: Path, command: str, code: int, output: str, error: str
) -> None:
    host.answers[command] = failed(command, code, output)
    smi = looked(host, proc).smi
    assert smi is not None
    assert error in smi.error


def test_secure_boot_and_headers_are_seen(host: ScriptedHost, proc: Path) -> None:
    host.put(look.SECURE_BOOT).write_bytes(b"\x06\0\0\0\x01")
    source = host.root / "usr/src/headers"
    source.mkdir(parents=True)
    build = host.root / "lib/modules" / os.uname().release / "build"
    build.parent.mkdir(parents=True)
    # Absolute, as every package of headers makes it: it means the host's folder, not this container's.
    build.symlink_to("/usr/src/headers")
    facts = looked(host, proc)
    assert (facts.secure_boot, facts.headers) == (True, True)
    source.rmdir()
    assert looked(host, proc).headers is False


def test_users_of_a_gpu_are_seen_and_whether_one_computes(host: ScriptedHost, tmp_path: Path) -> None:
    gpu, uvm = host.root / "dev/nvidia0", host.root / "dev/nvidia-uvm"
    facts = looked(host, processes(tmp_path / "monitored", (7, "dcgm", "0::/", [gpu])))
    assert ([user.pid for user in facts.users], facts.computing) == ([7], False)
    assert looked(host, processes(tmp_path / "busy", (7, "python3", "0::/", [gpu, uvm]))).computing


def test_the_lock_of_a_driver_container_is_seen_and_not_touched(host: ScriptedHost) -> None:
    assert look.foreign_lock(host) is False
    lock = host.put(look.LOCK)
    assert look.foreign_lock(host) is False
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert look.foreign_lock(host) is True
    assert look.foreign_lock(host) is False


def test_a_driver_containers_root_is_a_foreign_lock(host: ScriptedHost, proc: Path) -> None:
    (host.root / "run/nvidia").mkdir(parents=True)
    # Whatever is mounted does: a link within the host's root leads to one that is there anyway.
    (host.root / "run/nvidia/driver").symlink_to("/mounted")
    (host.root / "mounted").mkdir()
    assert look.foreign_lock(host, proc) is False
    assert look.foreign_lock(_Mounted(host.root), proc) is True


class _Mounted(ScriptedHost):
    def path(self, name: str) -> Path:
        return Path("/proc") if name == look.DRIVER_ROOT else super().path(name)


@pytest.mark.parametrize(
    ("files", "configured"),
    [
        ({}, False),
        ({"config.toml": "version = 2\n"}, False),
        ({"config.toml": "not toml at all ["}, False),
        ({"config.toml": f'[{V2}.options]\nBinaryName = "{PROGRAM}"\n'}, True),
        ({"config.toml": f'[{V2}]\nruntime_type = "io.containerd.runc.v2"\n'}, True),
        ({"config.toml": f'[{V3}.options]\nBinaryName = "{PROGRAM}"\n'}, True),
        ({"config.toml": f'[{V2}.options]\nBinaryName = "/usr/local/nvidia/toolkit/gone"\n'}, False),
        (
            {
                "config.toml": 'imports = ["/etc/containerd/conf.d/*.toml"]\n',
                "conf.d/99-nvidia.toml": f'[{V3}.options]\nBinaryName = "{PROGRAM}"\n',
                "conf.d/readme.md": "no toml [",
            },
            True,
        ),
        ({"config.toml": 'imports = ["conf.d/x.toml"]\n', "conf.d/x.toml": f"[{V2}]\n"}, True),
        ({"config.toml": "version = 2\n", "conf.d/x.toml": f"[{V2}]\n"}, False),
    ],
)
def test_the_runtime_is_configured_where_containerd_knows_it_and_its_program_is_there(
    host: ScriptedHost, files: dict[str, str], configured: bool
) -> None:
    host.program("nvidia-container-runtime")
    for name, text in files.items():
        host.put(f"/etc/containerd/{name}", text)
    assert look.runtime_configured(host) is configured


def test_a_runtime_without_its_program_is_not_configured(host: ScriptedHost) -> None:
    host.put("/etc/containerd/config.toml", f"[{V2}]\n")
    assert look.runtime_configured(host) is False


DPKG = " ".join(parse.DPKG_QUERY)
RPM = " ".join(parse.RPM_QUERY)


def test_apts_packages_are_read(host: ScriptedHost) -> None:
    host.answers[DPKG] = recorded("dpkg-query.txt")
    host.answers["apt-mark showhold"] = recorded("apt-mark-showhold.txt")
    found = look.packages(host, "apt")
    assert found.held == ("libnvidia-compute-550-server:i386", "nvidia-fabricmanager-550")
    assert found.broken == ("nvidia-dkms-550-server",)


def test_a_dpkg_that_was_killed_is_broken_though_every_package_is_whole(host: ScriptedHost) -> None:
    host.answers[DPKG] = "ii \tdpkg\tamd64\t1.22.6\n"
    host.answers["apt-mark showhold"] = ""
    host.put("/var/lib/dpkg/updates/tmp.i")
    assert look.packages(host, "apt").broken == ()
    host.put("/var/lib/dpkg/updates/0007")
    assert look.packages(host, "apt").broken == ("dpkg (interrupted)",)


@pytest.mark.parametrize(
    ("manager", "command", "file", "held"),
    [
        ("dnf", "dnf -q -C versionlock list", "dnf-versionlock-list.txt", ("nvidia-driver", "nvidia-fabric-manager")),
        ("zypper", "zypper -q locks", "zypper-locks.txt", ("nvidia-driver-G06*", "nvidia-fabricmanager")),
    ],
)
def test_rpms_and_locks_are_read(host: ScriptedHost, manager: str, command: str, file: str, held: object) -> None:
    assert manager in ("dnf", "zypper")
    host.answers[RPM] = recorded("rpm-qa.txt")
    host.answers[command] = recorded(file)
    found = look.packages(host, "dnf" if manager == "dnf" else "zypper")
    assert found.held == held
    assert found.installed["nvidia-driver"] == "3:550.54.14-1.el9"


def test_without_the_versionlock_plugin_nothing_is_locked(host: ScriptedHost) -> None:
    host.answers[RPM] = recorded("rpm-qa.txt")
    words = "No such command: versionlock. Please use /usr/bin/dnf --help\n"
    host.answers["dnf -q -C versionlock list"] = failed("dnf", 1, words)
    assert look.packages(host, "dnf").held == ()


@pytest.mark.parametrize("manager", ["apt", "dnf"])
def test_a_database_that_cannot_be_read_is_broken(host: ScriptedHost, manager: str) -> None:
    host.answers[DPKG] = failed("dpkg-query", 2, "dpkg-query: error: parsing file '/var/lib/dpkg/status'\n")
    host.answers[RPM] = failed("rpm", 1, "error: cannot open Packages database\n")
    with pytest.raises(DriverError) as caught:
        look.packages(host, "apt" if manager == "apt" else "dnf")
    assert caught.value.reason is Reason.PACKAGE_MANAGER_BROKEN
    assert "error: " in caught.value.detail


@pytest.mark.parametrize("code", [TIMED_OUT, 3])
def test_links_that_nvidia_smi_does_not_tell_are_no_proof(host: ScriptedHost, proc: Path, code: int) -> None:
    host.answers["nvidia-smi nvlink --status"] = failed("nvidia-smi nvlink --status", code, "it hangs")
    facts = looked(host, proc)
    assert facts.smi is not None
    assert facts.smi.error == f"nvidia-smi nvlink --status ended with {code}: it hangs"
    assert [error.reason for error in findings(facts, target_of())] == [Reason.SMI_FAILED]


def test_an_nvidia_smi_that_hangs_is_asked_once(host: ScriptedHost, proc: Path) -> None:
    host.answers[SMI_ROWS] = failed(SMI_ROWS, TIMED_OUT, "no end within 120 s")
    looked(host, proc)
    assert [command for command in host.ran if command.startswith("nvidia-smi")] == [SMI_ROWS]
