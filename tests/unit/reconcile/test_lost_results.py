"""Reports that do not come: the log, the recovery Job and the volume, and when hope ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from mlperf_operator.cluster import ApiError
from mlperf_operator.limits import Limits
from unit.reconcile.world import CHILDREN_POLICY, LIMITS, Operator, Trouble, World, new_world

ON_A_CLAIM = {"results": {"claimName": "r"}}


def _message(world: World, kind: str) -> str:
    return str(next(c["message"] for c in world.run()["status"]["conditions"] if c["type"] == kind))


async def _completed_without_report(world: World) -> Operator:
    operator = Operator(world)
    await operator.reconcile()
    pod = world.start_pod()
    world.end_pod(pod, uid="another-run")
    world.end_job()
    await operator.reconcile()
    return operator


async def test_lost_results_of_a_suite_that_is_gone_end_the_run_in_the_end() -> None:
    world = new_world(ON_A_CLAIM)
    await Operator(world).reconcile()
    world.end_job()
    heir = Operator(world, Limits(suites={}))
    await heir.reconcile()
    assert world.condition("Succeeded") == ("Unknown", "ResultsNotCollected")
    world.now += timedelta(minutes=16)
    await heir.reconcile()
    assert world.condition("Succeeded") == ("False", "ResultsNotCollected")
    assert "reference-cpu is not known any more" in _message(world, "Succeeded")


async def test_lost_results_on_a_folder_that_is_not_allowed_any_more_are_not_read() -> None:
    world = new_world({"results": {"hostPath": {"path": "/mnt/scratch/team"}}})
    await Operator(world).reconcile()
    world.end_job()
    heir = Operator(world, replace(LIMITS, host_paths=("/mnt/other",)))
    await heir.reconcile()
    assert "Job demo-collect" not in world.created
    assert world.condition("Succeeded") == ("Unknown", "ResultsNotCollected")
    world.now += timedelta(minutes=16)
    await heir.reconcile()
    assert world.condition("Succeeded") == ("False", "ResultsNotCollected")
    assert "host path /mnt/scratch/team is not allowed (chart value allowedHostPaths)" in _message(world, "Succeeded")


async def test_lost_results_are_read_from_the_volume_by_the_recovery_job() -> None:
    world = new_world(ON_A_CLAIM)
    operator = await _completed_without_report(world)
    assert world.condition("Succeeded") == ("Unknown", "ResultsNotCollected")
    world.end_pod(world.start_pod("demo-collect"))
    await operator.reconcile()
    assert world.condition("Succeeded") == ("True", "Completed")
    assert world.condition("ResultsValid") == ("True", "Valid")


async def test_both_jobs_say_under_which_admission_policy_they_were_made() -> None:
    world = new_world(ON_A_CLAIM)
    await _completed_without_report(world)
    templates = [world.objects["Job", name]["spec"]["template"] for name in ("demo", "demo-collect")]
    said = {"mlperf.dev/children-policy": CHILDREN_POLICY}
    assert [template["metadata"]["annotations"] for template in templates] == [said, said]


async def test_a_recovery_job_that_fails_ends_the_run_without_success() -> None:
    world = new_world(ON_A_CLAIM)
    operator = await _completed_without_report(world)
    world.end_job("Failed", "BackoffLimitExceeded", name="demo-collect")
    await operator.reconcile()
    assert world.condition("Succeeded") == ("False", "ResultsNotCollected")
    assert world.condition("ResultsValid") == ("Unknown", "ResultsNotCollected")


async def test_results_are_read_again_however_long_the_operator_was_away() -> None:
    world = new_world(ON_A_CLAIM)
    await Operator(world).reconcile()
    world.end_pod(world.start_pod(), uid="another-run")
    world.end_job()
    world.now += timedelta(days=1)
    heir = Operator(world)
    await heir.reconcile()
    assert world.created.count("Job demo-collect") == 1
    world.now += timedelta(minutes=14)
    await heir.reconcile()
    assert world.condition("Succeeded") == ("Unknown", "ResultsNotCollected")
    world.now += timedelta(minutes=2)
    await heir.reconcile()
    assert "within 15 minutes" in _message(world, "Succeeded")
    assert world.condition("Finished")[0] == "True"


@pytest.mark.parametrize("stranger", [True, False], ids=["its name is taken", "it is refused"])
async def test_a_recovery_job_that_cannot_be_made_ends_the_run_only_after_a_while(stranger: bool) -> None:
    world = new_world(ON_A_CLAIM)
    if stranger:
        world.put({"kind": "Job", "metadata": {"name": "demo-collect", "namespace": "bench", "labels": {}}})
    operator = Operator(world)
    await operator.reconcile()
    world.end_job()
    for minutes, expected in ((1, "Unknown"), (16, "False")):
        world.now += timedelta(minutes=minutes)
        world.fault = None if stranger else ApiError(403, "Forbidden", "exceeded quota")
        await operator.reconcile()
        assert world.condition("Accepted")[0] == "True"
        assert world.condition("Succeeded") == (expected, "ResultsNotCollected")
    assert "could not be read again" in _message(world, "Succeeded")


async def test_a_recovery_job_is_tried_again_when_the_api_server_is_away() -> None:
    world = new_world(ON_A_CLAIM)
    operator = Operator(world)
    await operator.reconcile()
    world.end_job()
    world.fault = ApiError(500, "InternalError", "etcd is away")
    with pytest.raises(ApiError):
        await operator.reconcile()


async def test_a_failed_runs_results_are_asked_for_until_the_kubelet_answers() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    world.end_pod(world.start_pod())
    world.end_job("Failed", "PodFailurePolicy")
    world.troubles = [Trouble(ApiError(502, "BadGateway", "kubelet is busy"))]
    with pytest.raises(ApiError):
        await operator.reconcile()
    assert world.condition("Finished")[0] == "False"
    await operator.reconcile()
    assert world.condition("Succeeded") == ("False", "PodFailurePolicy")
    assert len(world.run()["status"]["results"]) == 1


async def test_a_failed_run_ends_without_results_when_its_node_is_gone() -> None:
    world = new_world()
    operator = Operator(world)
    await operator.reconcile()
    world.end_pod(world.start_pod())
    world.end_job("Failed", "PodFailurePolicy")
    world.now += timedelta(minutes=1)
    world.troubles = [Trouble(ApiError(502, "BadGateway", "kubelet is gone"))] * 2
    await operator.reconcile()
    assert world.condition("Finished")[0] == "True"
    assert world.condition("ResultsValid") == ("Unknown", "NoResults")
    assert [(entry["scenario"], entry["cause"]) for entry in world.run()["status"]["results"]] == [
        ("Offline", "NotMeasured")
    ]


BOTH = {"testModes": ["PerformanceOnly", "AccuracyOnly"]}


async def _with_a_cut_log(world: World) -> tuple[Operator, str]:
    """Let a run's pod end without the end of collect's log, as a full disk of the node does; return the pod too."""
    operator = Operator(world)
    await operator.reconcile()
    pod = world.start_pod()
    world.end_pod(pod)
    world.logs[pod] = world.logs[pod].partition("\n")[0] + "\n"
    return operator, pod


def _causes(world: World) -> list[tuple[str, str | None, str | None]]:
    results = world.run()["status"]["results"]
    return [(entry["mode"], entry.get("validity"), entry.get("cause")) for entry in results]


async def test_a_failed_run_whose_log_is_cut_keeps_what_was_measured_and_names_the_rest() -> None:
    world = new_world(BOTH)
    operator, _ = await _with_a_cut_log(world)
    world.end_job("Failed", "PodFailurePolicy")
    await operator.reconcile()
    assert _causes(world) == [("PerformanceOnly", "VALID", None), ("AccuracyOnly", None, "NotMeasured")]
    assert world.condition("Succeeded") == ("False", "PodFailurePolicy")
    assert world.condition("ResultsValid") == ("Unknown", "ReportIncomplete")
    assert world.condition("AccuracyMet") == ("False", "Missing")
    assert "collect's log holds no report" in _message(world, "ResultsValid")


async def test_the_log_of_a_run_that_still_ends_is_not_read_by_halves() -> None:
    world = new_world()
    operator, pod = await _with_a_cut_log(world)
    world.objects["Pod", pod]["status"]["phase"] = "Running"
    world.end_job("Failed", "PodFailurePolicy")
    await operator.reconcile()
    assert world.condition("Finished")[0] == "False"
    assert world.run()["status"].get("results", []) == []
    world.now += timedelta(seconds=31)
    await operator.reconcile()
    assert world.condition("Finished")[0] == "True"
    assert _causes(world) == [("PerformanceOnly", "VALID", None)]


async def test_a_complete_run_whose_log_is_cut_is_never_a_success_and_keeps_what_can_be_read() -> None:
    world = new_world()
    operator, _ = await _with_a_cut_log(world)
    world.end_job()
    await operator.reconcile()
    assert world.condition("Succeeded") == ("Unknown", "ResultsNotCollected")
    assert world.run()["status"].get("results", []) == []
    world.now += timedelta(minutes=1)
    await operator.reconcile()
    assert world.condition("Succeeded") == ("False", "ResultsNotCollected")
    assert world.condition("ResultsValid") == ("Unknown", "ReportIncomplete")
    assert _causes(world) == [("PerformanceOnly", "VALID", None)]


async def test_a_part_is_asked_for_again_while_the_kubelet_may_answer() -> None:
    world = new_world()
    operator, _ = await _with_a_cut_log(world)
    world.end_job("Failed", "PodFailurePolicy")
    world.troubles = [None, Trouble(ApiError(502, "BadGateway", "kubelet is busy"))]
    with pytest.raises(ApiError):
        await operator.reconcile()
    await operator.reconcile()
    assert _causes(world) == [("PerformanceOnly", "VALID", None)]


@pytest.mark.parametrize("reason", ["OOMKilled", "Error"])
async def test_a_container_that_was_killed_is_told_for_what_was_not_measured(reason: str) -> None:
    world = new_world(BOTH)
    operator = Operator(world)
    await operator.reconcile()
    pod = world.start_pod()
    world.end_pod(pod)
    killed = {"exitCode": 137, "reason": reason}
    world.objects["Pod", pod]["status"]["containerStatuses"] = [{"name": "run", "state": {"terminated": killed}}]
    world.objects["Pod", pod]["status"]["phase"] = "Failed"
    world.end_job("Failed", "BackoffLimitExceeded")
    await operator.reconcile()
    cause = "OutOfMemory" if reason == "OOMKilled" else "Killed"
    assert _causes(world) == [("PerformanceOnly", "VALID", None), ("AccuracyOnly", None, cause)]
