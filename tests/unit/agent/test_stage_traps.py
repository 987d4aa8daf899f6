"""What a harness with NVIDIA's interface does behind the wrapper's back, and runs that build side by side."""

from __future__ import annotations

import pytest

from unit.agent.bench import Bench, shared

PERFORMANCE, ACCURACY = "PerformanceOnly", "AccuracyOnly"


def _measuring(bench: Bench, mode: str, before: str) -> str:
    folder = bench.results / "logs" / mode / "system"
    return f"{before}; mkdir -p {folder} && echo '{{}}' > {folder}/metadata.json"


@pytest.mark.parametrize("before", ["echo two > engines/a.plan", "rm engines/a.plan"])
def test_a_harness_that_builds_its_engine_anew_has_no_result(bench: Bench, before: str) -> None:
    first = bench.harness(PERFORMANCE, None, requires=["engines"])
    second = bench.harness(ACCURACY, _measuring(bench, ACCURACY, before), requires=["engines"])
    assert bench.run(bench.engines(), first, second, name="run") == 65
    assert bench.record("harness-PerformanceOnly")["reason"] == "Completed"
    assert bench.record("harness-AccuracyOnly")["reason"] == "OtherEngine"
    assert "engines/a.plan" in bench.told["message"]


def test_a_harness_that_leaves_its_engine_alone_has_its_result(bench: Bench) -> None:
    script = _measuring(bench, PERFORMANCE, "cat engines/a.plan")
    assert bench.run(bench.engines(), bench.harness(PERFORMANCE, script, requires=["engines"]), name="run") == 0


def test_an_accuracy_script_that_prints_no_score_is_told_as_that(bench: Bench) -> None:
    log_dir = bench.results / "logs" / ACCURACY
    script = f"echo '[]' > {log_dir}/mlperf_log_accuracy.json; touch {log_dir}/accuracy.txt; exit 2"
    assert bench.run(bench.harness(ACCURACY, script), name="run") == 65
    assert bench.record("harness-AccuracyOnly")["reason"] == "AccuracyScriptFailed"


def test_runs_that_build_at_a_time_do_not_share_the_note_of_their_tries(bench: Bench) -> None:
    notes = [folder / "markers/build-attempt.json" for folder in (bench.state, bench.scratch / ".mlperf")]
    script = f"test -e {notes[0]} && test ! -e {notes[1]} && echo built > out"
    build = shared("build", script, bench.work / "out", publishTree=True)
    assert bench.run(build) == 0, bench.told
    assert not any(note.exists() for note in notes)
