"""The official primary metric of each scenario and version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.results import Metric
from mlperf_operator.results.metrics import version_of
from unit.results.logs import DETAIL, SUMMARY, detail, line, metadata, read, summary

ALL = {
    "result_samples_per_second": 10.5,
    "result_scheduled_samples_per_sec": 20.5,
    "result_completed_samples_per_sec": 30.5,
    "result_90.00_percentile_latency_ns": 40,
    "effective_samples_per_query": 8,
    "early_stopping_latency_ss": 50,
    "early_stopping_latency_ms": 60,
}
TTFT = {"early_stopping_ttft_result": " * Run successful."}
TOKENS = {"result_tokens_per_second": 70.5, "result_completed_tokens_per_second": 80.5}

OFFICIAL: list[tuple[str, str, dict[str, Any], str, float, str]] = [
    ("Offline", ".5a1 @ 69586", ALL, "result_samples_per_second", 10.5, "samples/s"),
    ("Offline", "5.1.0 @ NA", ALL, "result_samples_per_second", 10.5, "samples/s"),
    ("Offline", "4.1 @ 2ed95", ALL | TOKENS, "result_tokens_per_second", 70.5, "tokens/s"),
    ("Offline", "6.0.17", ALL | TOKENS, "result_tokens_per_second", 70.5, "tokens/s"),
    ("Server", "1.1 @ b1452", ALL, "result_scheduled_samples_per_sec", 20.5, "samples/s"),
    ("Server", "4.0 @ 01234", ALL, "result_scheduled_samples_per_sec", 20.5, "samples/s"),
    ("Server", "4.0 @ 01234", ALL | TTFT, "result_completed_samples_per_sec", 30.5, "samples/s"),
    ("Offline", "4.0 @ 01234", ALL | TOKENS, "result_tokens_per_second", 70.5, "tokens/s"),
    ("Server", "4.1 @ 2ed95", ALL, "result_completed_samples_per_sec", 30.5, "samples/s"),
    ("Server", "5.0.24 @ 24767", ALL | TOKENS, "result_completed_tokens_per_second", 80.5, "tokens/s"),
    ("SingleStream", "1.1 @ b1452", ALL, "result_90.00_percentile_latency_ns", 40, "ns"),
    ("SingleStream", "2.0 @ 70184", ALL, "early_stopping_latency_ss", 50, "ns"),
    ("MultiStream", ".5a1 @ 69586", ALL, "effective_samples_per_query", 8, "samples/query"),
    ("MultiStream", "2.0 @ 70184", ALL, "early_stopping_latency_ms", 60, "ns"),
    ("Single Stream", "3.0 @ f5367", ALL, "early_stopping_latency_ss", 50, "ns"),
]


INFERRED = {"result_inferred_tokens_per_second": 90.5, "result_inferred_completed_tokens_per_second": 95.5}
OFFICIAL += [
    ("Offline", "4.1 @ 2ed95", ALL | INFERRED, "result_inferred_tokens_per_second", 90.5, "tokens/s"),
    ("Server", "5.0 @ 24767", ALL | INFERRED, "result_inferred_completed_tokens_per_second", 95.5, "tokens/s"),
    ("Server", "4.0 @ 01234", ALL | INFERRED, "result_inferred_completed_tokens_per_second", 95.5, "tokens/s"),
]


@pytest.mark.parametrize(("scenario", "version", "keys", "name", "value", "unit"), OFFICIAL)
def test_the_metric_is_the_versions_official_one(
    tmp_path: Path, scenario: str, version: str, keys: dict[str, Any], name: str, value: float, unit: str
) -> None:
    found = read(tmp_path, {DETAIL: detail(scenario, version, **keys)})
    assert found.metric == Metric(name, value, unit)
    assert found.harness_version == version


COUNTED_AS_4_1 = [
    ("Server", "Completed samples per second    : 30.5", ALL, "result_completed_samples_per_sec"),
    (
        "Server",
        "Completed samples per second : 30.5\nCompleted tokens per second: 80.5",
        ALL | TOKENS,
        "result_completed_tokens_per_second",
    ),
    ("Server", "Scheduled samples per second : 20.5", ALL, "result_scheduled_samples_per_sec"),
    ("Offline", "Samples per second: 10.5\nTokens per second: 70.5", ALL | TOKENS, "result_tokens_per_second"),
]


@pytest.mark.parametrize(("scenario", "headline", "keys", "name"), COUNTED_AS_4_1)
def test_the_headline_shows_how_a_loadgen_that_calls_itself_4_0_counts(
    tmp_path: Path, scenario: str, headline: str, keys: dict[str, Any], name: str
) -> None:
    files: dict[str, str | bytes] = {
        DETAIL: detail(scenario, "4.0 @ 01234", **keys),
        SUMMARY: summary(headline, scenario),
    }
    found = read(tmp_path, files)
    assert (found.metric.name if found.metric else None, found.warnings) == (name, ())


@pytest.mark.parametrize(
    ("date", "name"),
    [
        ("2024-02-20T10:00:00-05:00", "result_scheduled_samples_per_sec"),
        ("2024-06-04T12:29:53-04:00", "result_completed_samples_per_sec"),
        ("2024-07-01T00:00:00Z", "result_completed_samples_per_sec"),
    ],
)
def test_without_a_summary_the_date_of_a_loadgen_4_0_shows_how_it_counts(tmp_path: Path, date: str, name: str) -> None:
    found = read(tmp_path, {DETAIL: detail("Server", "4.0 @ 01234", loadgen_git_commit_date=date, **ALL)})
    assert found.metric is not None
    assert found.metric.name == name


def test_the_latency_of_a_language_model_is_that_of_the_whole_answer(tmp_path: Path) -> None:
    log = detail("SingleStream", "5.1.0 @ 01234", early_stopping_ttft_result=" * Run successful.", **ALL)
    headline = "90.0th percentile latency (ns) : 40\n90.0th first token percentile latency (ns) : 30"
    block = "TTFT Early Stopping Result:\n * Early stopping 90.0th percentile estimate: 50"
    files: dict[str, str | bytes] = {DETAIL: log, SUMMARY: summary(headline, "SingleStream", block=block)}
    assert read(tmp_path / "a", files).metric == Metric("result_90.00_percentile_latency_ns", 40.0, "ns")
    del files[DETAIL]
    assert read(tmp_path / "b", files).metric == Metric("90.0th percentile latency (ns)", 40.0, "ns")


HEADLINES = [
    (
        "Server",
        "Completed samples per second : 1.15\nCompleted tokens per second (inferred): 79.5",
        "Yes",
        Metric("Completed tokens per second (inferred)", 79.5, "tokens/s"),
    ),
    ("Offline", "Samples per second: 26.1", "Yes", Metric("Samples per second", 26.1, "samples/s")),
    (
        "Offline",
        "Samples per second: 26.1\nTokens per second: 99.5",
        "Yes",
        Metric("Tokens per second", 99.5, "tokens/s"),
    ),
    ("Server", "Scheduled samples per second : 7.5", "Yes", Metric("Scheduled samples per second", 7.5, "samples/s")),
    (
        "Server",
        "Completed samples per second    : 1.15",
        "Yes",
        Metric("Completed samples per second", 1.15, "samples/s"),
    ),
    (
        "Server",
        "Completed samples per second    : 1.15\nCompleted tokens per second: 751.37",
        "Yes",
        Metric("Completed tokens per second", 751.37, "tokens/s"),
    ),
    ("SingleStream", "90th percentile latency (ns) : 588", "", Metric("90th percentile latency (ns)", 588.0, "ns")),
    ("SingleStream", "90.0th percentile latency (ns) : 588", "", Metric("90.0th percentile latency (ns)", 588.0, "ns")),
    ("Multi Stream", "Samples per query : 1525", "", Metric("effective_samples_per_query", 1525.0, "samples/query")),
    # From v2.0 on the percentile is not the metric: the estimate is, and there is none here.
    ("SingleStream", "90th percentile latency (ns) : 588", "NO", Metric("early_stopping_latency_ss", None, "ns")),
    ("MultiStream", "99.0th percentile latency (ns) : 588", "NO", Metric("early_stopping_latency_ms", None, "ns")),
]


@pytest.mark.parametrize(("scenario", "headline", "stopping", "metric"), HEADLINES)
def test_without_a_detail_log_the_summarys_headline_is_the_metric(
    tmp_path: Path, scenario: str, headline: str, stopping: str, metric: Metric
) -> None:
    found = read(tmp_path, {SUMMARY: summary(headline, scenario, stopping=stopping)})
    assert found.metric == metric
    assert found.harness_version is None


def test_without_a_detail_log_the_estimate_is_in_the_summarys_block(tmp_path: Path) -> None:
    block = "Early Stopping Result:\n * Early stopping 90th percentile estimate: 612"
    found = read(tmp_path, {SUMMARY: summary("90th percentile latency (ns) : 588", "SingleStream", block=block)})
    assert found.metric == Metric("early_stopping_latency_ss", 612.0, "ns")


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream"])
def test_an_estimate_of_zero_is_no_estimate(tmp_path: Path, scenario: str) -> None:
    key = {"SingleStream": "early_stopping_latency_ss", "MultiStream": "early_stopping_latency_ms"}[scenario]
    found = read(tmp_path, {DETAIL: detail(scenario, result_validity="INVALID", **{key: 0})})
    assert found.metric == Metric(key, None, "ns")


def test_a_log_without_its_head_names_what_its_keys_prove(tmp_path: Path) -> None:
    offline = detail(loadgen_version=None, result_samples_per_second=10.5)
    assert read(tmp_path / "a", {DETAIL: offline}).metric == Metric("result_samples_per_second", 10.5, "samples/s")
    server = detail("Server", loadgen_version=None, **ALL)
    assert read(tmp_path / "b", {DETAIL: server}).metric is None


def test_up_to_v1_1_the_multistream_headline_beats_the_setting(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        DETAIL: detail("MultiStream", ".5a1 @ 0123", effective_samples_per_query=1600),
        SUMMARY: summary("Samples per query : 1525", "Multi Stream", stopping=""),
    }
    assert read(tmp_path, files).metric == Metric("effective_samples_per_query", 1525.0, "samples/query")


def test_a_metric_that_is_no_number_is_none(tmp_path: Path) -> None:
    text = detail() + line("result_samples_per_second", float("nan"))
    assert read(tmp_path, {DETAIL: text}).metric is None


NO_METRIC = [
    (
        {DETAIL: detail("Server", loadgen_version=None, **ALL)},
        "depends on LoadGen's version, and the detail log says none",
    ),
    ({DETAIL: detail("Server", "unknown", **ALL)}, "the detail log says unknown"),
    ({DETAIL: detail()}, "the detail log has no number result_samples_per_second"),
    ({DETAIL: detail("Offlinest", **ALL)}, "no file names a scenario that is known"),
    ({SUMMARY: summary("")}, "there is no detail log, and the summary has no headline"),
    ({SUMMARY: summary("Frames per second : 3")}, "the summary has no headline that is one of Offline"),
    ({"metadata.json": metadata(scenario_key="result_tokens")}, "metadata.json has no number under the key"),
    ({DETAIL: detail("SingleStream", early_stopping_latency_ss=0)}, "LoadGen gives no estimate"),
]


@pytest.mark.parametrize(("files", "why"), NO_METRIC)
def test_a_result_without_a_metric_says_why(tmp_path: Path, files: dict[str, str | bytes], why: str) -> None:
    found = read(tmp_path, files)
    assert found.metric is None or found.metric.value is None
    [said] = [text for text in found.warnings if text.startswith("there is no primary metric: ")]
    assert why in said


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("5.1.0 @ NA", (5, 1)),
        ("v4.1", (4, 1)),
        (".5a1 @ 0123", (1, 0)),
        ("10.2", (10, 2)),
        ("1" * 5000 + ".1", None),
        ("1." + "1" * 5000, None),
        ("", None),
        (None, None),
        ("x", None),
    ],
)
def test_versions_are_read(text: str | None, version: tuple[int, int] | None) -> None:
    assert version_of(text) == version
