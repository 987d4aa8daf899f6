"""The API server's audit log as `make bench-scale` reads it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet.reported import lines, log
from mlperf_operator.report import parse_log
from scale.requests_made import requests_since

US = "system:serviceaccount:mlperf-system:mlperf-operator"
START = datetime(2026, 11, 30, tzinfo=UTC)


def _entry(second: float, verb: str, resource: str, name: str = "run-0", user: str = US, **more: Any) -> str:
    moment = datetime.fromtimestamp(START.timestamp() + second, UTC).isoformat()
    resource, _, subresource = resource.partition("/")
    reference = {"resource": resource, "namespace": "bench", "name": name, "subresource": subresource}
    entry = {
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": user},
        "objectRef": reference,
        "requestReceivedTimestamp": moment,
        "stageTimestamp": moment,
        **more,
    }
    return json.dumps(entry, separators=(",", ":")) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    old = _entry(-1, "create", "jobs", "earlier")
    first = [_entry(1, "create", "mlperfruns", user="admin"), _entry(1.25, "create", "jobs")]
    second = [
        _entry(2, "patch", "mlperfruns/status"),
        _entry(2, "create", "events"),
        _entry(2, "update", "leases"),
        _entry(3, "get", "pods/log", stage="ResponseStarted"),
        _entry(3, "get", "pods/log"),
        _entry(3, "create", "jobs", "bare", user="admin"),
    ]
    (tmp_path / "audit-2026-11-30.log").write_text("".join([old, *first]))
    (tmp_path / "audit.log").write_text("".join(second))
    return tmp_path


def test_a_request_counts_once_and_events_and_leases_beside(folder: Path) -> None:
    found = requests_since(folder, US, START)
    assert found.counted() == 3
    assert found.made["create", "events"] == found.made["update", "leases"] == 1
    assert found.writes() == {("create", "jobs"): 1, ("create", "events"): 1, ("patch", "mlperfruns/status"): 1}


def test_the_time_from_a_run_to_its_job_is_that_of_the_same_name(folder: Path) -> None:
    found = requests_since(folder, US, START)
    assert found.latencies("bench") == [0.25]
    assert found.latencies("another") == []


def test_the_operator_believes_what_the_nodes_of_the_fleet_report() -> None:
    uid = "0b7e3a51-0000-4000-8000-000000000042"
    sha256 = hashlib.sha256(lines(uid).encode()).hexdigest()
    report = parse_log(log(uid, sha256), uid, sha256)
    assert [result.mode for result in report.results] == ["PerformanceOnly", "AccuracyOnly"]
    assert not report.unverified
