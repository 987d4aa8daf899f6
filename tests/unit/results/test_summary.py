"""mlperf_log_summary.txt."""

from __future__ import annotations

import pytest

from mlperf_operator.results.summary import Summary, parse_summary
from unit.results.logs import FOOTER, summary

STOPPED = """Early Stopping Result:
 * Run unsuccessful.
 * Processed 100 queries."""


def test_the_headline_is_read_and_the_statistics_below_are_not() -> None:
    found = parse_summary(summary("Completed samples per second    : 1.15\nCompleted tokens per second: 751.37"))
    assert found.headline == {"Completed samples per second": 1.15, "Completed tokens per second": 751.37}
    assert (found.scenario, found.mode, found.validity) == ("Offline", "PerformanceOnly", "VALID")
    assert found.early_stopping_met is True
    assert found.min_duration_ms == 600000


def test_an_accuracy_run_leaves_only_a_footer() -> None:
    found = parse_summary("\n" + FOOTER)
    assert found == Summary(is_finished=True, headline={})


@pytest.mark.parametrize(
    "footer", ["1 warning encountered. See detailed log.", "1 ERROR encountered. See detailed log."]
)
def test_a_footer_that_counts_something_is_one_too(footer: str) -> None:
    assert parse_summary(footer).is_finished


def test_an_invalid_result_keeps_the_constraint_the_advice_and_the_early_stopping_block() -> None:
    block = "Recommendations:\n * Reduce target QPS.\n" + STOPPED
    found = parse_summary(summary(verdict="INVALID", stopping="NO", block=block))
    assert found.validity == "INVALID"
    assert found.reasons == (
        "Early stopping satisfied: NO",
        "Recommendations:",
        "* Reduce target QPS.",
        "Early Stopping Result:",
        "* Run unsuccessful.",
        "* Processed 100 queries.",
    )


def test_invalid_may_stand_though_every_constraint_says_yes() -> None:
    found = parse_summary(summary(verdict="INVALID", stopping="", block=STOPPED))
    assert found.validity == "INVALID"
    assert found.early_stopping_met is None
    assert found.reasons[:2] == ("Early Stopping Result:", "* Run unsuccessful.")


def test_a_missed_duration_is_known() -> None:
    assert parse_summary(summary(verdict="INVALID", duration="NO")).min_duration_met is False
    assert parse_summary(summary()).min_duration_met is True


def test_the_early_stopping_estimate_is_read() -> None:
    block = "Early Stopping Result:\n * Early stopping 99.0th percentile estimate: 10237769"
    assert parse_summary(summary(block=block)).early_stopping_estimate == 10237769


def test_of_two_verdicts_the_worse_one_counts() -> None:
    assert parse_summary(summary(verdict="INVALID", block="Result is : VALID")).validity == "INVALID"


def test_windows_line_ends_are_no_matter() -> None:
    assert parse_summary(summary().replace("\n", "\r\n")) == parse_summary(summary())


@pytest.mark.parametrize("headline", ["Samples per second: nan", "Samples per second: inf", "Samples per second: n/a"])
def test_a_headline_that_is_no_number_is_none(headline: str) -> None:
    assert parse_summary(summary(headline)).headline == {}


@pytest.mark.parametrize("text", ["", "\n\n", "\x00\ufffd" * 1000, "x" + " " * 2_000_000, "Result is : MAYBE"])
def test_junk_says_nothing(text: str) -> None:
    found = parse_summary(text)
    assert found.validity is None
    assert not found.is_finished


def test_an_estimate_of_thousands_of_digits_is_none() -> None:
    block = "Early Stopping Result:\n * Early stopping 99.0th percentile estimate: " + "9" * 900
    assert parse_summary(summary(block=block)).early_stopping_estimate is None


def test_statistics_and_parameters_are_read_by_their_labels() -> None:
    found = parse_summary(summary())
    assert found.stats == {"Scheduled samples per second": 77.7, "90.00 percentile latency (ns)": 5}
    assert found.parameters == {"min_duration (ms)": 600000, "max_duration (ms)": 0}


def test_warnings_and_errors_are_counted() -> None:
    found = parse_summary("12 warnings encountered. See detailed log.\n1 ERROR encountered. See detailed log.\n")
    assert (found.warning_count, found.error_count) == (12, 1)
