"""What goes wrong around a run, and what the run makes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mlperf_operator.cluster import ApiError
from mlperf_operator.limits import Limits
from mlperf_operator.naming import MANAGER
from mlperf_operator.observed import format_time
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import NOW, UID
from unit.reconcile.world import CrashError, Operator, Trouble, World, new_world


def _message(world: World, kind: str) -> str:
    return str(next(c["message"] for c in world.run()["status"]["conditions"] if c["type"] == kind))


async def test_a_run_in_flight_goes_on_when_the_administrator_takes_its_suite_away() -> None:
    world = new_world()
    await Operator(world).reconcile()
    world.start_pod()
    heir = Operator(world, Limits(suites={}))
    await heir.reconcile()
    assert world.condition("Accepted") == ("True", "Accepted")
    assert world.condition("DriverReady") == ("True", "NotRequired")
    assert world.objects["Job", "demo"]["spec"]["suspend"] is False
    world.end_pod("demo-1")
    world.end_job()
    await heir.reconcile()
    assert world.condition("Succeeded") == ("True", "Completed")


async def test_a_job_whose_status_was_never_written_goes_on_without_its_suite_too() -> None:
    world = new_world()
    world.fault, world.fault_after = CrashError(), 3
    with pytest.raises(CrashError):
        await Operator(world).reconcile()
    await Operator(world, Limits(suites={})).reconcile()
    assert world.condition("Accepted")[0] == "True"
    assert world.run()["status"]["jobName"] == "demo"


@pytest.mark.parametrize("status", [403, 422])
async def test_a_job_that_may_not_be_changed_freezes_no_status(status: int) -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    world.start_pod()
    world.run()["spec"]["suspend"] = True
    world.troubles = [Trouble(ApiError(status, "Invalid", "a policy denied request: no changes to Jobs"))]
    with pytest.raises(ApiError, match="no changes to Jobs"):
        await operator.reconcile()
    assert world.run()["status"]["podName"] == "demo-1"
    assert world.objects["Job", "demo"]["spec"]["suspend"] is False
    await operator.reconcile()
    assert world.objects["Job", "demo"]["spec"]["suspend"] is True


async def test_a_run_that_this_version_cannot_read_goes_on_if_it_has_a_job() -> None:
    world = new_world()
    await Operator(world).reconcile()
    world.run()["spec"]["fromTheFuture"] = 1
    world.put(world.run())
    world.writes.clear()
    assert await Operator(world).reconcile() is None
    assert world.writes == []


async def test_a_run_that_cannot_be_read_is_deleted_after_its_time_to_live() -> None:
    world = new_world({"fromTheFuture": 1, "ttlSecondsAfterFinished": 60})
    operator = Operator(world)
    assert await operator.reconcile() == timedelta(0)
    assert world.condition("Accepted") == ("False", "InvalidSpec")
    assert await operator.reconcile() == timedelta(seconds=60)
    world.now += timedelta(seconds=60)
    await operator.reconcile()
    assert ("MLPerfRun", "demo") not in world.objects


@pytest.mark.parametrize("spec", [{}, {"fromTheFuture": 1}])
async def test_a_run_that_is_being_deleted_is_left_alone(spec: dict[str, Any]) -> None:
    world = new_world(spec)
    world.run()["metadata"]["deletionTimestamp"] = format_time(NOW)
    assert await Operator(world).reconcile() is None
    assert world.writes == []


async def test_a_run_that_is_gone_is_no_error() -> None:
    world = new_world()
    del world.objects["MLPerfRun", "demo"]
    operator = Operator(world)
    assert await operator.reconcile() is None
    operator.reconciler.forget(UID)


async def test_a_condition_of_somebody_else_does_not_disturb() -> None:
    world = new_world()
    world.run()["status"]["conditions"] = [{"type": "example.com/Audited", "status": "True", "reason": "Yes"}]
    await Operator(world).reconcile()
    assert world.condition("Accepted") == ("True", "Accepted")


async def test_a_status_that_this_version_cannot_read_is_left_alone() -> None:
    world = new_world()
    world.run()["status"] = {"jobName": "demo", "stages": [{"name": "x", "state": "FromTheFuture"}]}
    await Operator(world).reconcile()
    assert world.writes == []


def _take_labels(world: World, kind: str, name: str, *, of: str = "") -> None:
    """Take our labels away by hand; the owner stays, as nobody touched it."""
    body = world.objects[kind, name]
    meta = body["metadata"]
    meta["labels"] = {key: value for key, value in meta["labels"].items() if key.startswith("batch.")}
    if kind == "Pod":
        meta["ownerReferences"] = [{"kind": "Job", "name": "demo", "uid": of, "controller": True}]
    world.put(body)


async def test_a_job_whose_labels_were_taken_away_is_still_the_runs() -> None:
    world = new_world()
    await Operator(world).reconcile()
    world.start_pod()
    _take_labels(world, "Job", "demo")
    assert await Operator(world).reconcile() == timedelta(seconds=30)
    assert world.condition("Finished")[0] == "False"
    world.end_pod("demo-1")
    world.end_job()
    await Operator(world).reconcile()
    assert world.condition("Succeeded") == ("True", "Completed")


async def test_a_job_whose_labels_were_taken_away_is_stopped_when_its_run_has_ended() -> None:
    world = new_world({"startTimeoutSeconds": 60})
    operator = Operator(world)
    await operator.reconcile()
    _take_labels(world, "Job", "demo")
    world.now += timedelta(seconds=61)
    await operator.reconcile()
    assert world.condition("Succeeded") == ("False", "PodNotCreated")
    await operator.reconcile()
    assert world.objects["Job", "demo"]["spec"]["suspend"]


async def test_a_pod_whose_labels_were_taken_away_is_found_and_its_report_read() -> None:
    world = new_world({"startTimeoutSeconds": 60})
    await Operator(world).reconcile()
    world.start_pod()
    _take_labels(world, "Pod", "demo-1", of=world.objects["Job", "demo"]["metadata"]["uid"])
    world.objects["Pod", "demo-1"]["status"] = {
        "phase": "Pending",
        "initContainerStatuses": [{"name": "code", "state": {"running": {"startedAt": format_time(NOW)}}}],
    }
    world.now += timedelta(seconds=61)
    assert await Operator(world).reconcile() == timedelta(seconds=30)
    assert world.condition("Succeeded") == ("Unknown", "Running")
    world.end_pod("demo-1")
    world.end_job()
    await Operator(world).reconcile()
    assert world.condition("Succeeded") == ("True", "Completed")
    assert world.run()["status"]["results"]


async def test_a_pod_of_another_job_is_not_taken_for_the_runs() -> None:
    world = new_world({"startTimeoutSeconds": 60})
    await Operator(world).reconcile()
    world.start_pod()
    _take_labels(world, "Pod", "demo-1", of="somebody-else")
    world.now += timedelta(seconds=61)
    await Operator(world).reconcile()
    assert world.condition("Succeeded") == ("False", "PodNotCreated")


def _of_an_earlier_run(kind: str, name: str) -> dict[str, Any]:
    owner = {"apiVersion": "mlperf.dev/v1alpha1", "kind": "MLPerfRun", "name": "demo", "uid": "earlier"}
    labels = {"mlperf.dev/run-uid": "earlier"}
    meta = {"name": name, "namespace": "bench", "labels": labels, "ownerReferences": [owner]}
    return {"kind": kind, "metadata": meta, "spec": {}}


@pytest.mark.parametrize(("kind", "name"), [("Job", "demo"), ("ConfigMap", "demo-agent")])
async def test_what_an_earlier_run_of_the_name_left_is_named_and_deleted(kind: str, name: str) -> None:
    world = new_world()
    world.put(_of_an_earlier_run(kind, name))
    operator = Operator(world)
    assert await operator.reconcile() == timedelta(seconds=2)
    assert world.condition("Succeeded") == ("Unknown", "WaitingForDeletion")
    assert f"{kind} {name} is still being deleted" in _message(world, "Succeeded")
    assert all(event["type"] == "Normal" for event in world.events)
    assert f"delete {kind} {name}" + " in the foreground" * (kind == "Job") in world.writes
    await operator.reconcile()
    assert world.objects["Job", "demo"]["metadata"]["labels"]["mlperf.dev/run-uid"] == UID
    assert world.condition("Accepted") == ("True", "Accepted")


async def test_what_an_earlier_run_left_and_has_another_owner_too_is_not_deleted() -> None:
    world = new_world()
    left = _of_an_earlier_run("ConfigMap", "demo-agent")
    left["metadata"]["ownerReferences"].append({"apiVersion": "apps/v1", "kind": "Deployment", "name": "a", "uid": "u"})
    world.put(left)
    await Operator(world).reconcile()
    assert ("ConfigMap", "demo-agent") in world.objects
    assert world.condition("Accepted") == ("False", "NameConflict")


async def test_a_pod_that_came_and_was_evicted_while_the_operator_was_away_is_no_pod_that_never_started() -> None:
    world = new_world({"startTimeoutSeconds": 60})
    operator = Operator(world)
    await operator.reconcile()
    first = world.start_pod()
    began = {"running": {"startedAt": format_time(world.now)}}
    world.objects["Pod", first]["status"]["initContainerStatuses"] = [{"name": "code", "state": began}]
    await operator.reconcile()
    del world.objects["Pod", first]
    await operator.reconcile()
    world.now += timedelta(seconds=10)
    evicted = world.objects["Pod", world.start_pod()]
    world.now += timedelta(seconds=600)
    moment = format_time(world.now)
    disrupted = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": moment}
    evicted["status"] = {"phase": "Failed", "reason": "Evicted", "conditions": [disrupted]}
    heir = Operator(world)
    await heir.reconcile()
    assert world.condition("Finished")[0] == "False"
    world.now += timedelta(seconds=71)
    await heir.reconcile()
    assert world.condition("Succeeded") == ("False", "PodNotCreated")


async def test_the_first_pod_that_ran_counts_although_the_operator_knows_only_one_that_never_did() -> None:
    world = new_world({"startTimeoutSeconds": 60})
    operator = Operator(world)
    await operator.reconcile()
    first = world.start_pod()
    await operator.reconcile()
    del world.objects["Pod", first]
    evicted = world.objects["Pod", world.start_pod()]
    world.now += timedelta(seconds=600)
    moment = format_time(world.now)
    ended = {"terminated": {"exitCode": 143, "startedAt": moment, "finishedAt": moment}}
    disrupted = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": moment}
    evicted["status"] = {
        "phase": "Failed",
        "reason": "Evicted",
        "conditions": [disrupted],
        "initContainerStatuses": [{"name": "code", "state": ended}],
    }
    await Operator(world).reconcile()
    assert world.condition("Finished")[0] == "False"


@pytest.mark.parametrize(("status", "reason"), [(403, "Forbidden"), (422, "Invalid")])
async def test_what_an_earlier_run_left_and_nobody_may_delete_ends_the_run_in_time(status: int, reason: str) -> None:
    world = new_world({"startTimeoutSeconds": 60})
    world.put(_of_an_earlier_run("Job", "demo"))
    for at, expected in ((0, "Unknown"), (60, "False")):
        world.now = NOW + timedelta(seconds=at)
        refused = Trouble(ApiError(status, reason, "may not delete"))
        # Of the requests the two ConfigMaps', the Job's, its reading and its deletion.
        world.troubles = [*[None] * (4 if at == 0 else 6), refused]
        await Operator(world).reconcile()
        assert world.condition("Succeeded") == (expected, "WaitingForDeletion")


async def test_a_job_is_made_only_when_the_pods_of_an_earlier_run_of_the_name_are_gone() -> None:
    world = new_world()
    world.put(_of_an_earlier_run("ConfigMap", "demo-agent"))
    labels = {"mlperf.dev/run": "demo", "mlperf.dev/run-uid": "earlier"}
    world.put({"kind": "Pod", "metadata": {"name": "demo-0", "namespace": "bench", "labels": labels}})
    operator = Operator(world)
    for _ in range(2):
        assert await operator.reconcile() == timedelta(seconds=2)
        assert world.condition("Succeeded") == ("Unknown", "WaitingForDeletion")
    assert "Job demo" not in world.created
    del world.objects["Pod", "demo-0"]
    await operator.reconcile()
    assert world.created.count("Job demo") == 1


async def test_what_an_earlier_run_left_and_is_being_deleted_is_not_deleted_again() -> None:
    world = new_world()
    left = _of_an_earlier_run("Job", "demo")
    left["metadata"]["deletionTimestamp"] = format_time(NOW)
    world.put(left)
    await Operator(world).reconcile()
    assert world.condition("Succeeded") == ("Unknown", "WaitingForDeletion")
    assert not any(write.startswith("delete") for write in world.writes)


async def test_what_an_earlier_run_left_at_its_deadline_ends_the_run() -> None:
    world = new_world({"startTimeoutSeconds": 60})
    world.put(_of_an_earlier_run("Job", "demo"))
    world.now += timedelta(seconds=60)
    await Operator(world).reconcile()
    assert world.condition("Succeeded") == ("False", "WaitingForDeletion")


async def test_an_object_of_the_name_that_went_meanwhile_is_made_the_next_time() -> None:
    world = new_world()
    world.fault = ApiError(409, "AlreadyExists", "it was there")
    operator = Operator(world)
    assert await operator.reconcile() == timedelta(seconds=2)
    await operator.reconcile()
    assert world.created.count("Job demo") == 1


async def test_a_claim_of_an_earlier_run_is_used_again_and_a_strangers_is_not() -> None:
    spec = {"scratch": {"claimTemplate": {"size": "1Gi"}}}
    labels = {"app.kubernetes.io/managed-by": MANAGER, "mlperf.dev/run": "demo", "mlperf.dev/run-uid": "earlier"}
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "demo-scratch", "namespace": "bench"}}
    for found, expected in ((labels, "True"), ({}, "False")):
        world = new_world(spec)
        world.put({**claim, "metadata": {**claim["metadata"], "labels": found}})  # type: ignore[dict-item]
        await Operator(world).reconcile()
        assert world.condition("Accepted")[0] == expected


@pytest.mark.parametrize(("status", "reason"), [(403, "CreationRefused"), (422, "CreationRefused")])
async def test_a_job_that_is_refused_is_told_and_ends_the_run_in_time(status: int, reason: str) -> None:
    world = new_world({"startTimeoutSeconds": 60})
    operator = Operator(world)
    for at, expected in ((0, "Unknown"), (60, "False")):
        world.now = NOW + timedelta(seconds=at)
        world.fault, world.fault_after = ApiError(status, "Refused", "limits must be more"), 2 if at == 0 else 0
        await operator.reconcile()
        assert world.condition("Succeeded") == (expected, reason)
    assert ("Warning", reason) in {(event["type"], event["reason"]) for event in world.events}


@pytest.mark.parametrize("status", [0, 409, 410, 429, 500])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("before", range(5))
async def test_an_error_of_any_request_is_survived(status: int, late: bool, before: int) -> None:
    world = new_world()
    operator = Operator(world)
    world.troubles = [*[None] * before, Trouble(ApiError(status, "R", "no"), late=late)]
    try:
        await operator.reconcile()
    except ApiError:
        await operator.reconcile()
    assert world.created.count("Job demo") == 1
    assert world.condition("Accepted") == ("True", "Accepted")


async def test_an_event_that_cannot_be_told_does_not_stop_the_run() -> None:
    world = new_world()
    operator = Operator(world)
    world.troubles = [*[None] * 4, Trouble(ApiError(403, "Forbidden", "no events here"))]
    await operator.reconcile()
    assert world.condition("Accepted") == ("True", "Accepted")


async def test_a_pod_that_is_refused_is_explained_by_the_jobs_latest_warning_of_this_attempt() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    old, new = format_time(world.now - timedelta(hours=1)), format_time(world.now + timedelta(seconds=1))
    refused = 'pods "x" is forbidden: violates PodSecurity "restricted"'
    world.warnings = [{"message": refused, "lastTimestamp": new}, {"message": "exceeded quota", "lastTimestamp": old}]
    world.now += timedelta(seconds=5)
    await operator.reconcile()
    assert world.condition("Succeeded") == ("Unknown", "PodSecurityRefused")
    world.warnings = [{"message": "exceeded quota", "lastTimestamp": old}]
    world.now += timedelta(seconds=5)
    await operator.reconcile()
    assert world.condition("Succeeded") == ("Unknown", "PodNotCreated")
    world.warnings = [{"message": "a webhook said no"}]
    world.now += timedelta(seconds=5)
    await operator.reconcile()
    assert world.condition("Succeeded") == ("Unknown", "PodRefused")


async def test_a_queued_run_that_ended_loses_its_job_which_kueue_would_resume() -> None:
    world = new_world({"queueName": "gpus", "startTimeoutSeconds": 60})
    operator = Operator(world)
    await operator.reconcile()
    assert world.condition("Suspended") == ("True", "Queued")
    world.objects["Job", "demo"]["spec"]["suspend"] = False
    world.now += timedelta(seconds=61)
    await operator.reconcile()
    assert world.condition("Succeeded") == ("False", "PodNotCreated")
    await operator.reconcile()
    assert ("Job", "demo") not in world.objects
    assert not any(write.startswith("suspend") for write in world.writes)
    await operator.reconcile()
    assert world.created.count("Job demo") == 1


async def test_a_run_whose_time_to_live_is_over_is_deleted_again_until_it_is_gone() -> None:
    world = new_world({"suite": "nobodys-suite", "ttlSecondsAfterFinished": 0})
    operator = Operator(world)
    assert await operator.reconcile() == timedelta(0)
    assert world.condition("Accepted") == ("False", "UnknownSuite")
    operator.look()
    assert await operator.reconcile(look=False) == timedelta(seconds=10)
    assert await operator.reconcile(look=False) == timedelta(seconds=10)
    assert ("MLPerfRun", "demo") not in world.objects


async def test_attempts_count_each_pod_once_also_when_the_latest_went_without_a_trace() -> None:
    world = new_world({"backoffLimit": 3})
    operator = Operator(world)
    await operator.reconcile()
    first = world.start_pod()
    world.objects["Pod", first]["status"] = {"phase": "Failed"}
    await operator.reconcile()
    world.now += timedelta(seconds=10)
    second = world.start_pod()
    await operator.reconcile()
    del world.objects["Pod", second]
    await operator.reconcile()
    assert (world.run()["status"]["attempts"], world.run()["status"]["podName"]) == (2, second)
    world.now += timedelta(seconds=10)
    third = world.start_pod()
    await operator.reconcile()
    assert (world.run()["status"]["attempts"], world.run()["status"]["podName"]) == (3, third)


async def test_an_eviction_never_explains_a_failure_that_came_after_it() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    first = world.start_pod()
    disrupted = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": format_time(world.now)}
    world.objects["Pod", first]["status"] = {"phase": "Failed", "reason": "Evicted", "conditions": [disrupted]}
    await operator.reconcile()
    second = world.start_pod()
    await operator.reconcile()
    del world.objects["Pod", second]
    world.end_job("Failed", "BackoffLimitExceeded")
    world.now += timedelta(seconds=30)
    await operator.reconcile()
    assert world.condition("Succeeded") == ("False", "BackoffLimitExceeded")
    assert second in _message(world, "Succeeded")
    assert world.run()["status"]["attempts"] == 2


async def test_a_job_of_the_name_that_somebody_made_anew_is_not_the_runs() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    world.put(_of_an_earlier_run("Job", "demo"))
    await operator.reconcile()
    assert world.condition("Succeeded") == ("False", "JobDeleted")


async def test_a_benchmark_that_a_suite_no_longer_has_does_not_stop_a_run_in_flight() -> None:
    world = new_world()
    await Operator(world).reconcile()
    world.start_pod()
    suite = BUILT_IN["reference-cpu"].model_copy(update={"benchmarks": {}})
    operator = Operator(world, replace(Limits(suites={}), suites={suite.name: suite}))
    await operator.reconcile()
    assert world.condition("Accepted") == ("True", "Accepted")
