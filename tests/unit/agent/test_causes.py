"""From what the stage wrapper recorded to a cause, and what shows it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlperf_operator.agent.causes import NEXT_STEPS, because, explain
from mlperf_operator.agent.wrapper import evidence
from mlperf_operator.api.v1alpha1 import MAX_MESSAGE, Cause


def _record(reason: str = "StageFailed", *telling: str, **more: Any) -> dict[str, Any]:
    return {"reason": reason, "message": "make said 2", "exitCode": 2, "telling": list(telling), **more}


NO_CONFIG = "[2024-07-01 main.py:116 WARNING] No registered config for bert.Offline.X for WorkloadSetting(k_99)"
NO_MATCH = (
    "[main.py:229 INFO] Detected system did not match any known systems. Exiting. SystemConfiguration(" + "x" * 999
)
NOTHING: dict[str, Any] = {"reason": "NoResult", "exitCode": 0}

TABLE: list[tuple[str, dict[str, Any], Cause, str]] = [
    ("no record", {}, Cause.NOT_MEASURED, "the run ended before this was measured"),
    ("no config, exit code 0", _record("NoResult", NO_CONFIG, exitCode=0), Cause.NO_REGISTERED_CONFIG, "No registered"),
    ("no match, exit code 0", _record("NoResult", NO_MATCH, exitCode=0), Cause.SYSTEM_NOT_MATCHED, "Detected system"),
    ("nothing said, exit code 0", _record("NoResult", exitCode=0), Cause.NO_RESULT, "make said 2"),
    ("a result that cannot be read", _record("Completed", exitCode=0), Cause.NO_RESULT, ""),
    (
        "engines, by TensorRT's word",
        _record(
            "PreviousStepFailed", "[TRT] [E] Error Code 10: Internal Error", because="StageFailed", during="engines"
        ),
        *(Cause.ENGINE_BUILD_FAILED, "[TRT] [E] Error Code 10"),
    ),
    (
        "engines, without a word",
        _record("PreviousStepFailed", because="NoEngine", during="engines"),
        *(Cause.NO_RESULT, "make said 2"),
    ),
    (
        "engines, with an error and exit code 0",
        _record("PreviousStepFailed", "[TRT] [E] Error Code 10", because="NoEngine", during="engines"),
        *(Cause.ENGINE_BUILD_FAILED, "Error Code 10"),
    ),
    (
        "no config for the engines",
        _record("PreviousStepFailed", NO_CONFIG, because="NoEngine", during="engines"),
        *(Cause.NO_REGISTERED_CONFIG, "No registered"),
    ),
    (
        "memory for the engines",
        _record("PreviousStepFailed", "CUDA error: out of memory", because="StageFailed", during="engines"),
        *(Cause.OUT_OF_MEMORY, "out of memory"),
    ),
    (
        "memory of the GPU",
        _record("StageFailed", "F1 Check failed: == cudaSuccess (2 vs. 0)"),
        Cause.OUT_OF_MEMORY,
        "(2 vs",
    ),
    (
        "no memory of a counter",
        _record("StageFailed", "Check failed: mCounter == 0 (2 vs. 0)"),
        Cause.HARNESS_FAILED,
        "(2 vs",
    ),
    ("the kernel's count", _record(oomKills=1), Cause.OUT_OF_MEMORY, "make said 2"),
    ("no count", _record(oomKills="many"), Cause.HARNESS_FAILED, "make said 2"),
    ("a small /dev/shm", _record("StageFailed", "Bus error (core dumped)"), Cause.OUT_OF_MEMORY, "Bus error"),
    ("killed, by make", _record("StageFailed", "make: *** [Makefile:40: run_harness] Error 137"), Cause.KILLED, "137"),
    ("killed, by its code", _record(exitCode=137), Cause.KILLED, "make said 2"),
    (
        "killed, by the shell",
        _record("StageFailed", "/bin/sh: line 1: 7 Killed  ./harness_bert"),
        Cause.KILLED,
        "Killed",
    ),
    ("memory, then killed", _record("StageFailed", "out of memory", "Killed"), Cause.OUT_OF_MEMORY, "out of memory"),
    ("time", _record("StageTimeout"), Cause.TIMED_OUT, "runTimeoutSeconds"),
    ("NVSwitch", _record("StageFailed", "CUDA error 802: system not yet initialized"), Cause.FABRIC_MANAGER, "802"),
    (
        "NVSwitch, by TensorRT",
        _record("StageFailed", "[TRT] [E] CUDA initialization failure with error: 802"),
        *(Cause.FABRIC_MANAGER, "nvidia-fabricmanager"),
    ),
    ("driver", _record("StageFailed", "requires NVIDIA Driver Version >= 515.xx"), Cause.DRIVER, "515"),
    ("driver, by glog", _record("StageFailed", "Check failed: x == CUDA_SUCCESS (35 vs. 0)"), Cause.DRIVER, "35"),
    ("disk, by its reason", _record("ScratchFull"), Cause.SCRATCH_FULL, "larger volume"),
    ("disk of an earlier step", _record("PreviousStepFailed", because="ScratchFull"), Cause.SCRATCH_FULL, ""),
    ("disk, by a line", _record("StageFailed", "write: No space left on device"), Cause.SCRATCH_FULL, "No space"),
    ("accuracy script", _record("AccuracyScriptFailed"), Cause.ACCURACY_SCRIPT_FAILED, "make said 2"),
    (
        "accuracy script without memory",
        _record("AccuracyScriptFailed", "MemoryError"),
        *(Cause.ACCURACY_SCRIPT_FAILED, "make said 2"),
    ),
    ("logs that have begun", _record("PartialLogs"), Cause.PARTIAL_LOGS, "not whole"),
    ("logs of before", _record("StaleLogs"), Cause.STALE_LOGS, "older than this run"),
    ("an exception", _record("StageFailed", "KeyError: 'x'"), Cause.HARNESS_FAILED, "KeyError: 'x'"),
    ("the message alone", {**NOTHING, "message": NO_CONFIG}, Cause.NO_REGISTERED_CONFIG, "No registered"),
    ("no telling lines", {**NOTHING, "telling": "out of memory"}, Cause.NO_RESULT, "NoResult"),
]


@pytest.mark.parametrize(("case", "record", "cause", "word"), TABLE, ids=[row[0] for row in TABLE])
def test_a_cause_follows_from_what_was_recorded(case: str, record: dict[str, Any], cause: Cause, word: str) -> None:
    found = explain(record)
    assert found.cause is cause, case
    assert word in found.sentence
    assert found.sentence.endswith(NEXT_STEPS[cause])


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_a_sentence_and_a_next_step_that_fit(cause: Cause) -> None:
    found = because(cause, "x" * 9999)
    assert found.cause is cause
    assert len(found.sentence) <= MAX_MESSAGE
    assert found.sentence.endswith(NEXT_STEPS[cause])
    assert "x" * 300 in found.sentence


def test_every_group_of_words_is_a_cause_and_every_word_is_remembered() -> None:
    assert {Cause(name) for name in evidence.WORDS} < set(Cause)
    for cause, words in evidence.WORDS.items():
        for word in words:
            assert evidence.TELLING.search(f"[harness] {word} [more]")
            assert explain(_record("StageFailed", f"a {word} b")).cause == cause


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("reason", "message", "exitCode", "telling", "because", "during", "oomKills")


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_whatever_a_record_holds_a_cause_comes_of_it(record: dict[str, Any]) -> None:
    assert len(explain(record).sentence) <= MAX_MESSAGE


@pytest.mark.parametrize(
    "line",
    ["A" * 65536, "A." * 32768, "Check failed" * 5000, "out of memor" * 5000, "] Error 13" * 6000, "[TRT] [" * 9000],
)
def test_no_line_takes_long_to_search(line: str) -> None:
    started = time.process_time()
    evidence.most_telling([line] * 40)
    assert time.process_time() - started < 2


def test_of_a_line_the_telling_part_is_shown() -> None:
    assert evidence.shown("x" * 5000 + " out of memory " + "y" * 5000) == "x" * 99 + " out of memory " + "y" * 186
    assert evidence.shown("plain " * 900) == ("plain " * 900)[:300]
    assert evidence.most_telling(["KeyError: 1", "Killed", "plain"]) == ["Killed"]
    assert evidence.most_telling(["KeyError: 1", "plain"]) == ["KeyError: 1"]
    assert len(evidence.most_telling(["Killed"] * 99)) == evidence.MAX_LINES


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\noom_group_kill 0\n", 3),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", 4),
        ("memory.events", "oom_kill many\n", 0),
        ("memory.events", "\x00\xff\n", 0),
        ("other", "", 0),
    ],
)
def test_the_kernels_count_is_read_where_there_is_one(tmp_path: Path, name: str, text: str, count: int) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text, encoding="latin-1")
    assert evidence.oom_kills(tmp_path) == count


def test_the_time_of_a_folder_is_that_of_its_file_system(tmp_path: Path) -> None:
    now = evidence.now_by(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert abs(now - time.time()) < 60
    assert abs(evidence.now_by(tmp_path / "nowhere") - time.time()) < 60
    for age in (0, 1, 3):
        path = tmp_path / str(age)
        path.touch()
        os.utime(path, (now - age, now - age))
    assert [file.name for file in evidence.older(sorted(tmp_path.iterdir()), now)] == ["3"]


def test_a_log_that_cannot_be_read_is_not_closed(tmp_path: Path) -> None:
    assert not evidence.is_closed(tmp_path)
    assert not evidence.is_closed(tmp_path / "nowhere")
