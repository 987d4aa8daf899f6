"""The main container: its word follows the truth, and it leaves a benchmark alone. And the entry point."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest

from mlperf_operator.agent.driver import __main__ as entry
from mlperf_operator.agent.driver import ensure, look, record, verify
from mlperf_operator.catalogue import Mode
from mlperf_operator.driver_report import NodeReport, Reason
from unit.agent.driver.facts_of import (
    SMI_ROWS,
    VERSION,
    ScriptedHost,
    a100_host,
    failed,
    processes,
    recorded,
    target_of,
)

ACTIVE = "systemctl is-active nvidia-fabricmanager"
STOPPED = failed("systemctl", 3, "inactive\n")
CAPPED = recorded("nvidia-smi-a100x8-capped.csv")
PUT_BACK = "nvidia-smi -i 3 -pl 400"


class Watch:
    """A verifier over a scripted host, with a clock of its own."""

    def __init__(self, folder: Path, mode: Mode = "Install", *, toolkit: bool = False) -> None:
        self.host = a100_host(folder / "host")
        self.proc = processes(folder / "proc")
        self.now = 1000.0
        self.verifier = verify.Verifier(self.host, target_of(mode, toolkit=toolkit), proc=self.proc)

    def step(self, seconds: float = 2.0) -> NodeReport:
        self.now += seconds
        return self.verifier.step(self.now)

    def asked(self) -> int:
        """How often nvidia-smi was asked since the last time."""
        count = self.host.ran.count(SMI_ROWS)
        self.host.ran.clear()
        return count

    def compute(self) -> None:
        """Begin a benchmark."""
        processes(self.proc, (4242, "python3", "0::/", [self.host.root / "dev/nvidia-uvm"]))


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path)


def test_a_healthy_node_is_ready_and_nvidia_smi_is_asked_once(watch: Watch) -> None:
    assert watch.step().ready
    assert watch.asked() == 1
    reports = [watch.step() for _ in range(100)]
    assert watch.asked() == 0
    assert {report.message for report in reports} == {f"driver {VERSION}, fabric manager {VERSION} and 8 GPUs match"}


def test_nvidia_smi_is_asked_every_five_minutes_while_nothing_computes(watch: Watch) -> None:
    watch.step()
    watch.asked()
    for _ in range(149):
        watch.step()
    assert watch.asked() == 0
    watch.step()
    assert watch.asked() == 1


def test_a_benchmark_is_not_disturbed_and_a_monitor_is_none(watch: Watch) -> None:
    watch.step()
    watch.asked()
    processes(watch.proc, (1, "nvidia-device-p", "0::/", [watch.host.root / "dev/nvidiactl"]))
    watch.step(verify.IDLE_SECONDS)
    assert watch.asked() == 1
    watch.compute()
    for _ in range(10):
        assert watch.step(verify.IDLE_SECONDS).ready
    assert watch.asked() == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda host: host.answers.update({ACTIVE: STOPPED}), Reason.FABRIC_MANAGER_FAILED),
        (lambda host: host.remove("/proc/driver/nvidia/version"), Reason.DRIVER_NOT_LOADED),
        (lambda host: host.remove("/usr/bin/nv-fabricmanager"), Reason.FABRIC_MANAGER_MISSING),
        (lambda host: host.device("0000:f0:00.0", "0x030200"), Reason.GPU_MISSING),
    ],
)
def test_what_changes_is_told_at_the_next_look_even_during_a_benchmark(
    watch: Watch, change: Callable[[ScriptedHost], None], reason: Reason
) -> None:
    watch.step()
    watch.compute()
    watch.asked()
    change(watch.host)
    told = watch.step()
    assert (told.ready, told.reason) == (False, reason)


def test_it_is_ready_again_as_soon_as_it_matches_again(watch: Watch) -> None:
    watch.step()
    watch.host.answers[ACTIVE] = STOPPED
    assert not watch.step().ready
    watch.host.answers[ACTIVE] = "active\n"
    assert watch.step().ready


def test_a_new_nvidia_smi_is_asked_at_once(watch: Watch) -> None:
    watch.step()
    watch.asked()
    watch.host.program("nvidia-smi")
    os.utime(watch.host.root / "usr/bin/nvidia-smi", (1, 1))
    watch.host.answers[SMI_ROWS] = failed(SMI_ROWS, 18, recorded("nvidia-smi-mismatch.txt"))
    told = watch.step()
    assert told.reason == Reason.SMI_FAILED
    assert "Driver/library version mismatch" in told.message


def test_what_only_nvidia_smi_tells_is_asked_again_soon_until_it_matches(watch: Watch) -> None:
    watch.host.answers[SMI_ROWS] = recorded("nvidia-smi-a100x8-one-lost.csv")
    assert watch.step().reason == Reason.GPU_MISSING
    watch.host.answers[SMI_ROWS] = recorded("nvidia-smi-a100x8.csv")
    assert not watch.step().ready
    assert watch.step(verify.AGAIN_SECONDS).ready


def test_the_log_of_a_service_that_fails_is_no_change(watch: Watch) -> None:
    watch.host.answers[ACTIVE] = STOPPED
    words = "journalctl -u nvidia-fabricmanager -n 20 --no-pager -o cat"
    watch.host.answers[words] = "attempt 1\n"
    watch.step()
    watch.asked()
    watch.host.answers[words] = "attempt 2\n"
    told = watch.step()
    assert watch.asked() == 0
    assert "attempt 2" in told.message


def test_the_toolkit_is_watched_where_it_is_ours(tmp_path: Path) -> None:
    watch = Watch(tmp_path, toolkit=True)
    assert watch.step().reason == Reason.TOOLKIT_MISSING


def test_a_power_limit_that_a_killed_run_left_is_put_back(watch: Watch) -> None:
    watch.host.answers |= {SMI_ROWS: CAPPED, PUT_BACK: "All done.\n"}
    assert watch.step().ready
    assert watch.host.ran.count(PUT_BACK) == 1
    assert watch.host.said == ["GPU 3 is limited to 225 W: back to its 400 W"]


def test_a_limit_that_appears_later_is_a_harness_own_until_it_has_stood_for_a_while(watch: Watch) -> None:
    assert watch.step().ready
    watch.host.answers |= {SMI_ROWS: CAPPED, PUT_BACK: "All done.\n"}
    watch.step(verify.IDLE_SECONDS)
    assert PUT_BACK not in watch.host.ran
    for _ in range(11):
        watch.step(10)
    assert PUT_BACK not in watch.host.ran
    watch.step(10)
    assert watch.host.ran.count(PUT_BACK) == 1


def test_a_benchmark_in_between_begins_the_wait_anew(watch: Watch) -> None:
    assert watch.step().ready
    watch.host.answers |= {SMI_ROWS: CAPPED, PUT_BACK: "All done.\n"}
    watch.step(verify.IDLE_SECONDS)
    watch.compute()
    watch.step(verify.LEFT_SECONDS)
    shutil.rmtree(watch.proc / "4242")
    watch.step(verify.IDLE_SECONDS)
    assert PUT_BACK not in watch.host.ran
    watch.step(verify.LEFT_SECONDS)
    assert watch.host.ran.count(PUT_BACK) == 1


def test_a_power_limit_that_cannot_be_put_back_is_told(watch: Watch) -> None:
    watch.host.answers |= {SMI_ROWS: CAPPED, PUT_BACK: failed(PUT_BACK, 4, "Insufficient Permissions\n")}
    watch.step()
    assert watch.host.said[-1] == "that failed: Insufficient Permissions"


def test_a_power_limit_that_is_not_told_is_left_alone(watch: Watch) -> None:
    watch.host.answers[SMI_ROWS] = CAPPED.replace("400.00\n", "[N/A]\n")
    watch.step()
    assert not [command for command in watch.host.ran if "-pl" in command]


def test_the_power_limit_of_a_running_benchmark_is_its_own(watch: Watch) -> None:
    watch.host.answers[SMI_ROWS] = CAPPED
    watch.compute()
    watch.step()
    assert PUT_BACK not in watch.host.ran


def test_mode_verify_changes_nothing(tmp_path: Path) -> None:
    watch = Watch(tmp_path, "Verify")
    watch.host.answers[SMI_ROWS] = CAPPED
    assert watch.step().ready
    assert PUT_BACK not in watch.host.ran


def test_a_driver_is_ours_by_the_record(watch: Watch) -> None:
    assert watch.step().managed_by == "host"
    kept = record.Record(state="Complete", digest="d", version=VERSION, source="Packages", owned=True)
    record.write(watch.host, kept)
    assert watch.step(verify.IDLE_SECONDS).managed_by == "mlperf-operator"


def test_a_driver_that_is_not_loaded_is_nobodys(watch: Watch) -> None:
    watch.host.remove("/proc/driver/nvidia/version")
    assert watch.step().managed_by is None


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_probe_is_answered_by_the_latest_report(watch: Watch, capfd: pytest.CaptureFixture[str]) -> None:
    with verify.serving(watch.verifier, 0) as port:
        assert get(port, "/ready") == (503, "nothing was looked at yet\n")
        watch.step()
        status, body = get(port, "/ready?x=1")
        assert (status, NodeReport.model_validate_json(body).driver) == (200, VERSION)
        watch.host.answers[ACTIVE] = STOPPED
        watch.step()
        status, body = get(port, "/ready")
        assert (status, NodeReport.model_validate_json(body).reason) == (503, Reason.FABRIC_MANAGER_FAILED)
        assert get(port, "/")[0] == 404
    assert capfd.readouterr() == ("", "")


def test_only_this_node_is_answered(watch: Watch) -> None:
    with verify.serving(watch.verifier, 0) as port, pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.2:{port}/ready", timeout=5)


def test_a_report_is_said_only_when_it_differs(watch: Watch) -> None:
    said: list[str] = []
    clock = iter(range(1000, 1010, 2))

    class Waits(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout == verify.LOOK_SECONDS
            # The third look finds the fabric manager gone, and the fifth is the last.
            self.count = getattr(self, "count", 0) + 1
            if self.count == 2:
                watch.host.answers[ACTIVE] = STOPPED
            if self.count == 5:
                self.set()
            return self.is_set()

    stop = Waits()
    verify.run(watch.verifier, stop, clock=lambda: float(next(clock)), say=said.append)
    assert [json.loads(line)["reason"] for line in said] == ["Matched", "FabricManagerFailed"]


# The entry point.


def environment(folder: Path, **more: str) -> dict[str, str]:
    root = folder / "root"
    root.mkdir(exist_ok=True)
    return {
        entry.TARGET: target_of("Verify").model_dump_json(by_alias=True),
        entry.ROOT: str(root),
        entry.TERMINATION: str(folder / "termination-log"),
        **more,
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({entry.TARGET: ""}, "MLPERF_DRIVER_TARGET is not set"),
        ({entry.TARGET: "{"}, "MLPERF_DRIVER_TARGET is not what it should be: Invalid JSON"),
        ({entry.TARGET: '{"mode": "Destroy"}'}, "mode: Input should be"),
        ({entry.ROOT: "/no/such/folder"}, "MLPERF_HOST_ROOT is /no/such/folder"),
        ({entry.ROOT: "."}, "not the absolute path of a folder"),
        ({entry.PORT: "http"}, "MLPERF_VERIFY_PORT is 'http'"),
        ({entry.PORT: "70000"}, "not the number of a port"),
    ],
)
def test_an_environment_that_says_nothing_is_refused_clearly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], change: dict[str, str], words: str
) -> None:
    assert entry.main(["verify"], environment(tmp_path, **change)) == 2
    said = capfd.readouterr().err
    assert said.startswith("mlperf_operator.agent.driver verify: ")
    assert words in said


def test_another_job_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        entry.main(["install"], {})
    assert caught.value.code == 2
    assert "invalid choice: 'install'" in capfd.readouterr().err


def test_ensure_in_mode_verify_reports_and_passes_and_leaves_the_host_alone(tmp_path: Path) -> None:
    given = environment(tmp_path)
    assert entry.main(["ensure"], given) == 0
    told = NodeReport.model_validate_json((tmp_path / "termination-log").read_text())
    assert (told.ready, told.reason, told.changed) == (False, Reason.NO_GPU, False)
    assert list((tmp_path / "root").iterdir()) == []


def test_ensure_that_does_not_make_it_fails_with_the_reason_and_has_a_log_on_the_host(tmp_path: Path) -> None:
    given = environment(tmp_path, **{entry.TARGET: target_of().model_dump_json(by_alias=True)})
    assert entry.main(["ensure"], given) == 1
    told = NodeReport.model_validate_json((tmp_path / "termination-log").read_text())
    assert told.reason == Reason.NO_GPU
    assert (tmp_path / "root/var/log/mlperf-operator").is_dir()


@contextmanager
def verifying(given: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "mlperf_operator.agent.driver", "verify"]
    source = str(Path(look.__file__).parents[3])
    process = subprocess.Popen(
        argv,
        env={**os.environ, **given, "PYTHONPATH": source},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_verify_says_its_first_report_and_ends_cleanly_when_told(tmp_path: Path) -> None:
    with verify.serving(Watch(tmp_path).verifier, 0) as free:
        pass
    with verifying(environment(tmp_path, **{entry.PORT: str(free)})) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["reason"] == "NoGPU"
        assert get(free, "/ready")[0] == 503
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_port_that_is_taken_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with verify.serving(Watch(tmp_path).verifier, 0) as taken:
            assert entry.main(["verify"], environment(tmp_path, **{entry.PORT: str(taken)})) == 2
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert f"127.0.0.1:{taken} cannot be listened on: Address already in use" in capfd.readouterr().err


def test_a_look_that_hangs_is_not_ready_any_more(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch.step().ready
    current = watch.verifier.current()
    assert current is not None
    assert current.ready
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + verify.STALE_SECONDS + 1)
    stale = watch.verifier.current()
    assert stale is not None
    assert (stale.ready, stale.reason, stale.driver) == (False, Reason.SMI_FAILED, VERSION)
    assert "a program there hangs" in stale.message
    assert verify.answer("/ready", stale)[0] == HTTPStatus.SERVICE_UNAVAILABLE


def test_a_defect_of_ours_is_told_in_the_termination_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NodeReport:
        raise ValueError("https://user:secret@mirror.example.com is none")

    monkeypatch.setattr(ensure, "ensure", fail)
    message = tmp_path / "message"
    with pytest.raises(ValueError, match="is none"):
        entry.main(["ensure"], environment(tmp_path, **{entry.TERMINATION: str(message)}))
    told = NodeReport.model_validate_json(message.read_text())
    assert (told.ready, told.reason) == (False, Reason.INSTALL_FAILED)
    assert "ValueError: https://***@mirror.example.com is none" in told.message
