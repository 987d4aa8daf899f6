"""Who has a GPU open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlperf_operator.agent.driver import users
from mlperf_operator.driver_report import GpuUser
from unit.agent.driver.facts_of import ScriptedHost, processes, recorded

POD = recorded("cgroup-v2-systemd-containerd.txt")
UID = "7fda01c4-0ece-403d-88b4-c371d66d132a"


@pytest.fixture
def host(tmp_path: Path) -> ScriptedHost:
    host = ScriptedHost(tmp_path / "host")
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "null"):
        host.put(f"/dev/{name}")
    (host.root / "dev/nvidia-caps").mkdir()
    return host


def test_processes_are_named_with_their_pods_in_order(host: ScriptedHost, tmp_path: Path) -> None:
    gpu, other = host.root / "dev/nvidia0", host.put("/tmp/nvidia0")
    proc = processes(
        tmp_path / "proc",
        (4242, "python3", POD, [gpu, host.root / "dev/nvidia-uvm"]),
        (99, "dcgm-exporter", "0::/system.slice/dcgm.service\n", [host.root / "dev/nvidiactl"]),
        (7, "sh", POD, [host.root / "dev/null"]),
        (8, "nvidia-file", POD, [other]),
        (9, "nobody", POD, []),
    )
    named = GpuUser(pid=4242, command="python3", pod_uid=UID)
    assert users.gpu_users(host, proc=proc) == (GpuUser(pid=99, command="dcgm-exporter"), named)
    assert [use.computes for use in users.uses(host, proc=proc)] == [False, True]


def test_the_drivers_own_daemons_are_no_users(host: ScriptedHost, tmp_path: Path) -> None:
    gpu = host.root / "dev/nvidia0"
    # The kernel keeps 15 bytes of a name.
    proc = processes(tmp_path / "proc", (1, "nv-fabricmanage", "", [gpu]), (2, "nvidia-persiste", "", [gpu]))
    assert users.gpu_users(host, proc=proc) == ()


def test_a_container_has_device_files_of_its_own(
    host: ScriptedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Character devices cannot be made everywhere: two of the machine's own stand in, told apart by their numbers.
    copies = tmp_path / "container"
    copies.mkdir()
    (copies / "nvidia0").symlink_to("/dev/zero")
    (copies / "nvidia1").symlink_to("/dev/full")
    (host.root / "dev/nvidia0").unlink()
    (host.root / "dev/nvidia0").symlink_to("/dev/zero")
    monkeypatch.setattr(host, "path", lambda name: host.root / name.lstrip("/"))
    mine = processes(tmp_path / "mine", (5, "python3", POD, [copies / "nvidia0"]))
    assert [user.pid for user in users.gpu_users(host, proc=mine)] == [5]
    others = processes(tmp_path / "others", (5, "python3", POD, [copies / "nvidia1"]))
    assert users.gpu_users(host, proc=others) == ()


def test_a_host_without_devices_has_no_users(tmp_path: Path) -> None:
    assert users.gpu_users(ScriptedHost(tmp_path / "empty"), proc=tmp_path / "no-proc") == ()


def test_a_process_that_ends_meanwhile_is_left_out(host: ScriptedHost, tmp_path: Path) -> None:
    gpu = host.root / "dev/nvidia0"
    proc = processes(tmp_path / "proc", (5, "ended", "", [gpu]), (6, "closed", "", [host.root / "dev/nvidia9"]))
    (proc / "5/fd/0").unlink()
    (proc / "5/fd").rmdir()
    # No link, as a descriptor that was closed between listing and reading.
    (proc / "6/fd/1").write_text("")
    assert users.gpu_users(host, proc=proc) == ()


def test_a_process_without_a_name_is_still_named_by_its_number(host: ScriptedHost, tmp_path: Path) -> None:
    proc = processes(tmp_path / "proc", (5, "x", "", [host.root / "dev/nvidia0"]))
    (proc / "5/comm").unlink()
    (proc / "5/cgroup").unlink()
    assert users.gpu_users(host, proc=proc) == (GpuUser(pid=5, command=""),)


def test_a_device_that_goes_away_is_none(host: ScriptedHost, tmp_path: Path) -> None:
    (host.root / "dev/nvidia7").symlink_to("gone")
    proc = processes(tmp_path / "proc", (5, "x", "", [host.root / "dev/nvidia0"]))
    assert len(users.gpu_users(host, proc=proc)) == 1


def test_this_very_process_is_found_in_the_real_proc(host: ScriptedHost) -> None:
    with (host.root / "dev/nvidia0").open():
        found = users.gpu_users(host)
    assert os.getpid() in [user.pid for user in found]
    assert users.gpu_users(host) == ()
