"""The client's writes against a real API server: what they touch, and what they must leave alone."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from integration import api_server
from mlperf_operator import events
from mlperf_operator.api.v1alpha1 import API_VERSION, KIND, MLPerfRun
from mlperf_operator.cluster import CONFIG_MAPS, EVENTS, JOBS, MLPERF_RUNS, PODS, ApiError, Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

UNKNOWN = str(uuid.UUID(int=1))


def run_body(namespace: str, name: str = "demo") -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "suite": "reference-cpu",
            "system": "CPU_REFERENCE",
            "benchmarks": [{"name": "digits"}],
            "scratch": {"emptyDir": {}},
        },
    }


def job_body(namespace: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "x"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    meta = {"namespace": namespace, "name": "job"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template, **spec}}


def config_map(namespace: str, name: str = "map") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}}


@pytest.fixture
async def run(cluster: Cluster, namespace: str, runs_served: None) -> dict[str, Any]:
    """A run as stored."""
    return await cluster.create(run_body(namespace))


def condition(status: str) -> dict[str, Any]:
    return {
        "type": "Accepted",
        "status": status,
        "reason": "Valid",
        "message": "m",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }


async def stored(cluster: Cluster, namespace: str) -> dict[str, Any]:
    found = await cluster.get(MLPERF_RUNS, namespace, "demo")
    assert found is not None
    return found


async def apply(cluster: Cluster, run: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    """Apply a status to a run as it was read, and return it as stored."""
    meta = run["metadata"]
    await cluster.apply_run_status(meta["namespace"], meta["name"], meta["uid"], meta["resourceVersion"], status)
    return await stored(cluster, meta["namespace"])


async def test_the_same_status_twice_is_stored_once(cluster: Cluster, run: dict[str, Any]) -> None:
    status = {"observedGeneration": 1, "summary": "s", "conditions": [condition("True")]}
    first = await apply(cluster, run, status)
    second = await apply(cluster, first, status)
    assert first["status"] == status
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_a_status_holds_whatever_a_user_or_a_harness_wrote(cluster: Cluster, run: dict[str, Any]) -> None:
    # Emojis, what YAML takes for the end of a line or for no character, and text that looks like an escape.
    text = "\U0001f600 \U0010ffff \x00\x1b\x7f\x85\xa0\u2028\u2029\ufeff\uffff \\ud83d\\ude00 \t\n'\"\\ é \u202e"
    assert (await apply(cluster, run, {"summary": text}))["status"]["summary"] == text
    half = await apply(cluster, await stored(cluster, run["metadata"]["namespace"]), {"summary": "a\ud83d"})
    assert half["status"]["summary"] == "a\ufffd"


async def test_a_field_no_longer_applied_goes_away(cluster: Cluster, namespace: str, run: dict[str, Any]) -> None:
    first = await apply(cluster, run, {"summary": "s", "jobName": "j"})
    await apply(cluster, first, {"summary": "t"})
    assert (await stored(cluster, namespace))["status"] == {"summary": "t"}


async def test_the_operator_wins_its_fields_and_leaves_others(
    cluster: Cluster, namespace: str, run: dict[str, Any]
) -> None:
    theirs = {**run_body(namespace), "status": {"summary": "theirs", "jobName": "theirs"}}
    del theirs["spec"]
    await api_server.apply_status(cluster, MLPERF_RUNS, theirs, "somebody-else")
    await apply(cluster, await stored(cluster, namespace), {"summary": "ours"})
    assert (await stored(cluster, namespace))["status"] == {"summary": "ours", "jobName": "theirs"}


async def test_a_status_never_reaches_a_run_made_anew(cluster: Cluster, namespace: str, run: dict[str, Any]) -> None:
    await cluster.delete(MLPERF_RUNS, namespace, "demo", run["metadata"]["uid"])
    with pytest.raises(ApiError) as gone:
        await apply(cluster, run, {"summary": "stale"})
    await cluster.create(run_body(namespace))
    with pytest.raises(ApiError) as anew:
        await apply(cluster, run, {"summary": "stale"})
    assert (gone.value.status, anew.value.status) == (404, 409)
    assert "status" not in await stored(cluster, namespace)


async def test_a_status_made_from_an_older_state_of_the_run_is_refused(
    cluster: Cluster, namespace: str, run: dict[str, Any]
) -> None:
    await api_server.merge(cluster, MLPERF_RUNS, namespace, "demo", {"spec": {"suspend": True}})
    with pytest.raises(ApiError) as caught:
        await apply(cluster, run, {"summary": "stale"})
    assert caught.value.status == 409
    assert "status" not in await stored(cluster, namespace)


async def test_creating_what_exists_says_so(cluster: Cluster, namespace: str) -> None:
    await cluster.create(config_map(namespace))
    with pytest.raises(ApiError) as caught:
        await cluster.create(config_map(namespace))
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")


async def test_what_does_not_exist_is_none(cluster: Cluster, namespace: str) -> None:
    assert await cluster.get(CONFIG_MAPS, namespace, "map") is None


async def test_of_what_may_be_large_the_metadata_comes_back_and_of_a_job_all(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(config_map(namespace))
    assert made["metadata"]["uid"]
    assert "data" not in made
    assert "template" in (await cluster.create(job_body(namespace, suspend=True)))["spec"]


async def test_only_exactly_the_named_object_is_deleted(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(config_map(namespace))
    await cluster.delete(CONFIG_MAPS, namespace, "map", UNKNOWN)
    assert await cluster.get(CONFIG_MAPS, namespace, "map") is not None
    await cluster.delete(CONFIG_MAPS, namespace, "map", made["metadata"]["uid"])
    assert await cluster.get(CONFIG_MAPS, namespace, "map") is None
    await cluster.delete(CONFIG_MAPS, namespace, "map", made["metadata"]["uid"])


async def test_suspend_changes_suspend_and_nothing_else(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(job_body(namespace, suspend=True))
    await cluster.set_job_suspend(namespace, "job", made["metadata"]["uid"], suspend=False)
    found = await cluster.get(JOBS, namespace, "job")
    assert found is not None
    assert found["spec"] == {**made["spec"], "suspend": False}


async def test_suspend_never_reaches_a_job_made_anew(cluster: Cluster, namespace: str) -> None:
    await cluster.create(job_body(namespace, suspend=True))
    with pytest.raises(ApiError) as caught:
        await cluster.set_job_suspend(namespace, "job", UNKNOWN, suspend=False)
    # metadata.uid is compared as an immutable field, which makes a mismatch an invalid object.
    assert caught.value.status == 422
    assert "metadata.uid" in caught.value.message
    found = await cluster.get(JOBS, namespace, "job")
    assert found is not None
    assert found["spec"]["suspend"] is True


async def test_an_event_is_stored_once_and_kept_by_its_run(
    cluster: Cluster, namespace: str, run: dict[str, Any]
) -> None:
    typed = MLPerfRun.model_validate({**run, "status": {}})
    told = events.event(typed, events.Note("Warning", "Why", "because"), datetime.now(UTC), attempt=1)
    await cluster.emit_event(told)
    await cluster.emit_event(told)
    found = await cluster.get(EVENTS, namespace, told["metadata"]["name"])
    assert found is not None
    assert (found["reason"], found["message"]) == ("Why", "because")


async def test_of_events_the_warnings_about_jobs_are_read(
    cluster: Cluster, namespace: str, run: dict[str, Any]
) -> None:
    typed = MLPerfRun.model_validate({**run, "status": {}})
    told = events.event(typed, events.Note("Warning", "Why", "because"), datetime.now(UTC), attempt=1)

    def event(name: str, kind: str = "Job", severity: str = "Warning") -> dict[str, Any]:
        about = {**told["involvedObject"], "kind": kind, "apiVersion": "v1"}
        return {**told, "metadata": {**told["metadata"], "name": name}, "type": severity, "involvedObject": about}

    for body in (event("job"), event("pod", kind="Pod"), event("normal", severity="Normal")):
        await cluster.emit_event(body)
    assert [found["metadata"]["name"] for found in await cluster.warnings_about_jobs(namespace)] == ["job"]


async def test_the_log_of_a_pod_that_never_started_is_refused_with_a_reason(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(ApiError, match='pods "none" not found'):
        await cluster.read_log(namespace, "none", "c")
    assert await cluster.get(PODS, namespace, "none") is None
