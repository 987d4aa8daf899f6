"""What is kept of objects as the API server sends them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from mlperf_operator import shapes
from mlperf_operator.naming import RUN_LABEL, RUN_UID_LABEL
from mlperf_operator.observed import decode_job, decode_pod, decode_run, format_time, parse_time
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


@pytest.mark.parametrize(
    "text", ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "yesterday", "2026-02-30", ""]
)
def test_a_time_that_no_clock_can_have_said_is_none(text: str) -> None:
    assert parse_time(text) is None


def test_a_time_without_a_zone_can_be_compared() -> None:
    assert parse_time("2026-01-02T03:04:05") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_job_or_a_pod_is_a_runs_by_its_owner_and_not_by_labels_that_were_copied() -> None:
    labels = {RUN_LABEL: "demo", RUN_UID_LABEL: "run-uid", "batch.kubernetes.io/job-name": "demo"}
    copied = {**META, "labels": labels}
    assert decode_job({"metadata": copied}).run_uid == ""
    assert decode_pod({"metadata": copied}).job == ""
    run, job = ({"kind": kind, "name": "demo", "uid": "run-uid", "controller": True} for kind in ("MLPerfRun", "Job"))
    assert decode_job({"metadata": {**META, "ownerReferences": [run]}}).run_uid == "run-uid"
    assert decode_pod({"metadata": {**copied, "ownerReferences": [job]}}).job == "demo"
    assert decode_job({"metadata": {**META, "ownerReferences": [{**run, "controller": False}]}}).run_uid == ""


def test_an_informer_reads_all_of_an_object_that_is_kept() -> None:
    owners = [{"kind": kind, "name": "demo", "uid": "u", "controller": True} for kind in ("MLPerfRun", "Job")]
    meta = {
        **META,
        "labels": {RUN_LABEL: "demo", RUN_UID_LABEL: "u"},
        "ownerReferences": owners,
        "resourceVersion": "1",
    }
    ended = {"terminated": {"exitCode": 1, "message": "m", "reason": "r", "finishedAt": format_time(LATER)}}
    status = {
        "phase": "Failed",
        "reason": "r",
        "message": "m",
        "startTime": format_time(NOW),
        "conditions": [_condition("Failed", "True", reason="R", message="m"), _condition("Suspended", "True")],
        "containerStatuses": [{"name": "run", "state": ended}],
    }
    body = {"metadata": meta, "spec": {"nodeName": "n", "suspend": True}, "status": status}
    for shape, decode in ((shapes.POD, decode_pod), (shapes.JOB, decode_job), (shapes.RUN, decode_run)):
        [read] = shape.page.decode(msgspec.json.encode({"metadata": {}, "items": [body]}))["items"]
        event = shape.event.decode(msgspec.json.encode({"type": "ADDED", "object": body}))["object"]
        if decode is decode_run:
            assert {"labels", "ownerReferences"}.isdisjoint(read["metadata"])
            assert decode(read).body["status"] == status
        else:
            assert decode(read) == decode(event) == decode(body)


@pytest.mark.parametrize("shape", [shapes.POD, shapes.JOB, shapes.RUN])
def test_a_bookmark_of_the_oldest_kubernetes_is_read(shape: shapes.Shape) -> None:
    meta = {"resourceVersion": "12", "creationTimestamp": None}
    bookmark = {"kind": "Pod", "apiVersion": "v1", "metadata": meta, "spec": {"containers": None}, "status": {}}
    event = shape.event.decode(msgspec.json.encode({"type": "BOOKMARK", "object": bookmark}))
    assert event["object"]["metadata"]["resourceVersion"] == "12"
