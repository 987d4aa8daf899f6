"""What is shown of runs and nodes: a function of what is stored, and bounded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from prometheus_client.core import GaugeMetricFamily

from mlperf_operator.fleet_metrics import Fleet
from mlperf_operator.naming import DRIVER_REPORT_ANNOTATION
from mlperf_operator.nodes.records import NodeRecord, decode_node
from mlperf_operator.observed import RunRecord, decode_run
from mlperf_operator.run_facts import MAX_LABEL
from unit.core.builders import result
from unit.sight.scraping import EPOCH, GOOD, conditions, finished, moment, stage, stored

SUITES = frozenset({"reference-cpu", "nvidia-v4.1"})
AT = EPOCH.timestamp()


def _fleet(records: Iterable[RunRecord], nodes: Iterable[NodeRecord] = (), limit: int = 1000) -> Fleet:
    fleet = Fleet(SUITES, limit)
    for record in records:
        fleet.add(record)
    fleet.add_nodes(nodes)
    return fleet


def _families(*records: RunRecord, **more: Any) -> dict[str, GaugeMetricFamily]:
    return {family.name: family for family in _fleet(records, **more).families()}


def _values(family: GaugeMetricFamily, *labels: str) -> dict[tuple[str, ...], float]:
    """Return the values by some of their labels."""
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in family.samples}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({}, "Pending"),
        ({"conditions": conditions(Accepted="True", Suspended="False")}, "Pending"),
        ({"stages": [stage("code", "Completed", 0, 1), stage("build", "Running", 1)]}, "Running"),
        ({"conditions": conditions(Suspended="True"), "stages": [stage("build", "Pending")]}, "Suspended"),
        ({"conditions": conditions(Finished="True", Succeeded="True")}, "Succeeded"),
        ({"conditions": conditions(Finished="True", Succeeded="False")}, "Failed"),
        ({"conditions": conditions(Accepted="False", Finished="True", Succeeded="False")}, "Refused"),
        ({"stages": "of another version"}, "Unreadable"),
        ({"startTime": 7}, "Unreadable"),
    ],
    ids=str,
)
def test_a_run_is_counted_by_its_state(status: dict[str, Any], state: str) -> None:
    assert _values(_families(stored(**status))["mlperf_runs"], "state") == {(state,): 1}


def test_runs_are_counted_together_and_a_suite_that_nobody_knows_is_another_one() -> None:
    family = _families(
        finished("a"), finished("b"), stored("c", spec={"suite": "x1"}), stored("d", spec={"suite": "x2"})
    )["mlperf_runs"]
    assert _values(family, "namespace", "suite", "state", "reason") == {
        ("bench", "reference-cpu", "Succeeded", "SucceededReason"): 2,
        ("bench", "other", "Pending", ""): 2,
    }


def test_of_runs_in_the_same_stage_the_one_that_began_first_is_shown() -> None:
    build, node = stage("build", "Running", 3), {"node": "node-1"}
    shown = _families(stored("a", stages=[stage("build", "Running", 5)], **node), stored("b", stages=[build], **node))
    family = shown["mlperf_stage_running_start_timestamp_seconds"]
    assert _values(family, "node", "stage") == {("node-1", "build"): AT + 180}


def test_the_last_result_is_that_of_the_run_that_ended_last_however_they_are_listed() -> None:
    runs = [finished("b", end=20, value=90), finished("c", end=30, value=80), finished("a", end=10, value=100)]
    for order in (runs, runs[::-1]):
        shown = _families(*order)
        assert _values(shown["mlperf_result_value"], "node", "scenario", "unit") == {
            ("node-1", "Offline", "samples/s"): 80
        }
        assert _values(shown["mlperf_result_previous_value"], "metric") == {("result_samples_per_second",): 90}
        assert _values(shown["mlperf_result_timestamp_seconds"], "mode") == {
            ("PerformanceOnly",): AT + 1800,
            ("AccuracyOnly",): AT + 1800,
        }


def test_a_later_run_without_a_result_does_not_hide_the_last_one() -> None:
    missing = result(metric=None, validity=None, missing="out of memory", cause="OutOfMemory")
    shown = _families(finished("a", end=10), finished("b", end=20, results=[missing]))
    assert _values(shown["mlperf_result_value"], "node") == {("node-1",): 100}
    assert _values(shown["mlperf_last_run_completion_timestamp_seconds"], "node") == {("node-1",): AT + 1200}


@pytest.mark.parametrize(
    "spec", [{"testRun": True}, {"powerSetting": "MaxQ"}, {"system": "OTHER"}], ids=lambda s: next(iter(s))
)
def test_results_that_cannot_be_compared_stand_side_by_side(spec: dict[str, Any]) -> None:
    body = finished("b").body
    other = decode_run({**body, "spec": {**body["spec"], **spec}})
    assert len(_families(finished("a"), other)["mlperf_result_value"].samples) == 2


def test_verdicts_are_shown_as_one_and_zero_and_what_nobody_judged_is_not_there() -> None:
    verdicts = {**GOOD, "ResultsValid": "False", "AuditsPassed": "Unknown"}
    bad = [
        result(validity="INVALID"),
        result(mode="AccuracyOnly", accuracy=[{"name": "F1", "value": 80.0, "passed": False}]),
        result("Server", mode="AccuracyOnly", accuracy=[{"name": "F1", "value": 80.0}]),
    ]
    shown = _families(finished(results=bad, conditions=conditions(**verdicts)))
    assert _values(shown["mlperf_last_run_condition"], "condition", "reason") == {
        ("Succeeded", "SucceededReason"): 1,
        ("ResultsValid", "ResultsValidReason"): 0,
        ("AccuracyMet", "AccuracyMetReason"): 1,
    }
    assert _values(shown["mlperf_result_valid"], "scenario") == {("Offline",): 0}
    assert _values(shown["mlperf_result_accuracy"], "scenario", "metric") == {
        ("Offline", "F1"): 80,
        ("Server", "F1"): 80,
    }
    assert _values(shown["mlperf_result_accuracy_passed"], "scenario") == {("Offline",): 0}


def test_the_last_run_shows_what_it_and_its_stages_took() -> None:
    stages = [stage("build", "Completed", 1, 21), stage("run", "Failed", 21, 22), stage("x", "Pending")]
    shown = _families(finished(end=25, stages=stages))
    assert _values(shown["mlperf_last_run_duration_seconds"], "node") == {("node-1",): 1500}
    taken = _values(shown["mlperf_last_run_stage_duration_seconds"], "stage")
    assert taken == {("build",): 1200, ("run",): 60}


def test_a_time_that_no_clock_can_have_said_is_not_shown() -> None:
    shown = _families(finished(startTime="0000-01-01T00:00:00Z"))
    assert _values(shown["mlperf_runs"], "state") == {("Succeeded",): 1}
    assert shown["mlperf_last_run_duration_seconds"].samples == []
    assert len(shown["mlperf_last_run_completion_timestamp_seconds"].samples) == 1


def test_the_limit_keeps_the_latest_and_says_how_many_it_leaves_out() -> None:
    runs = [finished(f"r{n}", end=n, node=f"node-{n}") for n in range(1, 6)]
    shown = _families(*runs, limit=3)
    assert set(_values(shown["mlperf_result_valid"], "node")) == {("node-4",), ("node-5",)}
    assert set(_values(shown["mlperf_result_accuracy"], "node")) == {("node-5",)}
    assert set(_values(shown["mlperf_last_run_duration_seconds"], "node")) == {("node-3",), ("node-4",), ("node-5",)}
    assert _values(shown["mlperf_metrics_left_out"], "kind") == {
        ("states",): 0,
        ("stages",): 0,
        ("runs",): 2,
        ("results",): 7,
        ("nodes",): 0,
    }


def test_what_a_runs_pod_reported_makes_no_label_of_any_length_and_no_sample_twice() -> None:
    long = {"name": "x" * 10_000, "value": 1.0, "unit": "y" * 10_000}
    twice = [{"name": "F1", "value": 1.0, "passed": True}, {"name": "F1", "value": 2.0, "passed": False}]
    odd = [result(metric=long), result(mode="AccuracyOnly", accuracy=twice, metric=long, validity="VALID")]
    shown = _families(finished(results=odd))
    [sample] = shown["mlperf_result_value"].samples
    assert max(map(len, sample.labels.values())) == MAX_LABEL
    for family in shown.values():
        keys = [tuple(sorted(sample.labels.items())) for sample in family.samples]
        assert len(keys) == len(set(keys))


def test_a_run_that_was_deleted_is_shown_no_more() -> None:
    assert [family.samples for name, family in _families().items() if name != "mlperf_metrics_left_out"] == [[]] * 14


def test_a_nodes_driver_is_shown_as_its_report_says() -> None:
    report = {"phase": "Failed", "reason": "DriverMismatch", "version": "550.54.14", "driver": "535.161.08"}
    bodies = [
        {"metadata": {"name": "a", "uid": "a", "resourceVersion": "1", "annotations": {}}},
        {
            "metadata": {
                "name": "b",
                "uid": "b",
                "resourceVersion": "1",
                "annotations": {DRIVER_REPORT_ANNOTATION: json.dumps({**report, "since": moment(0)})},
            }
        },
    ]
    shown = _families(nodes=map(decode_node, bodies))
    assert _values(shown["mlperf_node_driver_state"], "node", "phase", "reason", "wanted") == {
        ("b", "Failed", "DriverMismatch", "550.54.14"): 1
    }
    assert _values(shown["mlperf_node_driver_info"], "driver", "fabric_manager") == {("535.161.08", ""): 1}
