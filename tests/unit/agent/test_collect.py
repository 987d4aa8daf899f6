"""What collect reports, and that the operator reads exactly that."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent import collect, measured
from mlperf_operator.agent.causes import because
from mlperf_operator.agent.collect import Collector
from mlperf_operator.api.v1alpha1 import Cause, Metric, ResultStatus
from mlperf_operator.observed import ContainerRecord, Report
from mlperf_operator.report import announced, parse_log
from unit.agent.bench import Bench
from unit.results.logs import FOOTER, detail, line, metadata, summary, write

PERFORMANCE, ACCURACY = "PerformanceOnly", "AccuracyOnly"
ACCURATE = {"accuracy.txt": '{"exact_match": 83.0, "f1": 90.4}\naccuracy: 90.4\n'}
ENDED_EARLY = "NotMeasured", "the run ended before this was measured; condition Succeeded says how the run ended"


class Pod:
    """The results folder of a run with both modes of bert Offline, as the stage wrapper leaves it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.plan = bench.plan(bench.harness(PERFORMANCE), bench.harness(ACCURACY), name="run")
        os.environ.update(bench.environment)

    def folder(self, mode: str) -> Path:
        return self.bench.results / "logs" / mode / "A100_SXM4_40GBx8_TRT/bert-99/Offline"

    def logs(self, mode: str = PERFORMANCE, **files: str | bytes) -> None:
        """Write the logs of a mode, VALID or passed unless other files are given."""
        good: dict[str, str | bytes]
        if mode == PERFORMANCE:
            names = {
                "mlperf_log_detail.txt": detail(),
                "mlperf_log_summary.txt": summary(),
                "metadata.json": metadata(),
            }
            good = dict(names)
        else:
            nothing = {"result_validity": None, "early_stopping_met": None, "result_min_duration_met": None}
            log = detail(effective_test_mode=ACCURACY, **nothing)
            answers = '[\n{"seq_id": 0, "qsl_idx": 0, "data": "00"}\n]\n'
            good = {"mlperf_log_detail.txt": log, "mlperf_log_summary.txt": FOOTER, **ACCURATE}
            good["mlperf_log_accuracy.json"] = answers
        write(self.folder(mode), {**good, **files})

    def record(self, mode: str = PERFORMANCE, **more: Any) -> None:
        entry = {"uid": "uid-1", "reason": "Completed", "engines": {"a.plan": "1"}, **more}
        write(self.bench.results / "steps", {f"harness-{mode}.json": json.dumps(entry)})

    def measure(self, mode: str = PERFORMANCE, **more: Any) -> None:
        self.logs(mode)
        self.record(mode, **more)

    def read(self, log: str) -> Report:
        """Read a log as the operator does."""
        said = self.bench.termination.read_text()
        container = ContainerRecord(name="collect", state="Terminated", message=said, exit_code=0)
        return parse_log(log, "uid-1", announced(container, "uid-1"))


@pytest.fixture
def pod(bench: Bench) -> Pod:
    return Pod(bench)


def _once(pod: Pod, capsys: pytest.CaptureFixture[str]) -> Report:
    assert collect.main(["--once"]) == 0
    return pod.read(capsys.readouterr().out)


def test_results_are_read_from_the_volume_at_once(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE)
    pod.measure(ACCURACY)
    performance, accuracy = _once(pod, capsys).results
    assert (performance.validity, performance.missing) == ("VALID", None)
    assert performance.metric is not None
    assert performance.metric.value == 100.5
    assert performance.logs == "logs/PerformanceOnly"
    assert accuracy.missing is None
    assert [item.passed for item in accuracy.accuracy] == [True]
    told = pod.bench.told
    assert (told["kind"], told["uid"], told["count"]) == ("report", "uid-1", 2)
    assert told["verdicts"] == {"VALID": 1, "PASSED": 1}
    kept = json.loads((pod.bench.results / "report.json").read_text())
    assert kept["sha256"] == told["sha256"]


def test_a_result_is_reported_as_soon_as_its_record_is_there(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    collector = Collector(pod.plan)
    pod.logs(PERFORMANCE)
    collector.poll()
    assert capsys.readouterr().out == ""
    pod.record(PERFORMANCE)
    collector.poll()
    collector.poll()
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["step"] == "harness-PerformanceOnly"


def test_sigterm_parses_nothing_again(
    pod: Pod, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.measure(PERFORMANCE)
    pod.measure(ACCURACY)
    collector = Collector(pod.plan)
    collector.poll()
    monkeypatch.setattr(measured, "find_results", None)
    collector.finish()
    assert [r.missing for r in pod.read(capsys.readouterr().out).results] == [None, None]


def test_what_was_not_measured_is_missing_with_its_cause(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.record(PERFORMANCE, reason="NoResult", message="", telling=["WARNING No registered config for bert"])
    performance, accuracy = _once(pod, capsys).results
    assert performance.cause is Cause.NO_REGISTERED_CONFIG
    assert "WARNING No registered config for bert; give values for it" in str(performance.missing)
    assert (accuracy.cause, accuracy.missing) == ENDED_EARLY
    assert pod.bench.told["verdicts"] == {"MISSING": 2}


def test_a_record_of_another_run_is_never_read(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE, uid="an-earlier-run")
    assert [(r.cause, r.missing) for r in _once(pod, capsys).results] == [ENDED_EARLY] * 2


@pytest.mark.parametrize(
    "files",
    [
        {"mlperf_log_summary.txt": b"\xff\xfe\x00" * 50, "mlperf_log_detail.txt": b"\x00", "metadata.json": "["},
        {"mlperf_log_summary.txt": "", "mlperf_log_detail.txt": "", "metadata.json": ""},
        {
            "metadata.json": "[" * 100000,
            "mlperf_log_detail.txt": ":::MLLOG " + "[" * 100000,
            "mlperf_log_summary.txt": "",
        },
        {"mlperf_log_detail.txt": detail("Server")},
        {
            "mlperf_log_detail.txt": detail(effective_test_mode=ACCURACY),
            "mlperf_log_summary.txt": "",
            "metadata.json": "",
        },
        {"mlperf_log_summary.txt": "", "mlperf_log_detail.txt": detail(result_validity=None), "metadata.json": "{}"},
        {
            "mlperf_log_summary.txt": summary(verdict="MAYBE"),
            "mlperf_log_detail.txt": detail(result_validity="MAYBE"),
            "metadata.json": metadata(result_validity="MAYBE"),
        },
    ],
)
def test_files_that_are_no_result_never_give_a_verdict(
    pod: Pod, files: dict[str, str | bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    pod.logs(PERFORMANCE, **files)
    pod.record(PERFORMANCE)
    pod.measure(ACCURACY)
    performance, accuracy = _once(pod, capsys).results
    assert performance.validity is None
    assert performance.cause is not None
    assert accuracy.missing is None


@pytest.mark.parametrize("name", ["mlperf_log_summary.txt", "mlperf_log_detail.txt", "metadata.json", "."])
def test_a_result_behind_a_link_is_none(
    pod: Pod, capsys: pytest.CaptureFixture[str], name: str, tmp_path: Path
) -> None:
    pod.measure(PERFORMANCE)
    linked = pod.folder(PERFORMANCE) / name
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    performance = _once(pod, capsys).results[0]
    assert (performance.validity, performance.metric) == (None, None)
    assert performance.cause in (Cause.PARTIAL_LOGS, Cause.NO_RESULT)
    assert name == "." or f"it is a symbolic link, which is not followed: '{name}'" in str(performance.missing)


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_record_or_a_log_holds_nobody(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE)
    pod.measure(ACCURACY)
    for path in (pod.bench.results / f"steps/harness-{PERFORMANCE}.json", pod.folder(ACCURACY) / "accuracy.txt"):
        path.unlink()
        os.mkfifo(path)
    accuracy, performance = _once(pod, capsys).results
    assert (performance.cause, performance.missing) == ENDED_EARLY
    assert accuracy.cause is Cause.ACCURACY_SCRIPT_FAILED


def test_the_report_is_not_written_through_a_link(pod: Pod, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    for name in ("report.json", "manifest.json", f".report.json.{os.getpid()}.tmp"):
        (pod.bench.results / name).symlink_to(victim)
    _once(pod, capsys)
    assert victim.read_text() == "untouched"
    assert json.loads((pod.bench.results / "report.json").read_text())["kind"] == "report"


def test_a_parser_that_fails_costs_one_entry(
    pod: Pod, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError("too\ndeep")

    monkeypatch.setattr(measured, "find_results", broken)
    pod.measure(PERFORMANCE)
    performance, _ = _once(pod, capsys).results
    assert performance.cause is Cause.NO_RESULT
    assert "the result cannot be read: RecursionError: too deep" in str(performance.missing)


def test_a_number_that_is_none_is_no_result(
    pod: Pod, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = {"name": "m", "value": float("nan"), "unit": "u"}

    def found(entry: dict[str, Any], *_: object) -> Any:
        nothing = measured.missing(entry, because(Cause.NO_RESULT))
        return nothing.model_copy(update={"cause": None, "missing": None, "metric": Metric(**nan)})

    monkeypatch.setattr(measured, "to_status", found)
    pod.measure(PERFORMANCE)
    performance, _ = _once(pod, capsys).results
    assert "the result holds a value that is no number" in str(performance.missing)


def test_results_of_another_pair_are_missing(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE)
    pod.folder(PERFORMANCE).parent.rename(pod.folder(PERFORMANCE).parent.with_name("bert-99.9"))
    (pod.bench.results / "logs" / PERFORMANCE / "A100_SXM4_40GBx8_TRT/bert-99.9/Offline/metadata.json").unlink()
    performance, _ = _once(pod, capsys).results
    assert performance.cause is Cause.NO_RESULT
    assert "the folder is called bert-99.9, asked for was bert-99" in str(performance.missing)


def test_two_results_where_one_belongs_are_none(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE)
    write(pod.folder(PERFORMANCE).parents[1] / "bert-99.9/Offline", {"mlperf_log_detail.txt": detail()})
    performance, _ = _once(pod, capsys).results
    assert ": 2 results in " in str(performance.missing)


def test_a_broken_folder_beside_the_result_costs_nothing(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE)
    write(pod.folder(PERFORMANCE) / "more", {"metadata.json": "{"})
    assert _once(pod, capsys).results[0].validity == "VALID"


def test_accuracy_of_another_engine_is_no_part_of_the_verdict(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE, engines={"a.plan": "1"})
    pod.measure(ACCURACY, engines={"a.plan": "2"})
    performance, accuracy = _once(pod, capsys).results
    assert performance.validity == "VALID"
    assert accuracy.cause is Cause.OTHER_ENGINE
    assert accuracy.accuracy == []


def test_both_results_name_the_engine_that_gave_them(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    for mode in (PERFORMANCE, ACCURACY):
        pod.measure(mode, engines={"b.plan": "2", "a.plan": "1"})
    digests = {result.engine_digest for result in _once(pod, capsys).results}
    content = '{"a.plan":"1","b.plan":"2"}'
    assert digests == {hashlib.sha256(content.encode()).hexdigest()}


@pytest.mark.parametrize(
    ("mode", "files", "cause", "word"),
    [
        (PERFORMANCE, {"mlperf_log_summary.txt": summary().partition("Additional")[0]}, "PartialLogs", "has no end"),
        (PERFORMANCE, {"mlperf_log_detail.txt": detail().partition("result_valid")[0]}, "PartialLogs", "no verdict"),
        (ACCURACY, {"mlperf_log_summary.txt": "MLPerf"}, "PartialLogs", "summary.txt has no end"),
        (ACCURACY, {"mlperf_log_accuracy.json": '[{"data": "00"},'}, "PartialLogs", "accuracy.json has no end"),
        (ACCURACY, {"accuracy.txt": "Traceback"}, "AccuracyScriptFailed", "the script that judges them failed"),
    ],
)
def test_logs_that_are_not_whole_are_missing_and_say_which(
    pod: Pod, capsys: pytest.CaptureFixture[str], mode: str, files: dict[str, str], cause: str, word: str
) -> None:
    pod.logs(mode, **files)
    pod.record(mode)
    (result,) = [r for r in _once(pod, capsys).results if r.mode == mode]
    assert (result.cause, result.validity, result.accuracy) == (cause, None, [])
    assert word in str(result.missing)


@pytest.mark.parametrize("name", ["mlperf_log_summary.txt", "mlperf_log_detail.txt"])
def test_a_performance_without_one_of_loadgens_logs_is_none(
    pod: Pod, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    pod.measure(PERFORMANCE)
    (pod.folder(PERFORMANCE) / name).unlink()
    result = _once(pod, capsys).results[0]
    assert (result.cause, result.validity) == (Cause.PARTIAL_LOGS, None)
    assert f"there is no {name}" in str(result.missing)


STARTED = {"startedAt": "2026-01-02T03:04:05Z"}


@pytest.mark.parametrize(
    ("date", "cause"),
    [
        ("2026-01-01T03:04:05Z", "StaleLogs"),
        ("2026-01-02T03:04:00Z", None),
        ("2026-01-02T04:00:00Z", None),
        ("2026-99-99T99:99:99Z", None),
    ],
)
def test_a_log_that_was_begun_before_the_step_is_an_older_runs(
    pod: Pod, capsys: pytest.CaptureFixture[str], date: str, cause: str | None
) -> None:
    pod.logs(PERFORMANCE, **{"mlperf_log_detail.txt": line("test_datetime", date) + detail()})
    pod.record(PERFORMANCE, **STARTED)
    assert _once(pod, capsys).results[0].cause == cause


@pytest.mark.parametrize("started", ["2026-01-02T03:04:05", "yesterday", None, 7])
def test_a_record_without_a_readable_time_is_not_held_against_the_log(
    pod: Pod, capsys: pytest.CaptureFixture[str], started: object
) -> None:
    pod.logs(PERFORMANCE, **{"mlperf_log_detail.txt": line("test_datetime", "2026-01-02T03:04:06Z") + detail()})
    pod.record(PERFORMANCE, startedAt=started)
    assert _once(pod, capsys).results[0].validity == "VALID"


@pytest.mark.parametrize(("mode", "name"), [(PERFORMANCE, "metadata.json"), (ACCURACY, "accuracy.txt")])
def test_what_is_older_than_the_log_beside_it_is_of_an_older_run(
    pod: Pod, capsys: pytest.CaptureFixture[str], mode: str, name: str
) -> None:
    pod.measure(mode)
    written = (pod.folder(mode) / "mlperf_log_detail.txt").stat().st_mtime
    os.utime(pod.folder(mode) / name, (written - 60, written - 60))
    (result,) = [r for r in _once(pod, capsys).results if r.mode == mode]
    assert result.cause is Cause.STALE_LOGS
    assert f"{name} is older than LoadGen's log" in str(result.missing)


def test_an_invalid_result_says_loadgens_reason_and_what_to_set(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    late = {
        "effective_target_qps": 24750,
        "effective_target_latency_ns": 130000000,
        "result_completed_samples_per_sec": 22000.0,
        "result_perf_constraints_met": False,
    }
    block = "Recommendations:\n * Reduce target QPS to improve latency."
    pod.plan["expected"][0]["scenario"] = "Server"
    pod.bench.plan_file.write_text(json.dumps(pod.plan))
    folder = pod.folder(PERFORMANCE).with_name("Server")
    log = detail("Server", result_validity="INVALID", early_stopping_met=False, **late)
    said = summary("Completed samples per second : 22000", "Server", verdict="INVALID", stopping="NO", block=block)
    write(folder, {"mlperf_log_detail.txt": log, "mlperf_log_summary.txt": said})
    pod.record(PERFORMANCE)
    result = _once(pod, capsys).results[0]
    assert result.validity == "INVALID"
    assert "Reduce target QPS to improve latency" in result.message
    assert "the rate was too high: 24750 queries/s arrived, 22000 were completed" in result.message
    assert "{benchmark: bert, scenario: Server, field: server_target_qps, value: 21300}" in result.message


def test_a_pair_that_was_measured_again_is_reported_again(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE, finishedAt="1")
    pod.measure(ACCURACY)
    collector = Collector(pod.plan)
    collector.poll()
    pod.measure(PERFORMANCE, finishedAt="2")
    collector.poll()
    collector.finish()
    log = capsys.readouterr().out
    assert log.count('"kind": "result"') == 3
    assert sorted(str(result.mode) for result in pod.read(log).results) == [ACCURACY, PERFORMANCE]


def test_a_pair_whose_second_measuring_never_ended_is_missing(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE)
    collector = Collector(pod.plan)
    collector.poll()
    (pod.bench.results / "steps/harness-PerformanceOnly.json").unlink()
    collector.finish()
    assert all(result.missing for result in pod.read(capsys.readouterr().out).results)


def test_a_volume_that_takes_no_report_does_not_stop_it(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE)
    (pod.bench.results / "report.json/in-the-way").mkdir(parents=True)
    assert _once(pod, capsys).results[0].validity == "VALID"


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "[" * 100_000, '{"uid": 3}', '{"uid": "uid-1", "reason": 5}', "null"]
)
def test_a_record_that_is_none_is_a_missing_result(pod: Pod, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE)
    write(pod.bench.results / "steps", {"harness-PerformanceOnly.json": content})
    assert _once(pod, capsys).results[0].missing


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"missing": "why"}, "MISSING"),
        ({"mode": PERFORMANCE, "validity": "INVALID"}, "INVALID"),
        ({"mode": PERFORMANCE}, "MISSING"),
        ({"mode": ACCURACY}, "UNJUDGED"),
        ({"mode": ACCURACY, "accuracy": [{"name": "F1", "value": 1}]}, "UNJUDGED"),
        ({"mode": ACCURACY, "accuracy": [{"name": "F1", "value": 1, "passed": False}]}, "FAILED"),
    ],
)
def test_a_verdict_is_one_word(fields: dict[str, Any], word: str) -> None:
    base = {"benchmark": "bert", "variant": "bert-99", "scenario": "Offline", "mode": PERFORMANCE}
    assert measured.verdict(ResultStatus.model_validate({**base, **fields})) == word


def _start(pod: Pod, *arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "mlperf_operator.agent.collect", *arguments]
    folder = str(Path(collect.__file__).parents[2])
    environment = {**os.environ, **pod.bench.environment, "PYTHONPATH": folder}
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_killed_sidecar_started_anew_reports_the_whole_in_its_own_log(pod: Pod) -> None:
    pod.measure(PERFORMANCE)
    first = _start(pod)
    assert first.stdout is not None
    first.stdout.readline()
    first.kill()
    first.communicate()
    second = _start(pod)
    assert second.stdout is not None
    line = second.stdout.readline()
    pod.measure(ACCURACY)
    line += second.stdout.readline()
    second.send_signal(signal.SIGTERM)
    rest, _ = second.communicate(timeout=20)
    assert second.returncode == 0
    assert [result.missing for result in pod.read(line + rest).results] == [None, None]
    again, _ = _start(pod, "--once").communicate(timeout=20)
    assert pod.read(again).results == pod.read(line + rest).results


@pytest.mark.parametrize("name", ["mlperf_log_summary.txt", "mlperf_log_detail.txt", "mlperf_log_accuracy.json"])
def test_an_accuracy_that_no_whole_run_of_loadgen_stands_behind_is_none(
    pod: Pod, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    pod.measure(ACCURACY)
    (pod.folder(ACCURACY) / name).unlink()
    (result,) = [r for r in _once(pod, capsys).results if r.mode == ACCURACY]
    assert (result.cause, result.accuracy) == (Cause.PARTIAL_LOGS, [])
    assert f"there is no {name}" in str(result.missing)


@pytest.mark.parametrize("engines", [{}, None, "a.plan", ["a.plan"]])
def test_a_result_of_no_engine_names_none(pod: Pod, capsys: pytest.CaptureFixture[str], engines: object) -> None:
    pod.measure(PERFORMANCE, engines=engines)
    assert _once(pod, capsys).results[0].engine_digest is None
