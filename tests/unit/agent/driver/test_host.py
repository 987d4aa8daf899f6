"""The host under its root folder: links stay inside, files are replaced whole, programs are told as they end."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from mlperf_operator.agent.driver import host as hosts
from mlperf_operator.agent.driver.host import NOT_STARTED, TIMED_OUT, Done, Host, open_log, suppressed_full_disk


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_links_are_followed_within_the_root(host: Host) -> None:
    (host.root / "usr/lib").mkdir(parents=True)
    (host.root / "usr/lib/os-release").write_text("ID=debian\n")
    (host.root / "etc").mkdir()
    (host.root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (host.root / "lib").symlink_to("/usr/lib")
    (host.root / "etc/above").symlink_to("../../../../../usr/lib/os-release")
    for name in ("/etc/os-release", "/lib/os-release", "/etc/above", "/etc/../lib/./os-release"):
        assert host.read(name) == "ID=debian\n"
    assert host.path("/lib/os-release") == host.root / "usr/lib/os-release"


def test_links_in_a_circle_are_an_error(host: Host) -> None:
    (host.root / "a").symlink_to("b")
    (host.root / "b").symlink_to("a")
    with pytest.raises(OSError, match="too many symbolic links"):
        host.path("/a")
    assert host.read("/a") is None
    assert host.names("/a") == ()


def test_a_file_is_written_with_its_folders_and_mode_and_nothing_beside_it(host: Host) -> None:
    host.write("/var/lib/x/y.json", "old")
    host.write("/var/lib/x/y.json", "new", 0o600)
    assert host.read("/var/lib/x/y.json") == "new"
    assert host.path("/var/lib/x/y.json").stat().st_mode & 0o777 == 0o600
    assert host.names("/var/lib/x") == ("y.json",)
    host.remove("/var/lib/x/y.json")
    host.remove("/var/lib/x/y.json")
    assert not host.exists("/var/lib/x/y.json")


def test_free_space_is_that_of_the_nearest_folder(host: Host) -> None:
    space = os.statvfs(host.root)
    assert host.free_bytes("/var/cache/not/there") <= space.f_blocks * space.f_frsize
    assert host.free_bytes("/var") > 0


def test_a_program_is_found_on_the_hosts_path(host: Host) -> None:
    assert not host.has("nvidia-smi")
    host.write("/usr/sbin/nvidia-smi", "")
    assert host.has("nvidia-smi")


def test_a_program_runs_with_the_hosts_environment_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LD_PRELOAD_OF_THE_POD", "x")
    log = tmp_path / "driver.log"
    script = "echo $DEBIAN_FRONTEND $MORE; echo $LD_PRELOAD_OF_THE_POD >&2; exit 3"
    done = Host(Path("/"), log).run(["sh", "-c", script], env={"MORE": "more"})
    assert (done.code, done.ok, done.output) == (3, False, "noninteractive more\n\n")
    assert log.read_text() == f"$ sh -c {script}\nnoninteractive more\n\n= 3\n"


def test_a_program_of_another_root_is_not_this_ones(host: Host) -> None:
    done = host.run(["sh", "-c", "true"])
    assert done.code == NOT_STARTED or "chroot" in done.output
    assert not done.ok


def test_a_program_that_does_not_end_or_begin_is_told_so() -> None:
    host = Host(Path("/"))
    slow = host.run(["sh", "-c", "echo begun; exec sleep 60"], seconds=0.3)
    assert (slow.code, slow.output) == (TIMED_OUT, "begun\n\nno end within 0.3 s")
    assert host.run(["no-such-program"]).code == NOT_STARTED


def test_the_tail_is_one_line_of_the_end() -> None:
    done = Done(("x",), 1, "a\n\n b \nc\n")
    assert done.tail(2) == "b | c"
    assert done.tail(2, limit=1) == "c"


def test_what_happens_is_told_in_both_logs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Host(tmp_path, tmp_path / "log").say("installing")
    assert capfd.readouterr().err == "[driver] installing\n"
    assert (tmp_path / "log").read_text() == "# installing\n"


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Host(tmp_path, tmp_path / "no/folder/log").say("installing")
    assert "the host's log cannot be written: " in capfd.readouterr().err


def test_a_full_disk_is_said_and_not_raised(capfd: pytest.CaptureFixture[str]) -> None:
    def write() -> None:
        raise OSError(28, "No space left on device")

    with suppressed_full_disk():
        write()
    assert "No space left on device" in capfd.readouterr().err


def test_a_program_that_cannot_be_killed_is_left_behind_and_not_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As nvidia-smi in state D, waiting for a GPU: SIGKILL changes nothing.
    killed: list[subprocess.Popen[bytes]] = []
    kill = subprocess.Popen.kill

    def survive(process: subprocess.Popen[bytes]) -> None:
        killed.append(process)

    monkeypatch.setattr(hosts, "_DEATH_SECONDS", 0.2)
    host, begun = Host(Path("/")), time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "kill", survive)
        first = host.run(["sh", "-c", "echo begun; exec sleep 60"], seconds=0.2)
    second = host.run(["sh", "-c", f"touch {tmp_path}/again"])
    try:
        assert (first.code, first.output) == (TIMED_OUT, "begun\n\nno end within 0.2 s")
        assert second.code == TIMED_OUT
        assert f"process {killed[0].pid}, hangs" in second.output
        assert not (tmp_path / "again").exists()
        assert time.monotonic() - begun < 10
        assert host.run(["true"]).ok
    finally:
        kill(killed[0])
        killed[0].wait()
    assert host.run(["sh", "-c", "true"]).ok


def test_a_file_for_root_alone_is_never_readable_by_others(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "fchmod", lambda descriptor, _: modes.append(os.fstat(descriptor).st_mode & 0o777))
    host.write("/secret", "x", 0o600)
    assert modes[:2] == [0o600, 0o600]


def test_the_log_is_for_root_alone_has_no_credentials_and_does_not_grow_for_ever(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "LOG_BYTES", 100)
    for number in range(4):
        open_log(host, "/var/log/x/driver.log").say(f"{number} https://user:secret@mirror.example.com/x {'.' * 100}")
    assert host.names("/var/log/x") == ("driver.log", "driver.log.1")
    for name, number in (("driver.log", 3), ("driver.log.1", 2)):
        place = host.path(f"/var/log/x/{name}")
        assert place.stat().st_mode & 0o777 == 0o600
        assert place.read_text() == f"# {number} https://***@mirror.example.com/x {'.' * 100}\n"
