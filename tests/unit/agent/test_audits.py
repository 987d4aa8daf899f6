"""Compliance tests: what the wrapper keeps of them, and what `collect` makes of that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent import audits, collect
from mlperf_operator.api.v1alpha1 import AuditStatus
from mlperf_operator.observed import ContainerRecord
from mlperf_operator.report import announced, parse_log
from mlperf_operator.results.files import Confined
from unit.agent.bench import Bench, Step, step
from unit.results.logs import write

PLACE = "A100_SXM4_40GBx8_TRT/bert-99/Offline"
GOOD = "Verifying performance.\nreference score = 100\ntest score = 101\nTEST PASS\n"
BAD = "Verifying performance.\nreference score = 100\ntest score = 80\nTEST FAIL: Test score invalid\n"
DIFFERS = "Reading accuracy mode results...\nnum_acc_log_entries = 3\nTEST FAIL\n"
FIRST, ENDS, LENGTHS = "First token check pass", "EOS check pass", "Sample length check pass"
SCORES = {"baseline_accuracy.txt": '{"f1": 90.40}', "compliance_accuracy.txt": '{"f1": 90.35}'}


def _entry(results: Path, test: str = "TEST01", variant: str = "bert-99") -> dict[str, Any]:
    log_dir = results / "audits/bert/Offline" / test
    named = {"test": test, "benchmark": "bert", "variant": variant, "scenario": "Offline"}
    return {**named, "logDir": str(log_dir), "step": f"audit-{test}"}


def _judge(results: Path, entry: dict[str, Any], record: dict[str, Any] | None = None) -> AuditStatus:
    return audits.judge(entry, {"reason": "Completed"} if record is None else record, results)


def _leave(entry: dict[str, Any], files: dict[str, str], **metadata: Any) -> None:
    test = entry["test"]
    place = Path(entry["logDir"]) / "A100_SXM4_40GBx8_TRT" / entry["variant"] / "Offline"
    said = {"audit_test": test, "audit_success": True, "benchmark_full": entry["variant"], **metadata}
    kept = {key: value for key, value in said.items() if value is not None}
    write(place, {"metadata.json": json.dumps(kept)})
    for name, text in files.items():
        write((place / test / name).parent, {Path(name).name: text})


BOTH = {"verify_performance.txt": GOOD, "verify_accuracy.txt": "TEST PASS\n"}
FALLBACK = {
    "verify_performance.txt": GOOD,
    "verify_accuracy.txt": DIFFERS,
    **{f"accuracy/{name}": text for name, text in SCORES.items()},
}
TABLE: list[tuple[str, str, dict[str, str], dict[str, Any], bool | None, str]] = [
    ("both pass", "TEST01", BOTH, {}, True, "TEST PASS"),
    ("another test", "TEST05", {"verify_performance.txt": GOOD}, {}, True, "TEST PASS"),
    ("a slow one", "TEST05", {"verify_performance.txt": BAD}, {"audit_success": False}, False, "Test score invalid"),
    ("the file counts more", "TEST05", {"verify_performance.txt": BAD}, {}, False, "Test score invalid"),
    ("the word counts too", "TEST05", {"verify_performance.txt": GOOD}, {"audit_success": False}, False, "is false"),
    ("no word", "TEST05", {"verify_performance.txt": GOOD}, {"audit_success": None}, None, "audit_success is null"),
    ("unverified", "TEST05", {"verify_performance.txt": GOOD}, {"audit_success": "unverified"}, None, "unverified"),
    ("no file", "TEST01", {"verify_performance.txt": GOOD}, {}, None, "there is no verify_accuracy.txt"),
    ("an empty file", "TEST05", {"verify_performance.txt": ""}, {}, False, "it is empty"),
    ("both words", "TEST05", {"verify_performance.txt": GOOD + BAD}, {}, False, "TEST FAIL"),
    ("of another test", "TEST01", BOTH, {"audit_test": "TEST05"}, None, "metadata.json is of TEST05"),
    ("of another variant", "TEST01", BOTH, {"benchmark_full": "bert-99.9"}, None, "of bert-99.9, asked for was"),
    ("the second way", "TEST01", FALLBACK, {}, True, "F1 90.35 of 90.4, 1.0% may differ"),
    (
        "the second way is too far off",
        "TEST01",
        {**FALLBACK, "accuracy/compliance_accuracy.txt": '{"f1": 89.0}'},
        *({}, False, "F1 89 of 90.4"),
    ),
    (
        "the second way with another score",
        "TEST01",
        {**FALLBACK, "accuracy/compliance_accuracy.txt": "Accuracy: mean = 0.86"},
        *({}, None, "cannot be compared"),
    ),
    (
        "the second way was not gone",
        "TEST01",
        {"verify_performance.txt": GOOD, "verify_accuracy.txt": DIFFERS},
        *({}, False, "no accuracies of both runs"),
    ),
    (
        "words of another sentence",
        "TEST05",
        {"verify_performance.txt": "Verifying performance.\nneither TEST PASS nor the other word was printed\n"},
        *({}, False, "neither TEST PASS"),
    ),
    (
        "answers of a language model",
        "TEST06",
        {"verify_accuracy.txt": f"First token check pass: Skipped\nEOS check pass: True\n{LENGTHS}: True\n"},
        *({}, True, "EOS check pass: True"),
    ),
    (
        "answers of a language model that are checked by half",
        "TEST06",
        {"verify_accuracy.txt": "First token check pass: Skipped\nEOS check pass: True\n"},
        *({}, None, "EOS check pass: True"),
    ),
    (
        "answers of a language model that nobody checked",
        "TEST06",
        {"verify_accuracy.txt": "".join(f"{check}: Skipped\n" for check in (FIRST, ENDS, LENGTHS))},
        *({}, None, "Skipped"),
    ),
    (
        "a check that says both",
        "TEST06",
        {"verify_accuracy.txt": f"{FIRST}: True\n{ENDS}: True\n{LENGTHS}: False\n{LENGTHS}: True\n"},
        *({}, False, "Sample length check pass: True"),
    ),
    (
        "wrong answers of a language model",
        "TEST06",
        {"verify_accuracy.txt": "First token check pass: True\nEOS check pass: False\n"},
        *({}, False, "EOS check pass: False"),
    ),
    ("no answers of a language model", "TEST06", {"verify_accuracy.txt": "Traceback\n"}, {}, None, "Traceback"),
]


@pytest.mark.parametrize(
    ("case", "test", "files", "metadata", "passed", "word"), TABLE, ids=[f"{row[0]}-{row[1]}" for row in TABLE]
)
def test_a_test_passes_only_by_the_verifications_own_files(
    tmp_path: Path, case: str, test: str, files: dict[str, str], metadata: dict[str, Any], passed: bool, word: str
) -> None:
    entry = _entry(tmp_path, test)
    _leave(entry, files, **metadata)
    found = _judge(tmp_path, entry)
    assert found.passed is passed, case
    assert word in found.message
    assert found.logs == f"audits/bert/Offline/{test}"


def test_the_second_way_is_held_more_tightly_for_the_higher_accuracy(tmp_path: Path) -> None:
    entry = _entry(tmp_path, variant="bert-99.9")
    _leave(entry, {**FALLBACK, "accuracy/compliance_accuracy.txt": '{"f1": 90.2}'})
    found = _judge(tmp_path, entry)
    assert (found.passed, found.variant) == (False, "bert-99.9")
    assert "0.1% may differ" in found.message


def test_a_test_that_left_nothing_was_not_judged(tmp_path: Path) -> None:
    # A benchmark that is exempt: the harness says PASS and ends with 0.
    entry = _entry(tmp_path)
    Path(entry["logDir"]).mkdir(parents=True)
    found = _judge(tmp_path, entry)
    assert (found.passed, found.logs) == (None, "audits/bert/Offline/TEST01")
    assert "0 metadata.json" in found.message


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ({}, "the run ended before this was measured"),
        ({"reason": "PreviousStepFailed", "telling": ["CUDA out of memory"]}, "memory ran out"),
    ],
)
def test_a_test_that_was_not_run_says_why(tmp_path: Path, record: dict[str, Any], word: str) -> None:
    found = _judge(tmp_path, _entry(tmp_path), record)
    assert (found.passed, found.logs) == (None, None)
    assert word in found.message


def test_a_verification_that_cannot_be_read_costs_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = _entry(tmp_path)
    _leave(entry, BOTH)

    def broken(*_: object) -> None:
        raise RecursionError("too\ndeep")

    monkeypatch.setattr(Confined, "read_object", broken)
    found = _judge(tmp_path, entry)
    assert found.passed is None
    assert found.message == "the verification cannot be read: RecursionError: too deep"


@pytest.mark.parametrize("name", ["metadata.json", "TEST01/verify_performance.txt", "TEST01", "."])
def test_a_link_out_of_the_run_is_neither_judged_nor_told(tmp_path: Path, name: str) -> None:
    results, outside = tmp_path / "results", tmp_path / "outside"
    results.mkdir()
    entry = _entry(results)
    _leave(entry, {**BOTH, "verify_performance.txt": "SECRET of another file\n" + GOOD})
    place = Path(entry["logDir"]) / "A100_SXM4_40GBx8_TRT/bert-99/Offline"
    assert _judge(results, entry).passed
    (place / name).rename(outside)
    (place / name).symlink_to(outside)
    found = _judge(results, entry)
    assert found.passed is None
    assert "SECRET" not in found.message
    assert "TEST PASS" not in found.message


def test_a_verdict_is_one_word(tmp_path: Path) -> None:
    found = _judge(tmp_path, _entry(tmp_path))
    words = [audits.verdict(found.model_copy(update={"passed": passed})) for passed in (True, False, None)]
    assert words == ["AUDIT_PASSED", "AUDIT_FAILED", "AUDIT_UNJUDGED"]


# The wrapper


def _audit(bench: Bench, script: str, **more: Any) -> Step:
    audit = {**_entry(bench.results), "from": str(bench.work / "build/compliance_logs/TEST01")}
    del audit["step"]
    return step("audit-TEST01", script, audit=audit, continueOnFailure=True, requires=[], **more)


def _verify(bench: Bench, text: str = GOOD, code: int = 0) -> str:
    folder = bench.work / "build/compliance_logs/TEST01" / PLACE
    metadata = json.dumps({"audit_test": "TEST01", "audit_success": "PASS" in text, "benchmark_full": "bert-99"})
    files = " ".join(f"printf '{text!s}' > {folder}/TEST01/{name};" for name in BOTH)
    return f"mkdir -p {folder}/TEST01; echo '{metadata}' > {folder}/metadata.json; {files} exit {code}"


def _report(bench: Bench, capsys: pytest.CaptureFixture[str], audit: Step, *others: Step) -> list[AuditStatus]:
    plan = bench.plan(*others, audit, name="run")
    plan["expectedAudits"] = [{**audit["audit"], "step": audit["id"]}]
    bench.plan_file.write_text(json.dumps(plan))
    capsys.readouterr()
    assert collect.main(["--once"]) == 0
    said = bench.termination.read_text()
    container = ContainerRecord(name="collect", state="Terminated", message=said, exit_code=0)
    return list(parse_log(capsys.readouterr().out, "uid-1", announced(container, "uid-1")).audits)


@pytest.mark.parametrize(("text", "code", "passed"), [(GOOD, 0, True), (BAD, 2, False)])
def test_what_a_test_left_is_moved_to_the_results_and_judged(
    bench: Bench, capsys: pytest.CaptureFixture[str], text: str, code: int, passed: bool
) -> None:
    old = bench.work / "build/compliance_logs/TEST01/old/bert-99/Offline/metadata.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    audit = _audit(bench, _verify(bench, text, code))
    # A verification that says no has ended, whatever make returns: it is a verdict, no failure of the run.
    assert bench.run(audit, bench.harness("AccuracyOnly", "exit 1"), name="run") == 65
    assert not (bench.work / "build/compliance_logs/TEST01").exists()
    record = bench.record("audit-TEST01")
    assert (record["reason"], record["test"], record["uid"]) == ("Completed", "TEST01", "uid-1")
    (found,) = _report(bench, capsys, audit)
    assert found.passed is passed
    assert bench.told["verdicts"] == {"AUDIT_PASSED" if passed else "AUDIT_FAILED": 1}
    assert bench.told["count"] == 1


@pytest.mark.parametrize(("code", "reason"), [(0, "NoResult"), (2, "StageFailed")])
def test_a_test_that_verified_nothing_is_a_failure(bench: Bench, code: int, reason: str) -> None:
    script = f"mkdir -p {bench.work}/build/compliance_logs/TEST01/x; echo 'KeyError: 1'; exit {code}"
    assert bench.run(_audit(bench, script), name="run") == 65
    record = bench.record("audit-TEST01")
    assert (record["reason"], record["telling"]) == (reason, ["KeyError: 1"])
    assert (bench.results / "audits/bert/Offline/TEST01/x").is_dir()


def test_a_test_is_not_run_twice_unless_the_engine_is_another(bench: Bench) -> None:
    engine = f"mkdir -p {bench.work}/engines; echo one > {bench.work}/engines/a.plan"
    audit = _audit(bench, f"echo x >> {bench.home}/count; {_verify(bench)}") | {"requires": ["engines"]}
    failing = bench.harness("AccuracyOnly", "exit 1")
    for _ in range(2):
        assert bench.run(bench.engines(engine), audit, failing, name="run") == 65
    assert (bench.home / "count").read_text() == "x\n"
    shutil.rmtree(bench.work / "engines")
    assert bench.run(bench.engines(engine.replace("one", "two")), audit, failing, name="run") == 65
    assert (bench.home / "count").read_text() == "x\nx\n"
    shutil.rmtree(bench.work / "engines")
    assert bench.run(bench.engines("exit 1"), audit, failing, name="run") == 65
    assert bench.record("audit-TEST01")["reason"] == "Completed"


def test_a_test_whose_measurement_failed_is_not_run_and_says_why(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    harness = bench.harness("PerformanceOnly", "echo 'No registered config for bert'")
    audit = _audit(bench, _verify(bench)) | {"requires": [harness["id"]]}
    assert bench.run(harness, audit, name="run") == 65
    assert bench.record("audit-TEST01")["because"] == "NoResult"
    (found,) = _report(bench, capsys, audit, harness)
    assert found.passed is None
    assert "the harness has no configuration for this pair" in found.message


def test_a_test_with_another_engine_than_the_performance_is_not_judged(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    harness, audit = bench.harness(), _audit(bench, _verify(bench))
    assert bench.run(harness, audit, bench.harness("AccuracyOnly", "exit 1"), name="run") == 65
    path = bench.results / "steps/audit-TEST01.json"
    path.write_text(json.dumps({**bench.record("audit-TEST01"), "engines": {"a.plan": "2"}}))
    (found,) = _report(bench, capsys, audit, harness)
    assert found.passed is None
    assert "another engine" in found.message


def test_a_stopped_test_leaves_no_record(bench: Bench) -> None:
    assert bench.run(_audit(bench, "kill -TERM $PPID; sleep 30"), name="run") == 143
    assert not (bench.results / "steps").exists()


def test_a_result_that_is_not_staged_fails_no_stage_but_its_audits_say_so(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    staging = step("stage_results", "echo 'nothing to stage'; exit 2", continueOnFailure=True, advisory=True)
    audit = _audit(bench, _verify(bench)) | {"requires": ["stage_results"]}
    assert bench.run(bench.harness(), staging, audit, name="run") == 0
    (found,) = _report(bench, capsys, audit, bench.harness())
    assert found.passed is None
    assert "stage_results" in found.message


def test_a_failure_beside_one_that_may_be_ends_the_stage(bench: Bench) -> None:
    staging = step("stage_results", "exit 2", continueOnFailure=True, advisory=True)
    assert bench.run(staging, bench.harness("AccuracyOnly", "exit 1"), name="run") == 65
    assert "AccuracyOnly" in bench.told["step"]
