"""A real Prometheus scrapes the real operator, on a fleet whose nodes KWOK plays, while runs end there."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from local_cluster.ports import free_port

from fleet import requests, workload
from fleet.fleet import Fleet
from fleet.replica import Replica
from fleet.reported import figure
from fleet.stages import Delays
from integration.fleets import played
from integration.operator_process import until
from integration.prometheus import RULES, alerts, metrics_in, programs, queries
from mlperf_operator.cluster import EVENTS, MLPERF_RUNS, NODES, Cluster
from mlperf_operator.naming import DRIVER_REPORT_ANNOTATION
from prometheus_server import PrometheusServer
from unit.sight.otlp_receiver import Receiver, receiving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

JOB = "mlperf-operator"
RUNS = ("first", "second")
FAILED_STAGE = "build"
DRIVER_REPORT = {
    "phase": "Failed",
    "reason": "DriverMismatch",
    "version": "550.54.14",
    "driver": "535.161.08",
    "since": "2026-01-02T03:04:05Z",
}

Sample = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """A fleet with runs that ended, and Prometheus that has scraped it meanwhile."""

    prometheus: PrometheusServer
    metrics_port: int
    traces: Receiver
    uids: dict[str, str]
    told: list[str]
    """The reasons of the first run's Events, in order."""

    def query(self, expression: str) -> list[Sample]:
        return self.prometheus.query(expression)

    def value(self, expression: str) -> float:
        [sample] = self.query(expression)
        return float(sample["value"][1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("prometheus")
    server = PrometheusServer(programs(), folder, free_port())
    delays = Delays(prepare=200, run=1000, collect=100, delete=200)
    async with played("prometheus", 1, delays) as made, receiving() as traces:
        operator, port = _operator(made, folder, traces)
        try:
            _configure(folder, port)
            server.start()
            uids = await _story(made)
            told = await _events(made.cluster, RUNS[0])
            # A second a scrape: rates need several of what has happened.
            await asyncio.sleep(8)
            yield Scene(server, port, traces, uids, told)
        finally:
            server.stop()
            operator.end()


def _operator(made: Fleet, folder: Path, traces: Receiver) -> tuple[Replica, int]:
    port, driver = free_port(), folder / "driver.yaml"
    driver.write_text("{}")
    settings = {"METRICS_PORT": str(port), "DRIVER_FILE": str(driver), "TRACING_ENDPOINT": traces.endpoint}
    # As the administrator: the rights of manifests/ are those without driver management.
    operator = Replica(made.layout.kubeconfig, folder / "operator.log", settings)
    operator.wait_ready()
    return operator, port


def _configure(folder: Path, port: int) -> None:
    shutil.copy(RULES, folder / "rules.yaml")
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    targets = [{"targets": [f"127.0.0.1:{port}"]}]
    scrape = {"job_name": JOB, "honor_labels": True, "static_configs": targets}
    document = {"global": every, "rule_files": ["rules.yaml"], "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(document))


async def _story(made: Fleet) -> dict[str, str]:
    """Two runs that succeed, one after the other, one that fails, and one under way; return the uids."""
    cluster = made.cluster
    await requests.create(cluster, workload.namespace("runs"))
    report = {"metadata": {"annotations": {DRIVER_REPORT_ANNOTATION: json.dumps(DRIVER_REPORT)}}}
    await requests.ask(cluster, "PATCH", NODES.url(None, made.nodes[0]), report, kind=requests.MERGE)
    uids = {}
    for name in RUNS:
        stored = await requests.create(cluster, workload.run("runs", name))
        uids[name] = stored["metadata"]["uid"]
        await _finished(cluster, name)
        # The completion time has whole seconds, and the later one of two counts.
        await asyncio.sleep(1.5)
    await requests.create(cluster, workload.run("runs", "bad", fails=FAILED_STAGE))
    await _finished(cluster, "bad")
    await requests.create(cluster, workload.run("runs", "under-way"))
    await until(lambda: _stage_runs(cluster, "under-way"))
    made.pause()
    return uids


async def _events(cluster: Cluster, name: str) -> list[str]:
    found = (await requests.ask(cluster, "GET", EVENTS.url("runs")))["items"]
    about = [e for e in found if (e["involvedObject"]["kind"], e["involvedObject"]["name"]) == ("MLPerfRun", name)]
    about.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
    return [event["reason"] for event in about]


async def _finished(cluster: Cluster, name: str) -> None:
    async def ended() -> bool:
        run = await cluster.get(MLPERF_RUNS, "runs", name) or {}
        found = run.get("status", {}).get("conditions", ())
        return any((c["type"], c["status"]) == ("Finished", "True") for c in found)

    await until(ended, 120)


async def _stage_runs(cluster: Cluster, name: str) -> bool:
    run = await cluster.get(MLPERF_RUNS, "runs", name) or {}
    return any(stage["state"] == "Running" for stage in run.get("status", {}).get("stages", ()))


def test_the_operator_is_scraped_without_complaint(scene: Scene) -> None:
    [target] = scene.prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert scene.value('leader_election_master_status{name="mlperf-operator"}') == 1


def test_every_metric_that_rules_and_dashboard_ask_for_is_there(scene: Scene) -> None:
    asked = {name for expression in _expressions() for name in metrics_in(expression)}
    assert len(asked) > 30
    missing = sorted(name for name in asked if not scene.query(f"count({name})"))
    assert missing == []


def _expressions() -> list[str]:
    return [*queries(), *(rule["expr"] for rule in alerts().values())]


@pytest.mark.parametrize("query", queries())
def test_a_query_of_the_dashboard_gives_data(scene: Scene, query: str) -> None:
    assert any(not isnan(float(sample["value"][1])) for sample in scene.query(query))


def test_promtool_finds_nothing_wrong_with_names_and_texts(scene: Scene) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{scene.metrics_port}/metrics", timeout=30) as answer:
        shown = answer.read()
    done = subprocess.run([programs() / "promtool", "check", "metrics"], input=shown, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_the_rules_are_loaded_and_healthy(scene: Scene) -> None:
    rules = [rule for group in scene.prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == set(alerts())
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}


def test_a_run_that_failed_and_a_driver_that_does_not_match_are_alerts(scene: Scene) -> None:
    found = {(a["labels"]["alertname"], a["state"]): a for a in scene.prometheus.get("alerts")["alerts"]}
    failed = found["MLPerfRunFailed", "firing"]
    assert failed["labels"]["namespace"] == "runs"
    assert failed["annotations"]["summary"] == "The last run on node-0000 failed (StageFailed)"
    # It must last ten minutes before it fires.
    assert ("MLPerfNodeDriverFailed", "pending") in found


def test_the_last_result_is_that_of_the_later_run_and_the_one_before_is_beside_it(scene: Scene) -> None:
    where = '{node="node-0000",variant="bert-99",scenario="Offline"}'
    first, second = (figure(scene.uids[name]) for name in RUNS)
    assert scene.value(f"mlperf_result_value{where}") == second
    assert scene.value(f"mlperf_result_previous_value{where}") == first
    assert scene.value(f"mlperf_result_valid{where}") == 1
    assert scene.value(f"mlperf_result_accuracy_passed{where}") == 1


def test_runs_are_counted_by_state_and_each_end_once(scene: Scene) -> None:
    states = {s["metric"]["state"]: float(s["value"][1]) for s in scene.query("sum by (state) (mlperf_runs)")}
    assert states == {"Succeeded": 2, "Failed": 1, "Running": 1}
    ends = scene.query("sum by (outcome) (mlperf_run_duration_seconds_count)")
    assert {s["metric"]["outcome"]: float(s["value"][1]) for s in ends} == {"Succeeded": 2, "Failed": 1}
    stage = f'mlperf_run_stage_duration_seconds_count{{stage="{FAILED_STAGE}"}}'
    assert scene.value(stage) == 3


def test_a_run_is_told_from_start_to_end_in_a_dozen_events(scene: Scene) -> None:
    assert {"AcceptedTrue", "JobCreated", "StageStarted"} <= set(scene.told)
    assert scene.told[-1] == "SucceededTrue"
    assert len(scene.told) <= 12


def test_each_run_that_ended_left_one_trace(scene: Scene) -> None:
    roots = [span for span in scene.traces.spans if not span.parent_span_id]
    assert len(roots) == len({span.trace_id for span in scene.traces.spans}) == 3
    names = {a.value.string_value for span in roots for a in span.attributes if a.key == "mlperf.run.name"}
    assert names == {"first", "second", "bad"}
