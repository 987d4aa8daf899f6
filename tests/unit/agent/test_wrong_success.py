"""Results that can be read, and are not what was asked for: none of them may look like a success."""

from __future__ import annotations

from typing import Any

import pytest

from mlperf_operator.agent import collect, measured
from mlperf_operator.api.v1alpha1 import Cause, ResultStatus
from unit.agent.bench import Bench
from unit.agent.test_collect import ACCURACY, PERFORMANCE, Pod
from unit.results.logs import FOOTER, accuracy_metadata, detail, line, metadata, summary, write

META, DETAIL, SUMMARY = "metadata.json", "mlperf_log_detail.txt", "mlperf_log_summary.txt"


@pytest.fixture
def pod(bench: Bench) -> Pod:
    return Pod(bench)


def _read(pod: Pod, capsys: pytest.CaptureFixture[str], mode: str = PERFORMANCE, /, **files: str) -> ResultStatus:
    """Return the result of a mode whose logs are good but for the given files."""
    pod.logs(mode, **files)
    pod.record(mode)
    return _collected(pod, capsys, mode)


def _collected(pod: Pod, capsys: pytest.CaptureFixture[str], mode: str = PERFORMANCE) -> ResultStatus:
    assert collect.main(["--once"]) == 0
    (result,) = [r for r in pod.read(capsys.readouterr().out).results if r.mode == mode]
    return result


def _is_missing(result: ResultStatus, cause: Cause, words: str) -> None:
    assert (result.cause, result.validity, result.metric, result.accuracy) == (cause, None, None, [])
    assert words in str(result.missing)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"result_validity": "INVALID"}, "metadata.json says INVALID, LoadGen's log VALID"),
        ({"test_mode": ACCURACY}, "metadata.json is of test mode AccuracyOnly, asked for was PerformanceOnly"),
        ({"scenario": "Server"}, "metadata.json is of scenario Server, asked for was Offline"),
        ({"config_name": "X_TRT-custom_k_99_MaxQ-Offline"}, "X_TRT-custom_k_99_MaxQ-Offline, asked for was 99 MaxP"),
        ({"config_name": "X_TRT-custom_k_99_9_MaxP-Offline"}, "asked for was 99 MaxP Offline"),
        ({"config_name": "X_TRT-custom_k_99_MaxP-Server"}, "asked for was 99 MaxP Offline"),
    ],
    ids=str,
)
def test_a_metadata_json_that_contradicts_the_run_is_no_result(
    pod: Pod, capsys: pytest.CaptureFixture[str], values: dict[str, Any], words: str
) -> None:
    _is_missing(_read(pod, capsys, **{META: metadata(**values)}), Cause.NO_RESULT, words)


def test_a_result_of_maxp_is_none_where_maxq_was_asked_for(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {**pod.plan["expected"][0], "powerSetting": "MaxQ"}
    pod.measure(PERFORMANCE)
    found = measured.read(asked, {}, pod.bench.results)
    _is_missing(found, Cause.NO_RESULT, "asked for was 99 MaxQ Offline")
    pod.logs(PERFORMANCE, **{META: metadata(config_name="X_TRT_MaxQ-custom_k_99_MaxQ-Offline")})
    assert measured.read(asked, {}, pod.bench.results).validity == "VALID"


@pytest.mark.parametrize("name", [None, "some-other-harness"])
def test_a_configuration_without_nvidias_name_is_not_judged(
    pod: Pod, capsys: pytest.CaptureFixture[str], name: str | None
) -> None:
    assert _read(pod, capsys, **{META: metadata(config_name=name)}).validity == "VALID"


def test_a_metadata_json_that_was_cut_off_is_no_result(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    _is_missing(_read(pod, capsys, **{META: metadata()[:-9]}), Cause.PARTIAL_LOGS, "metadata.json is no JSON")


def test_a_result_without_metadata_json_is_that_of_loadgens_logs(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE)
    (pod.folder(PERFORMANCE) / META).unlink()
    assert _collected(pod, capsys).validity == "VALID"


def test_the_folders_variant_counts_whatever_metadata_json_says(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE)
    folder = pod.folder(PERFORMANCE).parent
    folder.rename(folder.with_name("bert-99.9"))
    _is_missing(_collected(pod, capsys), Cause.NO_RESULT, "the folder is called bert-99.9, asked for was bert-99")


def test_logs_that_name_no_variant_are_no_result(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    write(pod.bench.results / "logs" / PERFORMANCE, {DETAIL: detail(), SUMMARY: summary()})
    pod.record(PERFORMANCE)
    _is_missing(_collected(pod, capsys), Cause.NO_RESULT, "asked for was bert-99 Offline")


@pytest.mark.parametrize("mode", ["FindPeakPerformance", "SubmissionRun"])
def test_another_test_of_loadgen_is_no_performance(pod: Pod, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    found = _read(pod, capsys, **{DETAIL: detail(effective_test_mode=mode)})
    _is_missing(found, Cause.NO_RESULT, f"LoadGen's log is of mode {mode}, asked for was PerformanceOnly")


def test_a_result_of_another_mode_beside_it_makes_it_none(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.measure(PERFORMANCE)
    other = {DETAIL: detail(effective_test_mode=ACCURACY, result_validity=None), SUMMARY: FOOTER}
    write(pod.folder(PERFORMANCE).with_name("Server"), dict(other))
    _is_missing(_collected(pod, capsys), Cause.NO_RESULT, "1 results in ")


@pytest.mark.parametrize("words", [("VALID", "INVALID"), ("INVALID", "VALID")])
def test_invalid_stays_where_a_log_has_two_verdicts(
    pod: Pod, capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    first, second = words
    log = detail(result_validity=first) + line("result_validity", second)
    found = _read(pod, capsys, **{DETAIL: log, SUMMARY: summary()})
    assert (found.validity, found.missing) == ("INVALID", None)


def _accurate(pod: Pod, capsys: pytest.CaptureFixture[str], text: str, item: dict[str, Any]) -> ResultStatus:
    return _read(pod, capsys, ACCURACY, **{"accuracy.txt": text, META: accuracy_metadata(item)})


@pytest.mark.parametrize("threshold", [80.0, None])
def test_a_tree_that_asks_for_less_than_mlcommons_does_not_pass(
    pod: Pod, capsys: pytest.CaptureFixture[str], threshold: float | None
) -> None:
    item = {"name": "F1", "value": 85.0, "threshold": threshold, "pass": True}
    (found,) = _accurate(pod, capsys, '{"f1": 85.0}', item).accuracy
    assert (found.value, found.threshold, found.passed) == (85.0, 89.96526, False)


def test_a_tree_that_asks_for_more_than_mlcommons_has_its_way(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    item = {"name": "F1", "value": 90.4, "threshold": 90.8, "pass": False}
    (found,) = _accurate(pod, capsys, '{"f1": 90.4}', item).accuracy
    assert (found.threshold, found.passed) == (90.8, False)


def test_a_score_of_another_name_is_not_the_benchmarks_accuracy(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    item = {"name": "accuracy", "value": 99.0, "threshold": 80.0, "pass": True}
    _is_missing(_accurate(pod, capsys, "nothing", item), Cause.ACCURACY_SCRIPT_FAILED, "there is no F1")


def test_a_metadata_json_alone_is_no_accuracy(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    item = {"name": "F1", "value": 90.4, "threshold": 89.96, "pass": True}
    write(pod.folder(ACCURACY), {META: accuracy_metadata(item)})
    pod.record(ACCURACY)
    _is_missing(_collected(pod, capsys, ACCURACY), Cause.PARTIAL_LOGS, "there is no mlperf_log_summary.txt")
