"""Timeouts, SIGTERM, SIGKILL and locks, with real processes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from mlperf_operator.agent.wrapper import processes
from unit.agent.bench import Bench, Step, line_with, lines_of, shared, step, until


def _alive(pid_file: Path) -> bool:
    stat = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    return stat.exists() and stat.read_text().rpartition(") ")[2][0] not in "ZX"


def _busy(bench: Bench) -> str:
    # A child and a grandchild, so that killing the command alone would leave one.
    return f"sh -c 'echo $$ > {bench.home}/pid; exec sleep 60' & wait; true"


_FOREVER = "while true; do sleep 0.05; done"


def _wait_for(file: Path) -> str:
    return f"while ! test -s {file}; do sleep 0.02; done"


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=20)
    return process.returncode, output


def test_a_stage_that_takes_too_long_is_ended_with_all_its_processes(bench: Bench) -> None:
    assert bench.run(step("build", _busy(bench)), timeout=0.6) == 65
    assert bench.told["reason"] == "StageTimeout"
    assert bench.told["message"] == "stage prepare took longer than 0.6 s"
    assert not _alive(bench.home / "pid")


def test_sigterm_ends_the_commands_group_and_marks_nothing(bench: Bench) -> None:
    process = bench.start(step("build", _busy(bench)))
    until((bench.home / "pid").exists)
    process.send_signal(signal.SIGTERM)
    code, _ = _end(process)
    assert code == 143
    assert bench.told["reason"] == "Terminated"
    assert not _alive(bench.home / "pid")
    assert not (bench.state / "markers").exists()


def test_a_command_that_ignores_sigterm_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "KILL_AFTER_SECONDS", 0.2)
    script = f"trap '' TERM; echo $$ > {bench.home}/pid; {_FOREVER}"
    assert bench.run(step("build", script), timeout=0.5) == 65
    assert not _alive(bench.home / "pid")


def test_what_a_command_left_behind_gets_a_moment_to_end(bench: Bench) -> None:
    left = f"trap 'sleep 0.2; echo bye > {bench.home}/bye; exit' TERM; echo > {bench.home}/ready; {_FOREVER}"
    script = f"({left}) & {_wait_for(bench.home / 'ready')}"
    assert bench.run(step("build", script)) == 0
    assert (bench.home / "bye").exists()


def test_a_daemon_that_left_the_group_does_not_hold_the_stage(
    bench: Bench, other: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "DRAIN_SECONDS", 0.1)
    daemon = f"setsid sh -c 'echo $$ > {bench.home}/pid; exec sleep 60' & {_wait_for(bench.home / 'pid')}"
    one = shared("download", daemon)
    try:
        assert bench.run(one) == 0
        assert _alive(bench.home / "pid")
        # Nor the lock of a step that is done.
        assert other.run(shared("download", "true", digest="another"), timeout=5) == 0
    finally:
        os.kill(int((bench.home / "pid").read_text()), signal.SIGKILL)


def test_sigterm_while_waiting_for_a_retry_ends_the_wait(bench: Bench) -> None:
    process = bench.start(step("download", "exit 75", retryDelaySeconds=60))
    assert process.stdout is not None
    while "try 2" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGTERM)
    assert _end(process)[0] == 143


def _slow(bench: Bench) -> Step:
    file, count = bench.scratch / "data/a", bench.scratch / "count"
    script = f"mkdir -p {file.parent}; echo x >> {count}; {_wait_for(bench.scratch / 'go')}; echo rows > {file}"
    return shared("download", script, file)


def test_two_runs_prepare_once_and_the_second_says_whom_it_waits_for(bench: Bench, other: Bench) -> None:
    first = bench.start(_slow(bench))
    until((bench.scratch / "count").exists)
    second = other.start(_slow(other))
    line = line_with(second, "waiting")
    assert line == "[mlperf] download: waiting for run uid-1, which writes or reads it\n"
    (bench.scratch / "go").write_text("go")
    assert _end(first)[0] == 0
    code, output = _end(second)
    assert code == 0
    assert "skipped, done" in output
    assert lines_of(bench.scratch / "count") == ["x"]


@pytest.mark.parametrize("how", ["timeout", "SIGTERM"])
def test_who_waits_can_still_be_ended(bench: Bench, other: Bench, how: str) -> None:
    first = bench.start(_slow(bench))
    until((bench.scratch / "count").exists)
    second = other.start(_slow(other), timeout=0.5 if how == "timeout" else 60)
    if how == "SIGTERM":
        line_with(second, "waiting")
        second.send_signal(signal.SIGTERM)
    assert _end(second)[0] == (65 if how == "timeout" else 143)
    assert other.told["reason"] == ("StageTimeout" if how == "timeout" else "Terminated")
    (bench.scratch / "go").write_text("go")
    assert _end(first)[0] == 0


def test_a_killed_wrapper_frees_its_lock_only_when_its_command_is_gone(bench: Bench, other: Bench) -> None:
    first = bench.start(_slow(bench))
    until((bench.scratch / "count").exists)
    first.kill()
    _ = first.wait()
    second = other.start(_slow(other))
    line_with(second, "waiting for run uid-1")
    # The orphan ends well, but nobody has vouched for it.
    (bench.scratch / "go").write_text("go")
    code, output = _end(second)
    assert code == 0
    assert "skipped" not in output
    assert lines_of(bench.scratch / "count") == ["x", "x"]
    first.communicate()


def test_a_killed_wrapper_started_anew_ends_right(bench: Bench) -> None:
    steps = [step("first", f"echo x >> {bench.home}/count"), _slow(bench)]
    process = bench.start(*steps)
    until((bench.scratch / "count").exists)
    os.killpg(os.getpgid(process.pid), 0)
    process.kill()
    process.wait()
    again = bench.start(*steps)
    line = line_with(again, "waiting")
    assert line == "[mlperf] run: waiting for an earlier attempt of this run, which writes or reads it\n"
    (bench.scratch / "go").write_text("go")
    code, output = _end(again)
    assert code == 0
    assert "first: skipped" in output
    assert lines_of(bench.home / "count") == ["x"]
    assert (bench.scratch / "data/a").read_text() == "rows\n"
    process.communicate()


def test_nobody_writes_what_another_run_reads(bench: Bench, other: Bench) -> None:
    reader = bench.start(step("preprocess", _busy(bench)), reads=["download"])
    until((bench.home / "pid").exists)
    started = time.monotonic()
    assert other.run(shared("download", "true"), timeout=0.5) == 65
    assert other.told["reason"] == "StageTimeout"
    assert time.monotonic() - started < 5
    # Reading beside it is fine.
    assert other.run(step("preprocess", "true"), reads=["download"]) == 0
    reader.terminate()
    assert _end(reader)[0] == 143


def test_a_volume_without_file_locks_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert bench.run(step("build")) == 64
    assert "does no file locks: No locks available" in bench.told["message"]


def test_all_at_once_prepare_once(tmp_path: Path) -> None:
    runs = [Bench(tmp_path, f"uid-{number}") for number in range(5)]
    file, count = runs[0].scratch / "data/a", runs[0].scratch / "count"
    script = f"echo x >> {count}; mkdir -p {file.parent}; sleep 0.2; echo rows > {file}"
    processes = [run.start(shared("download", script, file)) for run in runs]
    assert [_end(process)[0] for process in processes] == [0] * 5
    assert lines_of(count) == ["x"]


@pytest.mark.parametrize("how", ["timeout", "SIGTERM"])
def test_half_a_download_is_removed_when_its_try_is_ended(bench: Bench, how: str) -> None:
    file = bench.scratch / "a"
    process = bench.start(
        shared("download", f"echo half > {file}; sleep 60", file), timeout=1 if how == "timeout" else 60
    )
    until(file.exists)
    if how == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    assert _end(process)[0] == (65 if how == "timeout" else 143)
    assert not file.exists()
    # What a user puts there now is no leftover.
    file.write_text("by hand")
    assert bench.run(shared("download", f"test -e {file}", file)) == 0
    assert file.read_text() == "by hand"


def test_a_command_that_cannot_be_ended_does_not_hold_the_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a process that waits for a driver: no signal reaches it.
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda _, number: sent.append(number))
    monkeypatch.setattr(processes, "KILL_AFTER_SECONDS", 0.05)
    stuck = create_autospec(subprocess.Popen, instance=True)
    stuck.configure_mock(pid=1, poll=lambda: None)
    processes.end_group(stuck)
    assert sent == [signal.SIGTERM, signal.SIGKILL]
