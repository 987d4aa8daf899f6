"""An honest verdict: what the harness measured, what it did not, and what of it counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from e2e.lab import Run, manifest, override, stage
from e2e.suites import NO_RESULT
from installation import Cluster, condition

pytestmark = pytest.mark.e2e

SERVER = [{"name": "digits", "scenarios": ["Server"]}]


def claim(**more: Any) -> dict[str, Any]:
    return {"claimTemplate": {"size": "1Gi", "deleteWithRun": True} | more}


def logged(text: str, key: str) -> object:
    """A value of LoadGen's detail log."""
    entries = [json.loads(line.partition(":::MLLOG ")[2]) for line in text.splitlines() if ":::MLLOG " in line]
    return next(entry["value"] for entry in entries if entry["key"] == key)


def test_an_override_changes_what_loadgen_does(operator: Cluster, namespace: str) -> None:
    body = manifest(
        "override", benchmarks=SERVER, gpuConfig=override("server_target_qps", 250, "Server"), scratch=claim()
    )
    run = Run.apply(operator, namespace, body)
    status = run.finished()["status"]
    (result,) = status["results"]
    (detail,) = (run.results_folder() / result["logs"]).rglob("mlperf_log_detail.txt")
    text = detail.read_text()
    assert logged(text, "effective_target_qps") == 250
    assert logged(text, "result_validity") == result["validity"]
    assert logged(text, result["metric"]["name"]) == pytest.approx(result["metric"]["value"])


def test_a_rate_that_the_machine_cannot_serve_is_two_facts_succeeded_and_not_valid(
    operator: Cluster, namespace: str
) -> None:
    body = manifest("too-fast", benchmarks=SERVER, gpuConfig=override("server_target_qps", 20000, "Server"))
    run = Run.apply(operator, namespace, body).finished()
    assert condition(run, "Succeeded")[0] == "True"
    status, reason, message = condition(run, "ResultsValid")
    assert (status, reason) == ("False", "Invalid")
    assert "digits-99 Server" in message
    (result,) = run["status"]["results"]
    assert result["validity"] == "INVALID"
    assert "performance constraint" in result["message"].lower()


def test_an_accuracy_below_its_threshold_is_not_met(operator: Cluster, namespace: str) -> None:
    body = manifest(
        "coarse",
        benchmarks=[{"name": "digits", "scenarios": ["Offline"]}],
        testModes=["AccuracyOnly"],
        gpuConfig=override("quantize_bits", 4, "Offline"),
    )
    run = Run.apply(operator, namespace, body).finished()
    assert condition(run, "Succeeded")[0] == "True"
    assert condition(run, "AccuracyMet")[:2] == ("False", "BelowThreshold")
    (result,) = run["status"]["results"]
    (score,) = result["accuracy"]
    assert score["passed"] is False
    assert score["value"] < score["threshold"]


def test_a_harness_that_does_nothing_and_exits_0_has_not_succeeded(operator: Cluster, namespace: str) -> None:
    run = Run.apply(operator, namespace, manifest("idle", suite=NO_RESULT)).finished()
    assert condition(run, "Succeeded")[:2] == ("False", "NoEngine")
    assert condition(run, "Finished")[0] == "True"
    assert condition(run, "ResultsValid")[0] != "True"
    assert stage(run, "run")["exitCode"] == 65


def test_results_of_an_earlier_run_of_the_same_name_are_never_reported(operator: Cluster, namespace: str) -> None:
    operator.ensure_claim(namespace, "kept")
    kept = {"claimName": "kept"}
    first = Run.apply(operator, namespace, manifest("same", scratch=kept, results=kept))
    before = first.finished()
    assert condition(before, "ResultsValid")[0] == "True"
    first.delete()
    operator.kubectl("wait", "--for=delete", "mlperfrun/same", "-n", namespace, "--timeout=60s")
    second = Run.apply(operator, namespace, manifest("same", suite=NO_RESULT, scratch=kept, results=kept)).finished()
    assert condition(second, "Succeeded")[0] == "False"
    assert all("validity" not in result for result in second["status"].get("results", []))
    assert second["status"]["artifacts"]["path"] != before["status"]["artifacts"]["path"]
