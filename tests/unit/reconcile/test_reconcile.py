"""Whole reconciliations against an API server in memory."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from mlperf_operator.cluster import ApiError
from mlperf_operator.observed import format_time
from unit.core.builders import UID
from unit.reconcile.world import CrashError, Operator, World, new_world


async def _finish(world: World, operator: Operator) -> None:
    await operator.reconcile()
    world.end_pod(world.start_pod())
    world.end_job()
    await operator.reconcile()


async def test_a_run_goes_from_nothing_to_a_valid_result() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    assert world.created == ["ConfigMap demo-agent", "ConfigMap demo-gpu-config", "Job demo"]
    assert world.condition("Succeeded") == ("Unknown", "PodNotCreated")
    world.end_pod(world.start_pod())
    world.end_job()
    await operator.reconcile()
    assert world.condition("Succeeded") == ("True", "Completed")
    assert world.condition("ResultsValid") == ("True", "Valid")
    assert world.run()["status"]["summary"] == "Offline 1234.5 samples/s"


async def test_nothing_is_written_when_nothing_changed() -> None:
    world = new_world()
    operator = Operator(world)
    await _finish(world, operator)
    world.writes.clear()
    for _ in range(3):
        world.now += timedelta(minutes=10)
        await operator.reconcile()
        await Operator(world).reconcile()
    assert world.writes == []


async def test_a_stale_cache_makes_no_second_job() -> None:
    world = new_world()
    operator = Operator(world)
    operator.look()
    for _ in range(3):
        await operator.reconcile(look=False)
    assert world.created.count("Job demo") == 1


@pytest.mark.parametrize("writes", range(6))
async def test_an_operator_that_dies_at_any_write_is_continued_by_the_next(writes: int) -> None:
    world = new_world()
    world.fault, world.fault_after = CrashError(), writes
    try:
        await _finish(world, Operator(world))
    except CrashError:
        world.fault = None
    await _continue(world)
    assert world.created.count("Job demo") == 1
    assert world.condition("Succeeded") == ("True", "Completed")


async def _continue(world: World) -> None:
    heir = Operator(world)
    await heir.reconcile()
    if not any(kind == "Pod" for kind, _ in world.objects):
        world.end_pod(world.start_pod())
        world.end_job()
    await heir.reconcile()


async def test_a_report_of_another_uid_is_never_taken() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    world.end_pod(world.start_pod(), uid="another-run")
    world.end_job()
    await operator.reconcile()
    assert world.condition("Succeeded") == ("Unknown", "ResultsNotCollected")
    world.now += timedelta(minutes=1)
    await operator.reconcile()
    assert world.condition("Succeeded") == ("False", "ResultsNotCollected")
    assert world.condition("ResultsValid") == ("Unknown", "ResultsNotCollected")
    (entry,) = world.run()["status"]["results"]
    assert entry["cause"] == "NoResult"
    assert "another run" in entry["missing"]
    assert "validity" not in entry


async def test_results_that_nobody_can_read_end_the_run_without_success() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    world.end_job()
    await operator.reconcile()
    assert world.condition("Succeeded") == ("False", "ResultsNotCollected")
    assert world.condition("Finished")[0] == "True"


async def test_results_on_a_claim_are_read_again_by_one_recovery_job() -> None:
    world = new_world({"results": {"claimName": "r"}})
    operator = Operator(world)
    await operator.reconcile()
    world.end_job()
    for _ in range(3):
        world.now += timedelta(seconds=10)
        await operator.reconcile()
    assert world.created.count("Job demo-collect") == 1
    assert world.condition("Succeeded") == ("Unknown", "ResultsNotCollected")


async def test_a_foreign_job_of_the_same_name_is_a_conflict_and_is_not_touched() -> None:
    world = new_world()
    foreign = {"kind": "Job", "metadata": {"name": "demo", "namespace": "bench", "labels": {}}, "spec": {"mine": 1}}
    before = world.put(foreign)
    await Operator(world).reconcile()
    assert world.condition("Accepted") == ("False", "NameConflict")
    assert world.condition("Finished")[0] == "True"
    assert world.objects["Job", "demo"] == before


async def test_a_job_of_an_earlier_run_that_is_being_deleted_is_waited_for() -> None:
    world = new_world()
    meta = {
        "name": "demo",
        "namespace": "bench",
        "labels": {"mlperf.dev/run-uid": "old"},
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    }
    world.put({"kind": "Job", "metadata": meta, "spec": {}})
    operator = Operator(world)
    assert await operator.reconcile() == timedelta(seconds=2)
    del world.objects["Job", "demo"]
    await operator.reconcile()
    assert world.objects["Job", "demo"]["metadata"]["labels"]["mlperf.dev/run-uid"] == UID


async def test_a_job_deleted_by_hand_ends_the_run_and_is_not_made_again() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    del world.objects["Job", "demo"]
    await operator.reconcile()
    await operator.reconcile()
    assert world.condition("Succeeded") == ("False", "JobDeleted")
    assert world.created.count("Job demo") == 1


async def test_a_copy_of_the_job_under_another_name_is_not_the_runs_job() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    copied = copy.deepcopy(world.objects["Job", "demo"])
    copied["metadata"] |= {"name": "copied", "uid": "copied-uid"}
    copied["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "Copied"}]}
    world.put(copied)
    await operator.reconcile()
    assert world.condition("Finished")[0] == "False"
    world.end_pod(world.start_pod())
    world.end_job()
    await operator.reconcile()
    assert world.condition("Succeeded") == ("True", "Completed")


async def test_a_spec_that_does_not_validate_is_refused_and_named() -> None:
    world = new_world({"benchmarks": "bert"})
    await Operator(world).reconcile()
    assert world.condition("Accepted") == ("False", "InvalidSpec")
    found = next(c for c in world.run()["status"]["conditions"] if c["type"] == "Accepted")
    assert "spec.benchmarks" in found["message"]
    world.writes.clear()
    await Operator(world).reconcile()
    assert world.writes == []


async def test_suspend_and_resume_follow_the_spec() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    for wanted in (True, False):
        world.run()["spec"]["suspend"] = wanted
        await operator.reconcile()
        assert world.objects["Job", "demo"]["spec"]["suspend"] is wanted
        await operator.reconcile()
        assert world.condition("Suspended")[0] == str(wanted)


async def test_changes_of_stages_alone_wait_and_a_change_of_a_fact_does_not() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    pod = world.start_pod()
    world.now += timedelta(seconds=10)
    await operator.reconcile()
    body = world.objects["Pod", pod]
    body["status"]["initContainerStatuses"] = [{"name": "code", "state": {"running": {}}}]
    await operator.reconcile()
    world.writes.clear()
    body["status"]["initContainerStatuses"].append({"name": "preflight", "state": {"running": {}}})
    again = await operator.reconcile()
    assert world.writes == []
    assert again == timedelta(seconds=5)
    world.now += timedelta(seconds=5)
    await operator.reconcile()
    assert world.writes == ["status"]


async def test_changes_of_stages_wait_longer_the_more_runs_are_under_way() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    pod = world.start_pod()
    await operator.reconcile()
    written = operator.reconciler._statuses._written
    written.update({f"another-{number}": written[UID] for number in range(499)})
    world.objects["Pod", pod]["status"]["initContainerStatuses"] = [{"name": "code", "state": {"running": {}}}]
    await operator.reconcile()
    body = world.objects["Pod", pod]
    body["status"]["initContainerStatuses"].append({"name": "preflight", "state": {"running": {}}})
    assert await operator.reconcile() == timedelta(seconds=50)


async def test_changes_of_stages_do_not_wait_for_as_long_as_the_servers_clock_was_set_back() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    pod = world.start_pod()
    await operator.reconcile()
    world.now -= timedelta(hours=1)
    world.objects["Pod", pod]["status"]["initContainerStatuses"] = [{"name": "code", "state": {"running": {}}}]
    await operator.reconcile()
    assert world.run()["status"]["stage"] == "code"


async def test_nothing_is_remembered_of_a_run_that_has_finished() -> None:
    world = new_world()
    operator = Operator(world)
    await _finish(world, operator)
    await operator.reconcile(look=False)
    assert operator.reconciler._statuses._written
    await operator.reconcile()
    assert not operator.reconciler._statuses._written


async def test_nothing_is_remembered_of_a_run_that_went_while_its_status_was_written() -> None:
    class Vanishing(World):
        async def apply_run_status(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            stored = await super().apply_run_status(*args, **kwargs)
            operator.runs.clear()
            operator.reconciler.forget(UID)
            return stored

    world = Vanishing(objects=new_world().objects)
    operator = Operator(world)
    await operator.reconcile()
    assert world.writes[-1] == "status"
    assert not operator.reconciler._statuses._written


async def test_an_api_error_is_raised_for_the_queue_to_try_again() -> None:
    world = new_world()
    world.fault = ApiError(500, "InternalError", "etcd is away")
    with pytest.raises(ApiError):
        await Operator(world).reconcile()
    await Operator(world).reconcile()
    assert world.created.count("Job demo") == 1


async def test_a_quota_that_forbids_the_job_is_told_and_tried_again() -> None:
    world = new_world()
    world.fault, world.fault_after = ApiError(403, "Forbidden", "exceeded quota: jobs"), 2
    operator = Operator(world)
    again = await operator.reconcile()
    assert world.condition("Succeeded") == ("Unknown", "QuotaExceeded")
    assert again is not None
    await operator.reconcile()
    assert world.created.count("Job demo") == 1


async def test_a_start_timeout_ends_the_run_and_stops_its_job() -> None:
    world = new_world({"startTimeoutSeconds": 60})
    operator = Operator(world)
    await operator.reconcile()
    world.now += timedelta(seconds=61)
    await operator.reconcile()
    assert world.condition("Finished")[0] == "True"
    await operator.reconcile()
    assert world.objects["Job", "demo"]["spec"]["suspend"] is True


async def test_a_finished_run_is_deleted_after_its_time_to_live() -> None:
    world = new_world({"ttlSecondsAfterFinished": 60})
    operator = Operator(world)
    await _finish(world, operator)
    assert await operator.reconcile() == timedelta(seconds=60)
    world.now += timedelta(seconds=61)
    await operator.reconcile()
    assert ("MLPerfRun", "demo") not in world.objects


async def test_what_waits_to_be_written_counts_when_the_pod_goes_before_it_is() -> None:
    world = new_world({"startTimeoutSeconds": 60})
    operator = Operator(world)
    await operator.reconcile()
    pod = world.start_pod()
    world.now += timedelta(seconds=58)
    await operator.reconcile()
    world.now += timedelta(seconds=1)
    began = {"running": {"startedAt": format_time(world.now)}}
    world.objects["Pod", pod]["status"]["initContainerStatuses"] = [{"name": "code", "state": began}]
    world.writes.clear()
    await operator.reconcile()
    assert world.writes == []
    del world.objects["Pod", pod]
    world.run()["spec"]["ttlSecondsAfterFinished"] = 60
    world.put(world.run())
    world.now += timedelta(seconds=4)
    world.fault = ApiError(500, "InternalError", "etcd is away")
    with pytest.raises(ApiError):
        await operator.reconcile()
    await operator.reconcile()
    assert world.condition("Finished")[0] == "False"
    assert world.run()["status"]["stages"][0]["startedAt"] == began["running"]["startedAt"]
