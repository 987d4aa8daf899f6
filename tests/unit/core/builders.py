"""Fluent makers of runs, Jobs and pods, so that a test names only what it is about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.observed import ContainerRecord, JobRecord, PodRecord
from mlperf_operator.resources.containers import PREPARE_STAGES
from mlperf_operator.resources.job import Images

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"
IMAGES = Images(harness="harness:1", operator="operator:1", pull_policy="IfNotPresent")


def run(spec: Mapping[str, Any] | None = None, status: Mapping[str, Any] | None = None, **metadata: Any) -> MLPerfRun:
    """Return a run of the reference suite, with the given fields of spec, status and metadata."""
    base = {"suite": "reference-cpu", "system": "CPU_REFERENCE", "benchmarks": [{"name": "digits"}]}
    meta = {
        "name": "demo",
        "namespace": "bench",
        "uid": UID,
        "generation": 1,
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "resourceVersion": "10",
    }
    return MLPerfRun.model_validate(
        {"metadata": {**meta, **metadata}, "spec": {**base, **(spec or {})}, "status": dict(status or {})}
    )


def a100(**spec: Any) -> MLPerfRun:
    """Return a run of NVIDIA's suite."""
    base = {
        "suite": "nvidia-v4.1",
        "system": "A100_SXM4_40GBx8",
        "benchmarks": [{"name": "bert"}],
        "scratch": {"claimName": "scratch"},
    }
    return run({**base, **spec})


def job(**changes: Any) -> JobRecord:
    """Return an active Job of the run."""
    record = JobRecord(
        namespace="bench",
        name="demo",
        uid="job-uid",
        run="demo",
        run_uid=UID,
        deleting=False,
        suspend=False,
        suspended=False,
        created_at=NOW,
        start_time=NOW,
        outcome=None,
        reason="",
        message="",
        ended_at=None,
    )
    return replace(record, **changes)


def pod(containers: Sequence[ContainerRecord] = (), **changes: Any) -> PodRecord:
    """Return a running pod of the run's Job."""
    record = PodRecord(
        namespace="bench",
        name="demo-abcde",
        uid="pod-uid",
        job="demo",
        run="demo",
        run_uid=UID,
        node="node-1",
        phase="Pending",
        reason="",
        message="",
        created_at=NOW,
        start_time=NOW,
        deleting=False,
        unschedulable="",
        disrupted=False,
        changed_at=NOW,
        containers=tuple(containers),
    )
    return replace(record, **changes)


def done(name: str, *, reason: str = "Completed", at: datetime = NOW) -> ContainerRecord:
    """Return a stage that ended well."""
    message = json.dumps({"stage": name, "reason": reason, "message": f"{name} said so"})
    return ContainerRecord(
        name=name, state="Terminated", reason="Completed", message=message, exit_code=0, started_at=at, finished_at=at
    )


def failed(name: str, code: int = 65, *, reason: str = "StageFailed", message: str | None = None) -> ContainerRecord:
    """Return a stage that ended badly, with the wrapper's message unless another is given."""
    said = json.dumps({"stage": name, "reason": reason, "exitCode": 2, "message": "make said 2", "tail": "last line"})
    return ContainerRecord(
        name=name,
        state="Terminated",
        reason="Error",
        message=said if message is None else message,
        exit_code=code,
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=5),
    )


def running(name: str) -> ContainerRecord:
    """Return a stage under way."""
    return ContainerRecord(name=name, state="Running", started_at=NOW)


def waiting(name: str, reason: str = "PodInitializing", message: str = "") -> ContainerRecord:
    """Return a container that has not started."""
    return ContainerRecord(name=name, state="Waiting", reason=reason, message=message)


def up_to(stage: str) -> list[ContainerRecord]:
    """Return the stages of a pod that is in this one: those before are done."""
    order = [*PREPARE_STAGES, "run"]
    at = order.index(stage)
    return [*(done(name) for name in order[:at]), running(stage), *(waiting(name) for name in order[at + 1 :])]


def result(scenario: str = "Offline", mode: str = "PerformanceOnly", **fields: Any) -> dict[str, Any]:
    """Return a result as `collect` reports it: VALID when of performance, passed when of accuracy."""
    base: dict[str, Any] = {"benchmark": "digits", "variant": "digits-99", "scenario": scenario, "mode": mode}
    if mode == "PerformanceOnly":
        metric = {"name": "result_samples_per_second", "value": 1234.5, "unit": "samples/s"}
        base |= {"validity": "VALID", "metric": metric, "minDurationMet": True}
    else:
        base["accuracy"] = [{"name": "accuracy", "value": 97.0, "threshold": 95.0, "passed": True}]
    return {**base, **fields}
