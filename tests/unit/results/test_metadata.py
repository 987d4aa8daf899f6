"""metadata.json of NVIDIA's harness."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlperf_operator.results.metadata import parse_metadata
from mlperf_operator.results.model import Accuracy, Metric, ResultError
from unit.results.logs import accuracy_metadata, metadata

F1 = {"name": "F1", "value": 90.2, "threshold": 89.96526, "pass": True}


def test_the_metric_is_the_value_under_the_key_that_scenario_key_names() -> None:
    found = parse_metadata(
        metadata(scenario_key="result_completed_samples_per_sec", result_completed_samples_per_sec=7)
    )
    assert found.metric == Metric("result_completed_samples_per_sec", 7.0, "samples/s")


def test_the_verdict_is_loadgens_and_not_that_of_summary_string() -> None:
    short = parse_metadata(metadata(effective_min_duration_ms=60000))
    assert short.validity == "VALID"
    assert short.min_duration_ms == 60000


def test_early_stopping_zero_is_no_estimate() -> None:
    found = parse_metadata(metadata(scenario_key="early_stopping_latency_ss", early_stopping_latency_ss=0))
    assert found.metric == Metric("early_stopping_latency_ss", None, "ns")


def test_a_file_of_v3_0_does_not_know_the_duration() -> None:
    assert parse_metadata(metadata(effective_min_duration_ms=None)).min_duration_ms is None


def test_a_file_of_v5_1_without_summary_string_is_read() -> None:
    text = metadata(
        summary_string=None,
        result_validity="INVALID",
        early_stopping_met=False,
        effective_min_duration_ms=0,
        true_result_value=100.5,
        true_result_metric="result_samples_per_second",
    )
    found = parse_metadata(text)
    assert (found.validity, found.metric) == ("INVALID", Metric("result_samples_per_second", 100.5, "samples/s"))
    assert found.shortfalls == (
        "early_stopping_met is false",
        "satisfies_query_constraint is false",
        "effective_min_duration_ms is 0, below 600000",
    )


@pytest.mark.parametrize(("queries", "stopping", "noted"), [(False, False, 1), (True, False, 0), (False, True, 0)])
def test_a_valid_run_needs_enough_queries_or_early_stopping(queries: bool, stopping: bool, noted: int) -> None:
    found = parse_metadata(metadata(satisfies_query_constraint=queries, early_stopping_met=stopping))
    assert len(found.notes) == noted


@pytest.mark.parametrize(
    ("config", "full", "variant"),
    [
        ("A100_TRT-custom_k_99_MaxP-Offline", None, "bert-99"),
        ("A100_TRT-custom_k_99_9_MaxP-Offline", None, "bert-99.9"),
        ("A100_TRT-custom_k_99_9_MaxQ-Offline", "bert-99", "bert-99"),
        ("unnamed", None, None),
    ],
)
def test_the_accuracy_target_stands_in_benchmark_full_or_in_config_name(
    config: str, full: str | None, variant: str | None
) -> None:
    assert parse_metadata(metadata(config_name=config, benchmark_full=full)).variant == variant


def test_every_accuracy_item_is_read() -> None:
    found = parse_metadata(accuracy_metadata(F1, {"name": "ROUGE1", "value": 40, "threshold": 44.1, "pass": False}))
    assert found.accuracy == (Accuracy("F1", 90.2, 89.96526, True), Accuracy("ROUGE1", 40.0, 44.1, False))
    assert found.notes == ()


CONTRADICTIONS: list[tuple[str, list[dict[str, Any]], Any, list[bool | None], str]] = [
    (
        "an item failed, the file passed",
        [F1, {**F1, "value": 1, "pass": False}],
        True,
        [True, False],
        "accuracy_pass is true",
    ),
    ("no item failed, the file failed", [F1], False, [False], "accuracy_pass is false"),
    ("passed below the threshold", [{**F1, "value": 1}], None, [False], "pass=true"),
    ("failed above the threshold", [{**F1, "pass": False}], None, [False], "pass=false"),
    ("passed above the upper limit", [{**F1, "upper_limit": 90}], None, [False], "<= 90"),
    ("nothing was measured, the file passed", [], True, [], "no accuracy item"),
    ("an item without a value", [{"name": "F1", "pass": True}, F1], True, [True], "has no value"),
    ("an item whose value is NaN", [{**F1, "value": float("nan")}, F1], None, [True], "has no value"),
]


@pytest.mark.parametrize(
    ("_case", "items", "said", "passed", "note"), CONTRADICTIONS, ids=[c[0] for c in CONTRADICTIONS]
)
def test_a_file_that_contradicts_itself_is_not_passed_and_says_why(
    _case: str, items: list[dict[str, Any]], said: bool | None, passed: list[bool | None], note: str
) -> None:
    found = parse_metadata(accuracy_metadata(*items, accuracy_pass=said))
    assert [item.passed for item in found.accuracy] == passed
    assert any(note in text for text in found.notes)


def test_an_item_without_threshold_has_no_verdict() -> None:
    found = parse_metadata(accuracy_metadata({"name": "F1", "value": 90}))
    assert found.accuracy == (Accuracy("F1", 90.0),)


@pytest.mark.parametrize("listed", ["F1", 5, {"name": "F1"}, [None, 3, "x"]])
def test_an_accuracy_that_is_no_list_of_items_is_said(listed: Any) -> None:
    found = parse_metadata(json.dumps({"accuracy": listed}))
    assert found.accuracy == ()
    assert found.notes


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "7", True, None, 10**400])
def test_a_metric_that_is_no_finite_number_is_none(value: Any) -> None:
    assert parse_metadata(json.dumps({"scenario_key": "x", "x": value})).metric is None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"name": "a package"}', "[" * 100_000, '{"a": 1}\x00'])
def test_what_is_not_of_the_harness_is_an_error(text: str) -> None:
    with pytest.raises(ResultError, match=r"metadata\.json is no"):
        parse_metadata(text)


def test_a_repeated_key_is_said_and_invalid_stays() -> None:
    text = '{"scenario": "Offline", "result_validity": "INVALID", "result_validity": "VALID", "scenario": "Server"}'
    found = parse_metadata(text)
    assert (found.validity, found.scenario) == ("INVALID", "Server")
    assert found.notes == (
        "metadata.json has result_validity more than once, with different values",
        "metadata.json has scenario more than once, with different values",
    )


def test_a_file_that_is_spoiled_throughout_is_said_in_few_words() -> None:
    repeated = ", ".join(f'"{"k" * 1000}{number}": 1, "{"k" * 1000}{number}": 2' for number in range(50))
    found = parse_metadata(f'{{"scenario": "Offline", {repeated}, "accuracy": [{"[], " * 50}1]}}')
    assert len(found.notes) == 40
    assert max(map(len, found.notes)) < 300


def test_an_item_that_no_text_can_show_is_said_too() -> None:
    deep = "[" * 400 + "]" * 400
    [note] = parse_metadata(f'{{"scenario": "Offline", "accuracy": [{deep}]}}').notes
    assert note.startswith("an accuracy item has no value: [[[")
