"""Daemons, found again and stopped through their records; real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_cluster import processes
from local_cluster.addresses import place
from local_cluster.components import Component, no_proxy

SLEEP = "import time; print('started', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


def _component(script: str, *files: Path) -> Component:
    return Component("daemon", (sys.executable, "-c", script), "unix:/none", files)


def _started(component: Component, folder: Path) -> processes.Record:
    processes.start(component, folder / "pids", folder / "logs")
    deadline = time.monotonic() + 20
    while "started" not in (folder / f"logs/{component.name}.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    record = processes.running(folder / "pids", component.name)
    assert record is not None
    return record


def test_a_daemon_runs_in_a_session_of_its_own_until_it_is_stopped(tmp_path: Path) -> None:
    record = _started(_component(SLEEP), tmp_path)
    assert os.getsid(record.pid) == record.pid
    processes.stop(tmp_path / "pids", "daemon")
    assert processes.start_time(record.pid) is None
    assert processes.running(tmp_path / "pids", "daemon") is None


def test_a_daemon_that_ignores_the_polite_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.3)
    record = _started(_component(STUBBORN), tmp_path)
    processes.stop(tmp_path / "pids", "daemon")
    assert processes.start_time(record.pid) is None


def test_a_daemon_that_was_killed_is_not_running(tmp_path: Path) -> None:
    record = _started(_component(SLEEP), tmp_path)
    assert processes.end([record.pid], signal.SIGKILL, 10) == []
    assert processes.running(tmp_path / "pids", "daemon") is None


@pytest.mark.parametrize("change", [{"start_time": 1}, {"boot_id": "another boot"}])
def test_a_record_of_another_process_is_never_believed_nor_its_process_stopped(
    tmp_path: Path, change: dict[str, object]
) -> None:
    record = _started(_component(SLEEP), tmp_path)
    file = tmp_path / "pids/daemon.json"
    original = file.read_text()
    file.write_text(json.dumps({**json.loads(original), **change}))
    assert processes.running(tmp_path / "pids", "daemon") is None
    processes.stop(tmp_path / "pids", "daemon")
    assert processes.start_time(record.pid) is not None
    file.write_text(original)
    processes.stop(tmp_path / "pids", "daemon")


def test_a_process_without_a_record_is_ended_and_others_are_not(tmp_path: Path) -> None:
    program, state = tmp_path / "daemon-of-ours", tmp_path / "state"
    program.symlink_to(sys.executable)
    script = ("-c", SLEEP, f"--data={state}/x")
    recorded = _started(Component("daemon-of-ours", (str(program), *script), "unix:/none"), state)
    elsewhere = subprocess.Popen([program, "-c", SLEEP, "--data=/elsewhere/x"], stdout=subprocess.DEVNULL)
    stray = subprocess.Popen([program, *script], stdout=subprocess.PIPE)
    with elsewhere, stray:
        assert stray.stdout is not None
        stray.stdout.readline()
        processes.end_strays(state / "pids", state, ["daemon-of-ours"])
        assert stray.wait(10) == -signal.SIGKILL
        assert elsewhere.poll() is None
        assert processes.start_time(recorded.pid) is not None
        elsewhere.kill()
    processes.stop(state / "pids", "daemon-of-ours")


def test_a_record_cut_short_by_a_crash_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"pid": 1')
    assert processes.running(tmp_path, "daemon") is None


def test_a_changed_configuration_file_changes_the_digest(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("one")
    before = processes.digest(_component(SLEEP, config))
    config.write_text("two")
    assert processes.digest(_component(SLEEP, config)) != before
    assert processes.digest(_component(STUBBORN, config)) != processes.digest(_component(SLEEP, config))


def test_only_containerd_knows_the_proxy_and_not_for_the_clusters_own_addresses() -> None:
    variables = {"PATH": "/bin", "HTTPS_PROXY": "http://proxy:3128", "KUBECONFIG": "/x"}
    assert "HTTPS_PROXY" not in processes.environment(variables, "")
    kept = processes.environment(variables, no_proxy(place(0)))
    assert kept["HTTPS_PROXY"] == "http://proxy:3128"
    assert "10.96.0.0/16" in kept["NO_PROXY"]
    assert "KUBECONFIG" not in kept


def test_processes_are_found_by_their_programs_name() -> None:
    found = processes.find([Path(sys.executable).name, Path(sys.argv[0]).name])
    assert os.getpid() in found
