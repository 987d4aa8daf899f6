"""The fleet of hack/fleet: KWOK's nodes play whole runs for the unmodified operator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from fleet import requests, workload
from fleet.fleet import OPERATOR_USER, Fleet
from fleet.replica import Replica
from fleet.stages import Delays
from integration.fleets import played
from integration.operator_process import until
from mlperf_operator.cluster import MLPERF_RUNS
from mlperf_operator.resources.containers import PREPARE_STAGES, RUN
from scale.requests_made import requests_since

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

NAMESPACE = "runs"
EPOCH = datetime.fromtimestamp(0, UTC)


@pytest.fixture
async def made() -> AsyncIterator[Fleet]:
    async with played("fleet", 3, Delays(prepare=200, run=200, collect=200)) as started:
        await requests.create(started.cluster, workload.namespace(NAMESPACE))
        operator = Replica(started.operator_kubeconfig, started.folder / "operator.log")
        try:
            operator.wait_ready()
            yield started
        finally:
            operator.end()


async def _finished(made: Fleet, name: str) -> dict[str, Any]:
    async def status() -> dict[str, Any] | None:
        run = await made.cluster.get(MLPERF_RUNS, NAMESPACE, name)
        found: dict[str, Any] = (run or {}).get("status", {})
        return found if _conditions(found).get("Finished") == ("True", "Completed") else None

    return await until(status, 300) or {}


def _conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions", ())}


async def test_a_run_on_a_node_that_kwok_plays_ends_with_valid_results(made: Fleet) -> None:
    await requests.create(made.cluster, workload.run(NAMESPACE, "good"))
    status = await _finished(made, "good")
    conditions = _conditions(status)
    assert all(conditions[kind][0] == "True" for kind in ("Succeeded", "ResultsValid", "AccuracyMet", "DriverReady"))
    assert [(stage["name"], stage["state"]) for stage in status["stages"]] == [
        (name, "Completed") for name in (*PREPARE_STAGES, RUN)
    ]
    assert status["node"] in made.nodes
    found = requests_since(made.audit_logs, OPERATOR_USER, EPOCH)
    assert found.made["create", "jobs"] == 1
    assert found.made["get", "pods/log"] == 1
    assert len(found.latencies(NAMESPACE)) == 1
