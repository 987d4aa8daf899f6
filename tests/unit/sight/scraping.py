"""What the tests of metrics share: runs as they are stored, and reading what is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from mlperf_operator.observed import RunRecord, decode_run, format_time
from unit.core.builders import result

EPOCH = datetime(2026, 1, 2, tzinfo=UTC)
STAGES = ("code", "preflight", "prebuild", "download-data", "download-model", "preprocess-data", "build", "run")
GOOD = {"Accepted": "True", "Finished": "True", "Succeeded": "True", "ResultsValid": "True", "AccuracyMet": "True"}

Labels = dict[str, str]


def moment(minutes: float) -> str:
    """Return a time so many minutes after the tests' epoch."""
    return format_time(EPOCH + timedelta(minutes=minutes))


def stage(name: str, state: str, start: float | None = None, end: float | None = None) -> dict[str, Any]:
    times = {"startedAt": start, "finishedAt": end}
    return {"name": name, "state": state, **{key: moment(at) for key, at in times.items() if at is not None}}


def conditions(**statuses: str) -> list[dict[str, Any]]:
    return [{"type": kind, "status": status, "reason": f"{kind}Reason"} for kind, status in statuses.items()]


def stored(name: str = "demo", *, namespace: str = "bench", spec: Any = (), **status: Any) -> RunRecord:
    """Return a run as the informer keeps it."""
    base = {"suite": "reference-cpu", "system": "CPU_REFERENCE", "benchmarks": [{"name": "digits"}]}
    meta = {"name": name, "namespace": namespace, "uid": f"uid-of-{name}"}
    return decode_run({"metadata": meta, "spec": {**base, **dict(spec)}, "status": status})


def finished(name: str = "demo", *, end: float = 30, value: float = 100.0, **fields: Any) -> RunRecord:
    """Return a run that succeeded, with one result; `end` in minutes after the epoch."""
    metric = {"name": "result_samples_per_second", "value": value, "unit": "samples/s"}
    status = {
        "node": "node-1",
        "startTime": moment(0),
        "completionTime": moment(end),
        "conditions": conditions(**GOOD),
        "stages": [stage(stage_name, "Completed", 0, 2) for stage_name in STAGES],
        "results": [result(metric=metric), result(mode="AccuracyOnly")],
    }
    return stored(name, **{**status, **fields})


async def scrape(port: int, **headers: str) -> str:
    """Return what /metrics shows."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics", headers=headers) as response,
    ):
        assert response.status == 200
        return await response.text()


def samples(text: str, name: str) -> list[tuple[Labels, float]]:
    """Return the samples of this name, parsed."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return [(dict(sample.labels), sample.value) for sample in found if sample.name == name]


def value(registry: CollectorRegistry, sample: str, /, **labels: str) -> float | None:
    """Return a sample's value, None where there is none."""
    return registry.get_sample_value(sample, labels)
