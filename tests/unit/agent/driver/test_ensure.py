"""The order of a change, what is undone, and what another attempt goes on from. tests/node does it with real apt."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent.driver import apply, record, services
from mlperf_operator.agent.driver.ensure import ensure
from mlperf_operator.catalogue import Driver, Mode, Target
from mlperf_operator.driver_report import Reason
from unit.agent.driver.played import KERNEL, Answer, PlayedNode

OLD, NEW = "535.161.08", "550.54.14"
FABRIC = "nvidia-fabricmanager"


def packages(version: str) -> dict[str, str]:
    branch = version.partition(".")[0]
    return {f"nvidia-{part}-{branch}": f"{version}-1" for part in ("driver", "dkms", "fabricmanager")}


def target(version: str = NEW, mode: Mode = "Install", **changes: Any) -> Target:
    names = [{"name": name, "version": full} for name, full in packages(version).items()]
    source = {
        "type": "Packages",
        "os": ["debian"],
        "repository": {"url": "https://packages.example.com", "key": "key"},
        "driver": names[:2],
        "fabricManager": names[2:],
    }
    fields = {
        "branch": version.partition(".")[0],
        "version": version,
        "minFreeBytes": 0,
        "sources": [source],
        **changes,
    }
    return Target(mode=mode, driver=Driver.model_validate(fields))


@pytest.fixture
def node(tmp_path: Path) -> PlayedNode:
    """A fresh node with an NVSwitch."""
    return PlayedNode(tmp_path, nvswitches=1)


@pytest.fixture
def old_node(node: PlayedNode) -> PlayedNode:
    """A node with the old driver of ours."""
    node.put("/usr/lib/systemd/system/nvidia-persistenced.service")
    assert ensure(node, target(OLD)).ready
    node.ran.clear()
    return node


def at_work(node: PlayedNode, version: str) -> None:
    """Driver and services of this version run, and nothing else is there."""
    assert {name: node.installed[name] for name in node.installed if name != "dpkg"} == packages(version)
    assert node.held == set(packages(version))
    assert node.loaded() == version
    assert {FABRIC, "nvidia-persistenced"} <= node.active


def shortened(node: PlayedNode) -> list[str]:
    """Return what was changed, in order: each package manager's command by its verb."""
    names = {"apt-get", "apt-mark", "dpkg", "rmmod", "modprobe", "systemctl", "rm"}
    quiet = {("apt-mark", "showhold"), ("systemctl", "is-active")}
    lines = []
    for words in node.ran:
        if words[0] not in names or words[:2] in quiet:
            continue
        kind = next((word for word in ("-s", "--reinstall", "--download-only") if word in words), "")
        line = f"{words[0]} {words[1]} {kind}" if words[0].startswith(("apt", "dpkg", "rm ")) else " ".join(words)
        lines.append(line.strip())
    return lines


def test_everything_is_found_out_and_downloaded_before_anything_is_touched(old_node: PlayedNode) -> None:
    report = ensure(old_node, target())
    assert report.ready, report
    assert (report.changed, report.driver, report.managed_by) == (True, NEW, "mlperf-operator")
    at_work(old_node, NEW)
    assert shortened(old_node) == [
        *("apt-get update", "apt-get install -s", "apt-get install --download-only", "apt-get install --reinstall"),
        "apt-mark unhold",
        *(f"systemctl stop {FABRIC}", "systemctl stop nvidia-persistenced"),
        *("rmmod nvidia_modeset", "rmmod nvidia_uvm", "rmmod nvidia"),
        *("apt-get install", "apt-mark hold"),
        *("modprobe nvidia", "modprobe nvidia_uvm", "modprobe nvidia_modeset", "systemctl start nvidia-persistenced"),
        *("systemctl daemon-reload", f"systemctl enable --now {FABRIC}"),
        "rm -rf /var/cache/mlperf-operator/archives",
    ]


def test_each_step_is_journaled_before_it_is_taken(old_node: PlayedNode) -> None:
    assert ensure(old_node, target()).ready
    steps = [text.removeprefix("step ") for text in old_node.said[-16:] if text.startswith("step ")]
    assert steps[-14:] == [
        *(
            "Configure",
            "Refresh",
            "Simulate",
            "Download",
            "Keep",
            "Unhold",
            "StopServices",
            "Unload",
            "Install",
            "Hold",
        ),
        *("Load", "Persistenced", "FabricManager", "Verify"),
    ]


def test_a_second_attempt_changes_nothing(old_node: PlayedNode) -> None:
    before = old_node.read(record.RECORD)
    report = ensure(old_node, target(OLD))
    assert (report.ready, report.changed) == (True, False)
    assert shortened(old_node) == []
    assert old_node.read(record.RECORD) == before


def test_a_node_without_a_gpu_is_refused_before_anything_else(node: PlayedNode) -> None:
    node.remove("/sys/bus/pci/devices/0000:07:00.0/vendor")
    assert ensure(node, target()).reason == Reason.NO_GPU
    assert node.ran == [] or all(words[0] in ("nv-fabricmanager", "systemctl") for words in node.ran)


@pytest.mark.parametrize(
    ("command", "words", "reason"),
    [
        (
            ("apt-get", "update"),
            "E: Failed to fetch https://packages.example.com/InRelease",
            Reason.REPOSITORY_UNREACHABLE,
        ),
        (
            ("apt-get", "install"),
            f"E: Version '{NEW}-1' for 'nvidia-driver-550' was not found",
            Reason.PACKAGES_NOT_FOUND,
        ),
        (
            ("apt-mark", "unhold"),
            "dpkg: error: dpkg frontend lock was locked by another process",
            Reason.PACKAGE_MANAGER_BUSY,
        ),
    ],
)
def test_what_fails_beforehand_leaves_the_node_as_it_was(
    old_node: PlayedNode, command: tuple[str, ...], words: str, reason: Reason
) -> None:
    paths = ("/etc/apt/preferences.d/mlperf-operator", record.RECORD)
    before = [old_node.read(path) for path in paths]
    old_node.answers[command] = (100, words)
    report = ensure(old_node, target())
    assert (report.reason, report.changed) == (reason, False)
    at_work(old_node, OLD)
    assert [old_node.read(path) for path in paths] == before


def test_dependencies_that_the_hosts_lists_lack_cause_one_full_refresh(node: PlayedNode) -> None:
    unmet = (100, " nvidia-dkms-550 : Depends: dkms but it is not installable\nE: you have held broken packages.")
    node.answers["apt-get", "install", "-s"] = unmet
    assert ensure(node, target()).reason == Reason.PACKAGES_NOT_FOUND
    assert shortened(node) == ["apt-get update", "apt-get install -s", "apt-get update", "apt-get install -s"]


def test_a_change_that_would_remove_what_is_no_driver_is_not_made(node: PlayedNode) -> None:
    node.answers["apt-get", "install", "-s"] = (0, "Remv postgresql-15 [15.1]\n")
    report = ensure(node, target())
    assert report.reason == Reason.PACKAGES_NOT_FOUND
    assert "postgresql-15" in report.message
    assert node.loaded() is None


def failing_install(node: PlayedNode) -> Answer:
    node.answers["apt-get", "install", "-y", "-q", "--no-download"] = node.answers["apt-get", "install"]
    node.installed["nvidia-driver-550"] = f"{NEW}-1"
    del node.installed["nvidia-driver-535"]
    node.broken = {"nvidia-driver-550"}
    return 100, "E: Sub-process /usr/bin/dpkg returned an error code (1)"


def test_an_installation_that_fails_brings_the_former_driver_back(old_node: PlayedNode) -> None:
    old_node.answers["apt-get", "install", "-y", "-q", "--no-download"] = lambda _: failing_install(old_node)
    report = ensure(old_node, target())
    assert (report.ready, report.reason, report.driver) == (False, Reason.INSTALL_FAILED, OLD)
    assert "the former driver is back" in report.message
    at_work(old_node, OLD)
    kept = record.read(old_node)
    assert kept is not None
    assert (kept.state, kept.owned, set(kept.held)) == ("Complete", True, set(packages(OLD)))
    old_node.broken.clear()
    assert ensure(old_node, target()).ready


def test_an_undo_that_fails_says_so_and_leaves_the_record_open(old_node: PlayedNode) -> None:
    old_node.answers["modprobe",] = (1, "modprobe: ERROR: could not insert 'nvidia': No such device")
    report = ensure(old_node, target())
    assert report.reason == Reason.MODULE_LOAD_FAILED
    assert "putting the former driver back failed too" in report.message
    kept = record.read(old_node)
    assert kept is not None
    assert (kept.state, kept.step) == ("Changing", "Undo")


def test_a_fabric_manager_that_does_not_start_brings_the_former_driver_back(old_node: PlayedNode) -> None:
    start = old_node.answers["systemctl",]
    old_node.answers["systemctl", "enable"] = (1, "")

    def again(words: tuple[str, ...]) -> Answer:
        if old_node.loaded() == OLD:
            assert callable(start)
            return start(words)
        return 1, "failed"

    old_node.answers["systemctl", "enable"] = again
    assert ensure(old_node, target()).reason == Reason.FABRIC_MANAGER_FAILED
    at_work(old_node, OLD)


def test_a_first_installation_that_fails_is_gone_on_with(node: PlayedNode) -> None:
    node.answers["modprobe", "nvidia"] = (1, "modprobe: ERROR: could not insert 'nvidia': Invalid argument")
    report = ensure(node, target())
    assert (report.reason, report.changed) == (Reason.MODULE_LOAD_FAILED, True)
    del node.answers["modprobe", "nvidia"]
    node.ran.clear()
    assert ensure(node, target()).ready
    assert not [line for line in shortened(node) if line.startswith("apt-get")]


@pytest.mark.parametrize(
    ("command", "goes_on"),
    [
        (("apt-get", "update"), False),
        (("systemctl", "stop"), False),
        (("rmmod", "nvidia"), False),
        (("apt-get", "install", "-y", "-q", "--no-download"), True),
        (("modprobe", "nvidia"), True),
    ],
)
def test_a_pod_that_is_told_to_end_leaves_a_driver_that_works(
    old_node: PlayedNode, command: tuple[str, ...], goes_on: bool
) -> None:
    usual = next((old_node.answers[command[:size]] for size in (2, 1) if command[:size] in old_node.answers), (0, ""))

    def told(words: tuple[str, ...]) -> Answer:
        os.kill(os.getpid(), signal.SIGTERM)
        return usual(words) if callable(usual) else usual

    old_node.answers[command] = told
    handler = signal.getsignal(signal.SIGTERM)
    report = ensure(old_node, target())
    assert signal.getsignal(signal.SIGTERM) == handler
    assert report.reason == (Reason.MATCHED if goes_on else Reason.INTERRUPTED), report
    at_work(old_node, NEW if goes_on else OLD)
    del old_node.answers[command]
    if command[0] in ("systemctl", "rmmod", "modprobe") and command[:1] not in old_node.answers:
        old_node.answers[command[:1]] = usual
    assert ensure(old_node, target()).ready
    at_work(old_node, NEW)


@pytest.mark.parametrize(
    "step", ["Unhold", "StopServices", "Unload", "Install", "Hold", "Load", "Persistenced", "Verify"]
)
def test_an_attempt_that_was_killed_at_a_step_is_gone_on_with(
    old_node: PlayedNode, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die_at(text: str) -> None:
        if text == f"step {step}":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(old_node, "say", die_at)
        with pytest.raises(Killed):
            ensure(old_node, target())
    kept = record.read(old_node)
    assert kept is not None
    assert (kept.state, kept.step) == ("Changing", step)
    assert ensure(old_node, target()).ready
    at_work(old_node, NEW)
    assert (after := record.read(old_node)) is not None
    assert after.state == "Complete"


def test_a_driver_of_somebody_else_that_matches_stays_theirs(node: PlayedNode) -> None:
    node.have(nvidia_driver_550=f"{NEW}-0ubuntu9", nvidia_fabricmanager_550=f"{NEW}-1")
    node.load(NEW)
    node.active.add(FABRIC)
    report = ensure(node, target())
    assert (report.ready, report.changed, report.managed_by) == (True, False, "host")
    assert shortened(node) == []
    assert record.read(node) is None


def test_a_driver_of_somebody_else_is_replaced_only_where_it_may_be_adopted(node: PlayedNode) -> None:
    node.have(nvidia_driver_535=f"{OLD}-1", nvidia_dkms_535=f"{OLD}-1")
    node.load(OLD)
    assert ensure(node, target()).reason == Reason.DRIVER_PRESENT
    assert node.loaded() == OLD
    assert ensure(node, target(mode="Adopt")).ready
    assert node.loaded() == NEW


def test_verify_looks_and_leaves_no_trace(node: PlayedNode) -> None:
    node.load(OLD)
    report = ensure(node, target(mode="Verify"))
    assert (report.ready, report.changed) == (False, False)
    assert shortened(node) == []
    assert not node.exists("/run/mlperf-operator")
    assert not node.exists("/var/lib/mlperf-operator")


def test_a_module_that_somebody_loads_meanwhile_is_unloaded_again(old_node: PlayedNode) -> None:
    install = old_node.answers["apt-get", "install"]
    assert callable(install)

    def raced(words: tuple[str, ...]) -> Answer:
        old_node.load(OLD)
        return install(words)

    old_node.answers["apt-get", "install", "-y", "-q", "--no-download"] = raced
    assert ensure(old_node, target()).ready
    at_work(old_node, NEW)


def test_a_module_is_built_for_a_new_kernel_from_the_packages_that_are_there(old_node: PlayedNode) -> None:
    old_node.remove(f"/lib/modules/{KERNEL}/updates/dkms/nvidia.ko")
    for name in ("nvidia_modeset", "nvidia_uvm", "nvidia"):
        old_node.run(["rmmod", name])
    old_node.put("/usr/sbin/dkms")
    old_node.active -= set(services.DRIVER_SERVICES)

    def build(words: tuple[str, ...]) -> Answer:
        old_node.build(OLD)
        return 0, ""

    old_node.answers["dkms", "autoinstall", "-k", KERNEL] = build
    assert ensure(old_node, target(OLD)).ready
    at_work(old_node, OLD)


def test_a_gpu_that_is_used_since_the_download_stops_nothing(old_node: PlayedNode) -> None:
    usual = old_node.answers["apt-get", "install"]
    assert callable(usual)
    begun: list[subprocess.Popen[bytes]] = []

    def download(words: tuple[str, ...]) -> Answer:
        with old_node.path("/dev/nvidia0").open() as device:
            begun.append(subprocess.Popen(["sleep", "60"], stdin=device))
        return usual(words)

    old_node.answers["apt-get", "install", "-y", "-q", "--download-only"] = download
    try:
        report = ensure(old_node, target())
    finally:
        for process in begun:
            process.kill()
            process.wait()
    assert (report.reason, report.changed) == (Reason.GPU_IN_USE, False)
    assert begun[0].pid in [user.pid for user in report.users]
    at_work(old_node, OLD)
    assert not [line for line in shortened(old_node) if line.startswith(("systemctl stop", "rmmod"))]


def test_a_plan_that_takes_away_what_is_wanted_is_not_made(old_node: PlayedNode) -> None:
    # nvidia-modprobe of another branch, which the driver depends on: apt would remove both.
    old_node.have(nvidia_modprobe="580.1-1")
    old_node.installed["nvidia-fabricmanager-535"] = "535.1-1"
    plan = "Inst nvidia-fabricmanager-535 (535.161.08-1 x [all])\n"

    def simulate(words: tuple[str, ...]) -> Answer:
        gone = "Remv nvidia-modprobe [580.1-1]\nRemv nvidia-driver-535 [535.161.08-1]\n"
        return 0, plan + (gone if "nvidia-modprobe-" in words else "")

    old_node.answers["apt-get", "install", "-s"] = simulate
    assert ensure(old_node, target(OLD)).ready
    assert old_node.installed["nvidia-driver-535"] == f"{OLD}-1"
    assert old_node.installed["nvidia-fabricmanager-535"] == f"{OLD}-1"
    assert "nvidia-modprobe" in old_node.installed


def test_a_change_of_the_toolkit_leaves_the_drivers_packages_alone(old_node: PlayedNode) -> None:
    old_node.have(nvidia_settings="510.47.03-1")
    repository = {"url": "https://packages.example.com", "key": "key"}
    tools = {
        "os": ["debian"],
        "repository": repository,
        "packages": [{"name": "nvidia-container-toolkit", "version": "1.17.8-1"}],
    }
    wanted = target(OLD)
    wanted = Target.model_validate({**wanted.model_dump(), "toolkit": {"sources": [tools]}})
    ensure(old_node, wanted)
    assert old_node.installed["nvidia-settings"] == "510.47.03-1"
    assert old_node.installed["nvidia-container-toolkit"] == "1.17.8-1"
    assert not [line for line in shortened(old_node) if line.startswith(("systemctl stop", "rmmod"))]


def test_packages_of_another_architecture_are_kept_and_replaced(node: PlayedNode) -> None:
    node.have(nvidia_driver_535=f"{OLD}-1")
    node.installed["libnvidia-compute-535:i386"] = f"{OLD}-1"
    node.load(OLD)
    assert ensure(node, target(mode="Adopt")).ready
    keep = next(words for words in node.ran if "--reinstall" in words)
    assert f"libnvidia-compute-535:i386={OLD}-1" in keep


def test_a_lock_of_seconds_between_installing_and_holding_takes_no_driver_down(
    old_node: PlayedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "_PAUSE_SECONDS", 0.0)
    usual = old_node.answers["apt-mark", "hold"]
    assert callable(usual)
    answers = [(2, "dpkg: error: dpkg frontend lock was locked by another process with pid 4321")] * 2
    old_node.answers["apt-mark", "hold"] = lambda words: answers.pop() if answers else usual(words)
    assert ensure(old_node, target()).ready
    at_work(old_node, NEW)


def test_copies_of_the_hosts_repositories_are_for_root_alone(node: PlayedNode) -> None:
    node.write("/etc/apt/sources.list", "deb https://user:secret@mirror.example.com stable main\n", 0o600)
    assert ensure(node, target()).ready
    copy = node.path("/var/lib/mlperf-operator/apt/sources.list.d/host.list")
    assert "secret" in copy.read_text()
    assert copy.stat().st_mode & 0o777 == 0o600
    node.write("/etc/apt/sources.list", "deb https://user:other@mirror.example.com stable main\n", 0o600)
    node.answers["apt-get", "update"] = (100, "E: Failed to fetch https://packages.example.com/InRelease")
    assert ensure(node, target(OLD)).reason == Reason.REPOSITORY_UNREACHABLE
    assert "secret" in copy.read_text()
    assert copy.stat().st_mode & 0o777 == 0o600
    key = next(node.path("/etc/apt/keyrings").iterdir())
    assert key.stat().st_mode & 0o777 == 0o644


def test_an_undo_leaves_nothing_down_that_only_the_undo_took_down(old_node: PlayedNode) -> None:
    old_node.installed["nvidia-fabricmanager-535"] = "535.1-1"

    def fail(_: tuple[str, ...]) -> Answer:
        del old_node.answers["apt-get", "install", "-y", "-q", "--no-download"]
        old_node.broken = {"nvidia-fabricmanager-535"}
        return 100, "E: Sub-process /usr/bin/dpkg returned an error code (1)"

    old_node.answers["apt-get", "install", "-y", "-q", "--no-download"] = fail
    report = ensure(old_node, target(OLD))
    assert (report.reason, report.driver) == (Reason.INSTALL_FAILED, OLD)
    assert "the former driver is back" in report.message
    assert {FABRIC, "nvidia-persistenced"} <= old_node.active
