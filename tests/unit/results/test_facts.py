"""What LoadGen says beside verdict and metric, from either log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.results import LoadgenFacts, Percentile
from mlperf_operator.results.detail import parse_detail
from mlperf_operator.results.facts import facts_of
from mlperf_operator.results.summary import Summary, parse_summary
from unit.results.logs import DETAIL, SUMMARY, accuracy_metadata, detail, line, read, summary

NOTHING = parse_detail([])
STOPPED = """Recommendations:
 * Reduce target QPS to improve latency.
 * The test exited early, before enough queries were issued.
   See the detailed log for why this may have occurred.
Early Stopping Result:
 * Run unsuccessful.
 * Processed 100 queries."""


def _of_detail(scenario: str = "Server", /, **values: Any) -> LoadgenFacts:
    return facts_of(Summary(), parse_detail(detail(scenario, **values).splitlines(keepends=True)))


def test_the_limits_and_rates_of_a_server_run_are_read_from_its_detail_log() -> None:
    found = _of_detail(
        requested_server_target_qps=82000,
        effective_target_qps=82000.5,
        effective_target_latency_ns=1_000_000_000,
        effective_target_latency_percentile=0.99,
        effective_min_query_count=270336,
        effective_samples_per_query=1,
        result_query_count=49196137,
        result_overlatency_query_count=840030,
        result_scheduled_samples_per_sec=81993.6,
        result_completed_samples_per_sec=81969.1,
        **{"result_99.00_percentile_latency_ns": 1121838054, "result_50.00_percentile_latency_ns": 363812792},
    )
    assert (found.requested_qps, found.target_qps) == (82000, 82000.5)
    assert (found.target_latency_ns, found.target_latency_percentile) == (1_000_000_000, 0.99)
    assert (found.min_duration_ms, found.min_query_count, found.samples_per_query) == (600000, 270336, 1)
    assert (found.query_count, found.overlatency_query_count) == (49196137, 840030)
    assert (found.scheduled_samples_per_second, found.completed_samples_per_second) == (81993.6, 81969.1)
    assert found.latencies == (Percentile(50, 363812792), Percentile(99, 1121838054))
    assert (found.latency_ns(99), found.latency_ns(99.9)) == (1121838054, None)


def test_the_limits_of_a_language_model_are_those_of_its_tokens() -> None:
    found = _of_detail(
        effective_target_latency_ns=0,
        requested_server_ttft_latency=2_000_000_000,
        requested_server_tpot_latency=200_000_000,
        **{
            "result_first_token_99.00_percentile_latency_ns": 1527654395,
            "result_time_per_output_token_99.00_percentile_ns": 151775607,
        },
    )
    assert (found.target_latency_ns, found.ttft_limit_ns, found.tpot_limit_ns) == (None, 2_000_000_000, 200_000_000)
    assert found.first_token_latencies == (Percentile(99, 1527654395),)
    assert found.output_token_times == (Percentile(99, 151775607),)
    assert found.latencies == ()


def test_the_latencies_of_multistream_are_those_of_its_queries() -> None:
    each = {"result_99.00_percentile_latency_ns": 1, "result_99.00_percentile_per_query_latency_ns": 8}
    assert _of_detail("MultiStream", **each).latencies == (Percentile(99, 8),)


def test_the_detail_logs_recommendations_come_without_stars() -> None:
    found = _of_detail(
        result_invalid_reason="Reduce target QPS to improve latency. ",
        early_stopping_result=" * Run unsuccessful.  * Processed 100 queries.",
    )
    assert found.recommendations == ("Reduce target QPS to improve latency.",)
    assert found.early_stopping == ("Run unsuccessful.", "Processed 100 queries.")


def test_constraints_are_flags_and_unknown_where_no_log_says() -> None:
    found = _of_detail(result_perf_constraints_met=False, result_min_queries_met=True, early_stopping_met=None)
    assert (found.performance_constraints_met, found.min_queries_met) == (False, True)
    assert (found.min_duration_met, found.early_stopping_met) == (True, None)


def test_warnings_and_errors_are_counted() -> None:
    warning = line("warning_generic_message", "late").replace(
        '"is_error": false', '"is_error": false, "is_warning": true'
    )
    log = parse_detail([warning, warning, line("error_runtime", "Ending early", is_error=True)])
    found = facts_of(Summary(), log)
    assert (found.warning_count, found.error_count, found.errors) == (2, 1, ("Ending early",))


def test_without_a_detail_log_the_summary_says_it() -> None:
    text = summary("Completed samples per second : 82", "Server", verdict="INVALID", stopping="NO", block=STOPPED)
    text = text.replace("min_duration (ms)", "target_qps : 85\ntarget_latency (ns): 130000000\nmin_duration (ms)")
    found = facts_of(parse_summary(text.replace("No warnings", "9 warnings")), NOTHING)
    assert (found.target_qps, found.target_latency_ns, found.min_duration_ms) == (85, 130_000_000, 600000)
    assert (found.scheduled_samples_per_second, found.completed_samples_per_second) == (77.7, 82)
    assert found.latencies == (Percentile(90, 5),)
    assert (found.performance_constraints_met, found.early_stopping_met) == (True, False)
    assert found.recommendations[0] == "Reduce target QPS to improve latency."
    assert found.recommendations[2] == "See the detailed log for why this may have occurred."
    assert found.early_stopping == ("Run unsuccessful.", "Processed 100 queries.")
    assert (found.warning_count, found.error_count) == (9, 0)


@pytest.mark.parametrize("title", ["Early Stopping Result:", "TTFT Early Stopping Result:"])
def test_each_early_stopping_block_is_read(title: str) -> None:
    text = summary(block=f"{title}\n * Run successful.\nTPOT Early Stopping Result:\n * Run unsuccessful.")
    assert facts_of(parse_summary(text), NOTHING).early_stopping == ("Run successful.", "Run unsuccessful.")


def test_an_accuracy_run_and_a_metadata_json_alone_have_no_facts(tmp_path: Path) -> None:
    log = detail(effective_test_mode="AccuracyOnly", result_validity=None)
    assert read(tmp_path / "a", {DETAIL: log}).loadgen is None
    assert read(tmp_path / "b", {"metadata.json": accuracy_metadata()}).loadgen is None
    assert read(tmp_path / "c", {SUMMARY: summary()}).loadgen is not None
