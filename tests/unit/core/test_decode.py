"""What is kept of objects as the API server sends them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mlperf_operator.observed import decode_job, decode_pod, decode_run, format_time
from unit.core.builders import NOW, UID

META = {"namespace": "bench", "name": "demo", "uid": "u", "creationTimestamp": format_time(NOW)}
LATER = NOW + timedelta(hours=1)


def _condition(kind: str, status: str, **fields: str) -> dict[str, str]:
    return {"type": kind, "status": status, "lastTransitionTime": format_time(LATER), **fields}


@pytest.mark.parametrize(
    ("conditions", "outcome", "suspended"),
    [
        ([], None, False),
        ([_condition("Complete", "False"), _condition("Failed", "False")], None, False),
        ([_condition("SuccessCriteriaMet", "True"), _condition("FailureTarget", "True")], None, False),
        ([_condition("Suspended", "True")], None, True),
        ([_condition("Suspended", "False"), _condition("Failed", "True", reason="R", message="m")], "Failed", False),
        ([_condition("Complete", "True")], "Complete", False),
    ],
)
def test_a_job_has_ended_only_when_a_condition_says_so(
    conditions: list[dict[str, str]], outcome: str | None, suspended: bool
) -> None:
    record = decode_job({"metadata": META, "status": {"conditions": conditions}})
    assert (record.outcome, record.suspended) == (outcome, suspended)
    assert record.ended_at == (LATER if outcome else None)
    assert (record.reason, record.message) == (("R", "m") if outcome == "Failed" else ("", ""))


def test_a_job_that_is_being_deleted_says_so() -> None:
    assert decode_job({"metadata": {**META, "deletionTimestamp": "x"}}).deleting
    assert not decode_job({"metadata": META}).deleting


@pytest.mark.parametrize(
    ("status", "changed"),
    [
        ({}, NOW),
        ({"conditions": [_condition("Ready", "False")]}, LATER),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, NOW),
        (
            {"containerStatuses": [{"name": "run", "state": {"terminated": {"finishedAt": format_time(LATER)}}}]},
            LATER,
        ),
    ],
)
def test_a_pod_changed_last_when_a_condition_or_a_container_did(status: dict[str, Any], changed: object) -> None:
    assert decode_pod({"metadata": META, "status": status}).changed_at == changed


def test_a_pod_keeps_who_evicts_it_and_why_it_is_not_scheduled() -> None:
    conditions = [_condition("DisruptionTarget", "True"), _condition("PodScheduled", "False", message="no node")]
    record = decode_pod({"metadata": META, "status": {"conditions": conditions, "phase": "Pending"}})
    assert (record.disrupted, record.unschedulable, record.ended) == (True, "no node", False)


def test_a_run_keeps_all_but_the_servers_bookkeeping() -> None:
    body = {"metadata": {**META, "uid": UID, "managedFields": [1]}, "spec": {"a": 1}}
    assert decode_run(body).body == {"metadata": {**META, "uid": UID}, "spec": {"a": 1}}
