"""One folder's files together: which of them is believed, and what is said when they differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.results import Accuracy, Metric, Result
from unit.results.logs import DETAIL, FOOTER, SUMMARY, accuracy_metadata, detail, line, metadata, read, summary

META, ACC = "metadata.json", "accuracy.txt"
Files = dict[str, str | bytes]
OFFLINE = detail(result_samples_per_second=100.5)
F1 = '{"exact_match": 83.0, "f1": 90.38}\nhash=0123\n'


def test_a_whole_result_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "sys" / "bert-99" / "Offline"
    found = read(folder, {DETAIL: OFFLINE, SUMMARY: summary(), META: metadata()})
    assert found.loadgen is not None
    assert replace(found, loadgen=None) == Result(
        path=str(folder),
        benchmark="bert",
        variant="bert-99",
        scenario="Offline",
        mode="PerformanceOnly",
        validity="VALID",
        metric=Metric("result_samples_per_second", 100.5, "samples/s"),
        config_name="A100_SXM4_40GBx8_TRT-custom_k_99_MaxP-Offline",
        early_stopping_met=True,
        min_duration_met=True,
        harness_version="4.1 @ 0123456789",
    )


def test_metadata_alone_is_a_result_too(tmp_path: Path) -> None:
    found = read(tmp_path, {META: metadata(result_validity="INVALID", effective_min_duration_ms=0)})
    assert (found.validity, found.metric) == ("INVALID", Metric("result_samples_per_second", 100.5, "samples/s"))
    assert found.min_duration_met is False
    assert found.reason == "satisfies_query_constraint is false; effective_min_duration_ms is 0, below 600000"


@pytest.mark.parametrize(
    ("said", "met"),
    [({"effective_min_duration_ms": None}, None), ({}, True), ({"effective_min_duration_ms": 1}, False)],
)
def test_the_ten_minutes_are_unknown_where_no_file_names_them(
    tmp_path: Path, said: dict[str, Any], met: bool | None
) -> None:
    assert read(tmp_path, {META: metadata(**said)}).min_duration_met is met


def test_a_run_that_ended_before_its_ten_minutes_did_not_keep_to_them(tmp_path: Path) -> None:
    early = detail(result_validity="INVALID", result_min_duration_met=False)
    assert read(tmp_path / "a", {DETAIL: early}).min_duration_met is False
    assert read(tmp_path / "b", {SUMMARY: summary(verdict="INVALID", duration="NO")}).min_duration_met is False


def test_a_short_run_stays_valid_and_says_that_it_was_short(tmp_path: Path) -> None:
    found = read(tmp_path, {DETAIL: detail(effective_min_duration_ms=60000), META: metadata()})
    assert (found.validity, found.min_duration_met) == ("VALID", False)


def test_the_log_wins_over_a_stale_metadata_json(tmp_path: Path) -> None:
    stale = metadata(result_validity="INVALID", result_samples_per_second=77)
    found = read(tmp_path, {DETAIL: OFFLINE, SUMMARY: summary(), META: stale})
    assert (found.validity, found.metric) == ("VALID", Metric("result_samples_per_second", 100.5, "samples/s"))
    assert found.warnings == (
        "metadata.json says INVALID, the log says VALID; the log is taken",
        "metadata.json says result_samples_per_second 77, the log says 100.5; the log is taken",
    )


def test_a_stale_value_is_seen_though_the_log_has_another_official_metric(tmp_path: Path) -> None:
    p90 = "result_90.00_percentile_latency_ns"
    log = detail("SingleStream", "4.1 @ 0123", early_stopping_latency_ss=50, **{p90: 40})
    values: dict[str, Any] = {"scenario": "SingleStream", "scenario_key": p90, p90: 41}
    found = read(tmp_path, {DETAIL: log, SUMMARY: summary(scenario="SingleStream"), META: metadata(**values)})
    assert found.metric == Metric("early_stopping_latency_ss", 50.0, "ns")
    assert found.warnings == (f"metadata.json says {p90} 41, the log says 40; the log is taken",)


@pytest.mark.parametrize("said", [{"scenario": "Server"}, {"test_mode": "AccuracyOnly"}])
def test_metadata_of_another_run_fills_no_gap(tmp_path: Path, said: dict[str, Any]) -> None:
    log = detail(effective_min_duration_ms=None, early_stopping_met=None, result_validity=None)
    found = read(tmp_path, {DETAIL: log, SUMMARY: FOOTER, META: metadata(**said)})
    assert (found.validity, found.metric) == (None, None)
    assert (found.min_duration_met, found.early_stopping_met) == (None, None)
    assert "metadata.json is of another run than the log, which is taken" in found.warnings


UNDECIDED: list[tuple[str, Files]] = [
    ("a log that ends early", {DETAIL: detail(result_validity=None, result_min_duration_met=None), SUMMARY: ""}),
    ("empty logs", {DETAIL: "", SUMMARY: ""}),
    ("an accuracy run's summary", {SUMMARY: FOOTER}),
]


@pytest.mark.parametrize(("_case", "files"), UNDECIDED, ids=[case[0] for case in UNDECIDED])
def test_a_log_without_a_verdict_never_borrows_that_of_metadata_json(tmp_path: Path, _case: str, files: Files) -> None:
    found = read(tmp_path, files | {META: metadata()})
    assert (found.validity, found.metric) == (None, None)
    assert "metadata.json is of another run than the log, which is taken" in found.warnings


def test_a_metadata_json_that_cannot_be_read_does_not_cost_the_log(tmp_path: Path) -> None:
    found = read(tmp_path, {DETAIL: OFFLINE, SUMMARY: summary(), META: '{"result_validity": "VAL'})
    assert found.error is None
    assert found.validity == "VALID"
    assert found.warnings[0].startswith("metadata.json is no JSON")


def test_invalid_wins_when_the_two_logs_differ(tmp_path: Path) -> None:
    found = read(tmp_path, {DETAIL: OFFLINE, SUMMARY: summary(verdict="INVALID")})
    assert found.validity == "INVALID"
    assert "the summary says INVALID, the detail log VALID; taken as INVALID" in found.warnings


def test_a_summary_of_another_run_is_said(tmp_path: Path) -> None:
    found = read(tmp_path, {DETAIL: OFFLINE, SUMMARY: summary("Samples per second: 99.1")})
    assert found.metric == Metric("result_samples_per_second", 100.5, "samples/s")
    assert found.warnings == ("the summary says Samples per second 99.1, the detail log 100.5, which is taken",)


def test_the_digits_that_a_summary_leaves_out_are_no_difference(tmp_path: Path) -> None:
    log = detail(result_samples_per_second=1.496)
    assert read(tmp_path, {DETAIL: log, SUMMARY: summary("Samples per second: 1.50")}).warnings == ()


def test_an_invalid_result_says_why_with_and_without_a_summary(tmp_path: Path) -> None:
    block = "Recommendations:\n * Reduce target QPS."
    with_summary = read(tmp_path / "a", {SUMMARY: summary(verdict="INVALID", stopping="NO", block=block)})
    assert with_summary.reason == "Early stopping satisfied: NO; Recommendations:; * Reduce target QPS."
    log = detail(
        result_validity="INVALID",
        result_invalid_reason="Reduce target QPS. ",
        early_stopping_result=" * Run unsuccessful.",
    )
    assert read(tmp_path / "b", {DETAIL: log}).reason == "Reduce target QPS.; * Run unsuccessful."
    assert read(tmp_path / "c", {SUMMARY: summary(block=block)}).reason is None


def test_errors_in_the_log_are_said_though_the_verdict_is_valid(tmp_path: Path) -> None:
    found = read(tmp_path, {DETAIL: OFFLINE + line("error_runtime", "no response", is_error=True), SUMMARY: summary()})
    assert found.validity == "VALID"
    assert found.warnings == ("LoadGen logged errors (1), the first: no response",)


def test_lines_marked_as_errors_are_none_where_loadgen_counted_none(tmp_path: Path) -> None:
    odd = line("generic_message", "Starting performance mode", is_error=True)
    found = read(tmp_path, {DETAIL: OFFLINE + odd + line("num_errors", 0), SUMMARY: summary()})
    assert (found.validity, found.warnings) == ("VALID", ())


def test_a_run_that_did_not_finish_has_no_verdict_and_no_metric(tmp_path: Path) -> None:
    for scenario in ("Offline", "SingleStream"):
        log = detail(scenario, result_validity=None, early_stopping_met=None)
        found = read(tmp_path / scenario, {DETAIL: log, SUMMARY: ""})
        assert (found.mode, found.validity, found.metric) == ("PerformanceOnly", None, None)
        assert found.warnings == ("there is no verdict: the run did not finish",)


def test_a_missing_summary_is_said(tmp_path: Path) -> None:
    found = read(tmp_path, {DETAIL: OFFLINE})
    assert (found.validity, found.warnings) == ("VALID", ("there is no mlperf_log_summary.txt",))


def test_a_missing_detail_log_is_no_matter(tmp_path: Path) -> None:
    found = read(tmp_path, {SUMMARY: summary()})
    assert (found.validity, found.warnings, found.scenario) == ("VALID", (), "Offline")


def test_a_mode_that_is_no_measurement_is_said(tmp_path: Path) -> None:
    found = read(tmp_path, {DETAIL: detail(effective_test_mode="FindPeakPerformance"), SUMMARY: summary()})
    assert found.warnings == ("the log is of test mode FindPeakPerformance",)


ACCURACY_RUNS: list[tuple[str, Files]] = [
    ("the footer alone", {SUMMARY: FOOTER}),
    ("footer and accuracy.txt", {SUMMARY: FOOTER, ACC: F1}),
    ("accuracy.txt alone", {ACC: F1}),
    ("metadata alone", {META: accuracy_metadata({"name": "F1", "value": 90.38})}),
    (
        "all of them",
        {SUMMARY: FOOTER, DETAIL: detail(effective_test_mode="AccuracyOnly", result_validity=None), ACC: F1},
    ),
]


@pytest.mark.parametrize(("_case", "files"), ACCURACY_RUNS, ids=[case[0] for case in ACCURACY_RUNS])
def test_an_accuracy_run_has_no_verdict_and_no_metric(tmp_path: Path, _case: str, files: Files) -> None:
    found = read(tmp_path / "bert-99" / "Offline", files)
    assert found.mode == "AccuracyOnly"
    assert (found.validity, found.metric, found.min_duration_met, found.early_stopping_met) == (None, None, None, None)
    expected = () if list(files) == [SUMMARY] else (Accuracy("F1", 90.38, 89.96526, True),)
    assert found.accuracy == expected
    assert found.warnings == ()


def test_accuracy_txt_beside_a_performance_log_is_said_to_be_of_another_run(tmp_path: Path) -> None:
    found = read(tmp_path, {DETAIL: OFFLINE, SUMMARY: summary(), META: metadata(), ACC: F1})
    assert (found.mode, found.validity) == ("PerformanceOnly", "VALID")
    assert found.accuracy == (Accuracy("F1", 90.38, 89.96526, True),)
    assert found.warnings == ("the accuracy is of another run than the log, which is of a performance run",)


def test_a_submission_run_measures_both_in_one_go(tmp_path: Path) -> None:
    found = read(tmp_path, {DETAIL: detail(effective_test_mode="SubmissionRun"), SUMMARY: summary(), ACC: F1})
    assert found.validity == "VALID"
    assert found.accuracy[0].name == "F1"
    assert found.warnings == ("the log is of test mode SubmissionRun",)


def test_the_folders_scenario_is_shown_and_the_logs_is_measured_by(tmp_path: Path) -> None:
    log = detail("SingleStream", early_stopping_latency_ss=50, early_stopping_latency_ms=60)
    found = read(tmp_path / "retinanet" / "MultiStream" / "performance" / "run_1", {DETAIL: log, SUMMARY: summary()})
    assert (found.scenario, found.metric) == ("MultiStream", Metric("early_stopping_latency_ss", 50.0, "ns"))
    assert found.warnings == ("the folder is called MultiStream, the log says SingleStream",)


def test_interactive_is_logged_as_server_and_that_is_no_difference(tmp_path: Path) -> None:
    log = detail("Server", result_completed_tokens_per_second=751.4)
    found = read(tmp_path / "llama3.1-405b" / "Interactive", {DETAIL: log, SUMMARY: summary(scenario="Server")})
    assert (found.scenario, found.metric) == (
        "Interactive",
        Metric("result_completed_tokens_per_second", 751.4, "tokens/s"),
    )
    assert found.warnings == ()


def test_the_variant_is_metadatas_and_a_difference_to_the_folder_is_said(tmp_path: Path) -> None:
    found = read(tmp_path / "bert-99.9" / "Offline", {META: metadata()})
    assert (found.benchmark, found.variant) == ("bert", "bert-99")
    assert found.warnings == ("the folder is called bert-99.9, metadata.json says bert-99",)


UNREADABLE: list[tuple[str, Files, str]] = [
    ("nothing", {}, "none of its files"),
    ("an empty summary", {SUMMARY: ""}, "the summary holds no verdict"),
    ("an empty detail log", {DETAIL: ""}, "hold nothing of LoadGen's"),
    ("an empty metadata.json", {META: ""}, "metadata.json is no JSON"),
    ("metadata.json of something else", {META: '{"name": "x"}'}, "not of NVIDIA's harness"),
    ("junk", {SUMMARY: bytes(range(256)) * 9, DETAIL: bytes(range(256)) * 9}, "hold nothing of LoadGen's"),
]


@pytest.mark.parametrize(("_case", "files", "error"), UNREADABLE, ids=[case[0] for case in UNREADABLE])
def test_what_cannot_be_read_is_a_result_with_its_error(tmp_path: Path, _case: str, files: Files, error: str) -> None:
    found = read(tmp_path, files)
    assert found == Result(path=str(tmp_path), error=found.error)
    assert error in (found.error or "")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_marks_and_foreign_bytes_are_no_matter(tmp_path: Path, encoding: str) -> None:
    sut = summary().replace("LWIS_Server", "Grüße")
    files: Files = {SUMMARY: sut.encode(encoding), META: metadata(config_name="Grüße").encode(encoding)}
    found = read(tmp_path, files | {DETAIL: OFFLINE.encode() + b"\xff\xfe\x00"})
    assert (found.validity, found.error) == ("VALID", None)


def test_a_line_longer_than_one_read_is_put_together(tmp_path: Path) -> None:
    long = line("loaded_qsl_set", list(range(60_000)))
    found = read(tmp_path, {DETAIL: long + OFFLINE, SUMMARY: summary()})
    assert found.metric == Metric("result_samples_per_second", 100.5, "samples/s")
    assert found.warnings == ()


def test_of_a_huge_accuracy_txt_the_end_is_read(tmp_path: Path) -> None:
    text = "processed one more sample\n" * 200_000 + F1
    assert [item.name for item in read(tmp_path, {ACC: text}).accuracy] == ["F1"]


def test_a_result_cannot_be_changed(tmp_path: Path) -> None:
    found = read(tmp_path, {SUMMARY: summary()})
    assert replace(found, validity="INVALID") != found
    with pytest.raises(AttributeError):
        found.validity = "INVALID"  # type: ignore[misc]
