"""The alert rules, by promtool: each fires when it should, with these words, and not before."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from integration.prometheus import RULES, alerts, programs

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

JOB = 'job="mlperf-operator"'
AT = 'namespace="bench",node="n1",suite="nvidia-v4.1"'
PAIR = 'variant="bert-99",scenario="Offline",node="n1",test_run="false",metric="m"'
PAIR_LABELS = {"variant": "bert-99", "scenario": "Offline", "node": "n1", "test_run": "false", "metric": "m"}
AT_LABELS = {"namespace": "bench", "node": "n1", "suite": "nvidia-v4.1"}


@dataclass(frozen=True)
class Case:
    """Series by name with one value a minute, when the alert is not there yet, when it fires, and what it says."""

    alert: str
    series: Mapping[str, str]
    quiet: str
    fires: str
    summary: str
    labels: Mapping[str, str] = field(default_factory=dict)
    id: str = ""


HELD = 'leader_election_master_status{name="mlperf-operator",instance="a",job="j"}'
CASES = [
    Case(
        "MLPerfOperatorDown", {"mlperf_operator_build_info": "1x2 stale"}, "5m", "9m", "No mlperf-operator is scraped"
    ),
    Case("MLPerfOperatorNotLeading", {HELD: "1x2 0x20"}, "5m", "9m", "No mlperf-operator holds the Lease"),
    Case(
        "MLPerfOperatorReconcileErrors",
        {
            f'controller_runtime_reconcile_errors_total{{controller="mlperfrun",{JOB}}}': "0+6x60",
            f'controller_runtime_reconcile_total{{controller="mlperfrun",result="error",{JOB}}}': "0+6x60",
            f'controller_runtime_reconcile_total{{controller="mlperfrun",result="success",{JOB}}}': "0+18x60",
            'controller_runtime_reconcile_errors_total{controller="node",job="of-somebody-else"}': "0+6x60",
            'controller_runtime_reconcile_total{controller="node",job="of-somebody-else"}': "0+6x60",
        },
        *("10m", "30m", "25% of the reconciliations of mlperfrun fail", {"controller": "mlperfrun"}),
    ),
    Case(
        "MLPerfOperatorQueueStuck",
        {f'workqueue_longest_running_processor_seconds{{name="mlperfrun",{JOB}}}': "0+60x60"},
        *("14m", "18m", "The queue mlperfrun does not move", {"name": "mlperfrun"}),
        id="a worker hangs",
    ),
    Case(
        "MLPerfOperatorQueueStuck",
        {
            f'workqueue_depth{{name="node",{JOB}}}': "3x60",
            f'workqueue_work_duration_seconds_count{{name="node",{JOB}}}': "0+1x10 10x50",
        },
        *("20m", "35m", "The queue node does not move", {"name": "node"}),
        id="no worker takes a key",
    ),
    Case(
        "MLPerfOperatorInformerSilent",
        {'mlperf_operator_informer_age_seconds{resource="pods"}': "0x5 60+60x20"},
        *("8m", "12m", "The watch of pods has been silent for 7m 0s", {"resource": "pods"}),
    ),
    Case(
        "MLPerfOperatorNotSynced",
        {'mlperf_operator_informer_synced{resource="jobs",instance="a",job="j"}': "0x60", HELD: "1x60"},
        *("9m", "11m", "The leader has not read all jobs", {"resource": "jobs", "instance": "a", "job": "j"}),
    ),
    Case(
        "MLPerfOperatorEventLoopBlocked",
        {
            'mlperf_operator_event_loop_lag_seconds_bucket{le="1"}': "0x60",
            'mlperf_operator_event_loop_lag_seconds_bucket{le="2"}': "0+100x60",
            'mlperf_operator_event_loop_lag_seconds_bucket{le="+Inf"}': "0+100x60",
        },
        *("9m", "15m", "The operator's event loop is late by 1.99s"),
    ),
    Case(
        "MLPerfMetricsLeftOut",
        {'mlperf_metrics_left_out{kind="results"}': "7x60"},
        *("29m", "31m", "7 results are not in the metrics", {"kind": "results"}),
    ),
    Case(
        "MLPerfRunStuck",
        {f'mlperf_stage_running_start_timestamp_seconds{{{AT},stage="build"}}': "60x600"},
        *("8h", "8h2m", "A run on n1 has been in stage build for 8h 1m 0s", {**AT_LABELS, "stage": "build"}),
    ),
    Case(
        "MLPerfRunFailed",
        {f'mlperf_last_run_condition{{{AT},condition="Succeeded",reason="OutOfMemory"}}': "1x2 0x9"},
        *("2m", "3m", "The last run on n1 failed (OutOfMemory)"),
        {**AT_LABELS, "condition": "Succeeded", "reason": "OutOfMemory"},
    ),
    Case(
        "MLPerfResultInvalid",
        {'mlperf_result_valid{variant="bert-99",scenario="Server",node="n1"}': "1x2 0x9"},
        *("2m", "3m", "bert-99 Server on n1 is INVALID", {"variant": "bert-99", "scenario": "Server", "node": "n1"}),
    ),
    Case(
        "MLPerfAccuracyMissed",
        {f"mlperf_result_accuracy_passed{{{PAIR}}}": "1x2 0x9"},
        *("2m", "3m", "bert-99 Offline on n1 misses its m", PAIR_LABELS),
    ),
    Case(
        "MLPerfExpectationsMissed",
        {f'mlperf_last_run_condition{{{AT},condition="ExpectationsMet",reason="BelowBaseline"}}': "1x2 0x9"},
        *("2m", "3m", "ExpectationsMet of the last run on n1 is False (BelowBaseline)"),
        {**AT_LABELS, "condition": "ExpectationsMet", "reason": "BelowBaseline"},
    ),
    Case(
        "MLPerfResultRegressed",
        {
            f'mlperf_result_value{{{PAIR},unit="samples/s"}}': "100x2 90x9",
            f'mlperf_result_previous_value{{{PAIR},unit="samples/s"}}': "100x20",
        },
        *("2m", "3m", "bert-99 Offline on n1 is at 90% of the run before", {**PAIR_LABELS, "unit": "samples/s"}),
        id="less throughput",
    ),
    Case(
        "MLPerfResultRegressed",
        {
            f'mlperf_result_value{{{PAIR},unit="ns"}}': "90x2 110x9",
            f'mlperf_result_previous_value{{{PAIR},unit="ns"}}': "100x20",
        },
        *("2m", "3m", "bert-99 Offline on n1 is at 110% of the run before", {**PAIR_LABELS, "unit": "ns"}),
        id="more latency",
    ),
    Case(
        "MLPerfNodeDriverFailed",
        {'mlperf_node_driver_state{node="n1",phase="Failed",reason="DriverMismatch"}': "1x60"},
        *("9m", "11m", "The driver of n1 is not as it should be (DriverMismatch)"),
        {"node": "n1", "phase": "Failed", "reason": "DriverMismatch"},
    ),
    Case(
        "MLPerfNodeDriverBlocked",
        {'mlperf_node_driver_state{node="n1",phase="Waiting",reason="GPUInUse"}': "1x100"},
        *("59m", "61m", "The driver of n1 has been on its way for an hour (GPUInUse)"),
        {"node": "n1", "phase": "Waiting", "reason": "GPUInUse"},
    ),
]


def _described(case: Case) -> str:
    """Return the description that the alert should have."""
    text = str(alerts()[case.alert]["annotations"]["description"])
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: case.labels[found[1]], text)


def _expected(case: Case) -> dict[str, object]:
    labels = {**alerts()[case.alert]["labels"], **case.labels}
    return {"exp_labels": labels, "exp_annotations": {"summary": case.summary, "description": _described(case)}}


def _promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([programs() / "promtool", *arguments], capture_output=True, text=True, check=False)


def test_promtool_takes_the_rules() -> None:
    done = _promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert} {case.id}".strip())
def test_an_alert_fires_when_it_should_and_not_before(case: Case, tmp_path: Path) -> None:
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "alert_rule_test": [
                    {"eval_time": case.quiet, "alertname": case.alert, "exp_alerts": []},
                    {"eval_time": case.fires, "alertname": case.alert, "exp_alerts": [_expected(case)]},
                ],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    done = _promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_about_runs_or_nodes_is_the_same_whichever_replica_leads() -> None:
    about_operator = {name for name in alerts() if name.startswith(("MLPerfOperator", "MLPerfMetrics"))}
    for name in set(alerts()) - about_operator:
        assert "without (instance, pod)" in alerts()[name]["expr"], name


def test_every_alert_has_a_case_and_says_how_grave_it_is() -> None:
    assert {case.alert for case in CASES} == set(alerts())
    for rule in alerts().values():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description"}
