"""The stage `run`: engines once, then the harness for each mode, and a record of each that cannot be stale."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from unit.agent.bench import Bench, Step, lines_of, step

PERFORMANCE, ACCURACY = "PerformanceOnly", "AccuracyOnly"


def _run(bench: Bench, *steps: Step) -> int:
    return bench.run(*steps, name="run")


def _pair(bench: Bench, engine: str = "one", **more: Any) -> list[Step]:
    script = f"echo x >> {bench.home}/built; mkdir -p engines; echo {engine} > engines/a.plan"
    both = [bench.harness(mode, None, requires=["engines"], **more) for mode in (PERFORMANCE, ACCURACY)]
    return [bench.engines(script), *both]


def test_each_mode_has_a_record_with_the_engines_digest(bench: Bench) -> None:
    assert _run(bench, *_pair(bench)) == 0
    records = [bench.record(f"harness-{mode}") for mode in (PERFORMANCE, ACCURACY)]
    assert [record["reason"] for record in records] == ["Completed", "Completed"]
    assert records[0]["engines"] == records[1]["engines"] == {"engines/a.plan": _sha256("one\n")}
    assert records[0]["uid"] == "uid-1"
    assert records[0]["startedAt"] <= records[0]["finishedAt"]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_work_tree_is_given_back_at_the_end_and_nothing_is_done_twice(bench: Bench) -> None:
    assert _run(bench, *_pair(bench)) == 0
    assert list(bench.work.iterdir()) == []
    assert _run(bench, *_pair(bench)) == 0
    assert bench.told["reason"] == "Skipped"
    assert lines_of(bench.home / "built") == ["x"]


def test_a_failed_run_keeps_its_tree_and_measures_only_what_is_missing(bench: Bench) -> None:
    engines, performance, _ = _pair(bench)
    assert _run(bench, engines, performance, bench.harness(ACCURACY, "exit 1", requires=["engines"])) == 65
    before = bench.record("harness-PerformanceOnly")
    assert _run(bench, *_pair(bench)) == 0
    assert bench.record("harness-PerformanceOnly") == before
    assert lines_of(bench.home / "built") == ["x"]


def test_engines_that_were_lost_are_made_again_and_everything_is_measured_with_them(bench: Bench) -> None:
    engines, performance, _ = _pair(bench)
    assert _run(bench, engines, performance, bench.harness(ACCURACY, "exit 1", requires=["engines"])) == 65
    shutil.rmtree(bench.work / "engines")
    assert _run(bench, *_pair(bench, engine="two")) == 0
    found = [bench.record(f"harness-{mode}")["engines"] for mode in (PERFORMANCE, ACCURACY)]
    assert found == [{"engines/a.plan": _sha256("two\n")}] * 2


def test_a_result_whose_logs_are_gone_is_measured_again(bench: Bench) -> None:
    failing = bench.harness(ACCURACY, "exit 1")
    script = f"echo x >> {bench.home}/count; touch {bench.results}/logs/{PERFORMANCE}/metadata.json"
    assert _run(bench, bench.harness(PERFORMANCE, script), failing) == 65
    shutil.rmtree(bench.results / "logs")
    assert _run(bench, bench.harness(PERFORMANCE, script), failing) == 65
    assert lines_of(bench.home / "count") == ["x", "x"]


def test_an_old_result_in_the_log_folder_is_never_taken_for_a_new_one(bench: Bench) -> None:
    old = bench.results / "logs" / PERFORMANCE / "system/metadata.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    assert _run(bench, bench.harness(PERFORMANCE, "true")) == 65
    assert bench.record("harness-PerformanceOnly")["reason"] == "NoResult"
    assert not old.exists()


def test_a_record_of_another_run_is_never_taken(bench: Bench) -> None:
    one = bench.harness(PERFORMANCE)
    assert _run(bench, one, bench.harness(ACCURACY, "exit 1")) == 65
    path = bench.results / "steps/harness-PerformanceOnly.json"
    path.write_text(json.dumps({**bench.record("harness-PerformanceOnly"), "uid": "old", "benchmark": "old"}))
    assert _run(bench, one, bench.harness(ACCURACY, "exit 1")) == 65
    assert bench.record("harness-PerformanceOnly")["uid"] == "uid-1"


@pytest.mark.parametrize("line", ["No registered config for bert", "Detected system did not match any known systems."])
def test_a_harness_that_did_nothing_and_said_why_is_no_success(bench: Bench, line: str) -> None:
    assert _run(bench, bench.harness(PERFORMANCE, f"echo '{line}'; echo bye")) == 65
    record = bench.record("harness-PerformanceOnly")
    assert record["reason"] == "NoResult"
    assert record["message"].endswith(f"ended with 0 but wrote no result: {line}")
    assert bench.told["reason"] == "NoResult"


def test_engines_that_were_not_made_for_a_telling_reason_fail_the_pair_at_once(bench: Bench) -> None:
    engines = bench.engines("echo 'No registered config for bert'")
    assert _run(bench, engines, bench.harness(PERFORMANCE, None, requires=["engines"])) == 65
    assert bench.told["reason"] == "NoEngine"
    record = bench.record("harness-PerformanceOnly")
    assert record["reason"] == "PreviousStepFailed"
    assert "not run, because engines failed" in record["message"]
    assert "No registered config" in record["message"]


def test_accuracy_that_was_measured_but_not_judged_is_told_as_that(bench: Bench) -> None:
    log_dir = bench.results / "logs" / ACCURACY
    script = f"echo '[]' > {log_dir}/mlperf_log_accuracy.json; touch {log_dir}/mlperf_log_summary.txt"
    for code in (0, 1):
        assert _run(bench, bench.harness(ACCURACY, f"{script}; exit {code}")) == 65
        record = bench.record("harness-AccuracyOnly")
        assert (record["reason"], record["exitCode"]) == ("AccuracyScriptFailed", code)


@pytest.mark.parametrize(
    ("mode", "name"), [(ACCURACY, "mlperf_log_accuracy.json"), (PERFORMANCE, "mlperf_log_detail.txt")]
)
def test_logs_that_have_only_begun_are_no_result(bench: Bench, mode: str, name: str) -> None:
    assert _run(bench, bench.harness(mode, f"echo '[' > {bench.results}/logs/{mode}/{name}")) == 65
    assert bench.record(f"harness-{mode}")["reason"] == "PartialLogs"


def test_an_older_runs_files_that_the_harness_puts_there_are_no_result(bench: Bench) -> None:
    log_dir = bench.results / "logs" / PERFORMANCE
    script = (
        f"mkdir -p {log_dir}/s; echo VALID > {log_dir}/s/mlperf_log_summary.txt; touch -d @1700000000 {log_dir}/s/*"
    )
    assert _run(bench, bench.harness(PERFORMANCE, script)) == 65
    record = bench.record("harness-PerformanceOnly")
    assert record["reason"] == "StaleLogs"
    assert "older than this step" in record["message"]


def test_a_record_says_what_shows_why(bench: Bench) -> None:
    script = (
        "echo 'RuntimeError: Building engines failed!'; echo \"$(printf x%.0s $(seq 9000)) CUDA out of memory\"; exit 2"
    )
    assert _run(bench, bench.engines(script), bench.harness(PERFORMANCE, None, requires=["engines"])) == 65
    record = bench.record("harness-PerformanceOnly")
    assert (record["reason"], record["because"], record["during"]) == ("PreviousStepFailed", "StageFailed", "engines")
    (line,) = record["telling"]
    assert line.endswith("CUDA out of memory")
    assert len(line) < 400


def test_where_no_line_tells_more_a_complaint_is_kept(bench: Bench) -> None:
    script = "echo 'Traceback (most recent call last):'; echo 'KeyError: 1'; exit 1"
    assert _run(bench, bench.harness(PERFORMANCE, script)) == 65
    assert bench.record("harness-PerformanceOnly")["telling"] == ["KeyError: 1"]
    assert bench.told["message"].endswith("ended with 1: KeyError: 1")


def test_one_failed_pair_does_not_stop_the_others(bench: Bench) -> None:
    steps = [bench.harness(PERFORMANCE, "echo CUDA out of memory; exit 2"), bench.harness(ACCURACY)]
    assert _run(bench, *steps) == 65
    assert bench.record("harness-AccuracyOnly")["reason"] == "Completed"
    assert bench.told["message"].endswith("ended with 2: CUDA out of memory")
    assert list(bench.results.glob("steps/*.json"))


def test_the_message_counts_the_failures(bench: Bench) -> None:
    assert _run(bench, bench.harness(PERFORMANCE, "exit 2"), bench.harness(ACCURACY, "exit 3")) == 65
    assert bench.told["message"].endswith("ended with 2 (and 1 more: harness-AccuracyOnly)")


def test_a_file_system_error_costs_one_pair(bench: Bench) -> None:
    (bench.results / "logs").mkdir()
    (bench.results / "logs" / PERFORMANCE).write_text("in the way")
    assert _run(bench, bench.harness(PERFORMANCE), bench.harness(ACCURACY)) == 65
    assert bench.told["message"].startswith("File exists")
    assert bench.record("harness-AccuracyOnly")["reason"] == "Completed"


def test_time_that_is_over_ends_the_stage_with_a_record(bench: Bench) -> None:
    assert bench.run(bench.harness(PERFORMANCE, "sleep 30"), bench.harness(ACCURACY), name="run", timeout=0.4) == 65
    assert bench.record("harness-PerformanceOnly")["reason"] == "StageTimeout"
    assert not (bench.results / "steps/harness-AccuracyOnly.json").exists()


def test_sigterm_leaves_no_record(bench: Bench) -> None:
    # The parent of the shell is the wrapper, which here is this test's own process.
    assert _run(bench, bench.harness(PERFORMANCE, "kill -TERM $PPID; sleep 30")) == 143
    assert not (bench.results / "steps").exists()
    assert Path(bench.termination).exists()


def test_a_step_that_must_not_fail_ends_the_stage(bench: Bench) -> None:
    assert _run(bench, step("first", "exit 1"), bench.harness(PERFORMANCE)) == 65
    assert not (bench.results / "steps").exists()


def test_a_result_stays_when_its_engines_cannot_be_made_again(bench: Bench) -> None:
    engines, performance, _ = _pair(bench)
    failing = bench.harness(ACCURACY, "exit 1", requires=["engines"])
    assert _run(bench, engines, performance, failing) == 65
    shutil.rmtree(bench.work / "engines")
    assert _run(bench, bench.engines("exit 1"), performance, failing) == 65
    assert bench.record("harness-PerformanceOnly")["reason"] == "Completed"
    assert bench.record("harness-AccuracyOnly")["reason"] == "PreviousStepFailed"
