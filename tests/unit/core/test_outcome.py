"""How a run stands, read from its Job and pods."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from mlperf_operator.api.v1alpha1 import StageState
from mlperf_operator.observed import Blocked, ContainerRecord, Observed, PodRecord, Report, format_time
from mlperf_operator.outcome import LAST_WORD_GRACE, Outcome, Phase, outcome, start_deadline
from mlperf_operator.stages import stage_statuses
from unit.core.builders import NOW, done, failed, job, pod, run, running, up_to, waiting

START = timedelta(seconds=1800)


def _at(observed: Observed, after: timedelta = timedelta(0), **spec: object) -> Outcome:
    return outcome(run(dict(spec)), observed, NOW + after)


def test_a_run_without_a_job_is_not_started() -> None:
    assert _at(Observed()).phase is Phase.NOT_STARTED


def test_a_job_that_was_made_and_is_gone_ends_the_run() -> None:
    reached = outcome(run(status={"jobName": "demo"}), Observed(), NOW)
    assert (reached.phase, reached.reason) == (Phase.FAILED, "JobDeleted")


def test_what_blocks_the_start_is_told_and_ends_the_run_only_after_its_time() -> None:
    observed = Observed(blocked=Blocked("ConfigMapNotFound", "there is no ConfigMap mine"))
    assert _at(observed, START - timedelta(seconds=1)) == Outcome(
        Phase.NOT_STARTED, "ConfigMapNotFound", "there is no ConfigMap mine"
    )
    late = _at(observed, START)
    assert (late.phase, late.reason) == (Phase.FAILED, "ConfigMapNotFound")
    assert "1800 s" in late.message


def test_a_suspended_job_says_what_lets_it_go_on() -> None:
    reached = _at(Observed(job=job(suspend=True)))
    assert (reached.phase, reached.reason) == (Phase.SUSPENDED, "Suspended")
    queued = _at(Observed(job=job(suspend=True)), queueName="gpus")
    assert (queued.phase, queued.reason) == (Phase.SUSPENDED, "Queued")
    assert "gpus" in queued.message


def test_an_evicted_pod_is_not_why_the_job_failed() -> None:
    ended = job(outcome="Failed", reason="BackoffLimitExceeded", message="too often", ended_at=NOW)
    evicted = pod([failed("build", 1)], phase="Failed", reason="Evicted", disrupted=True)
    assert _at(Observed(job=ended, pods=(evicted,))).phase is Phase.ACTIVE
    reached = _at(Observed(job=ended, pods=(evicted,)), LAST_WORD_GRACE)
    assert (reached.phase, reached.reason) == (Phase.FAILED, "BackoffLimitExceeded")
    assert reached.message == "too often; the pod that followed demo-abcde is gone, by hand or with its node"
    after = pod([failed("build")], name="demo-fghij", phase="Failed")
    assert _at(Observed(job=ended, pods=(evicted, after))).reason == "StageFailed"


def test_a_running_stage_is_named() -> None:
    reached = _at(Observed(job=job(), pods=(pod(up_to("download-model")),)))
    assert (reached.phase, reached.reason, reached.message) == (
        Phase.ACTIVE,
        "Running",
        "stage download-model is running",
    )


VIOLATES = 'pods "x" is forbidden: violates PodSecurity "{}": hostPath volumes (volume "scratch")'
IMAGE = waiting("code", "ImagePullBackOff", 'Back-off pulling image "x"')
NO_FOLDER = waiting(
    "code",
    "CreateContainerConfigError",
    'failed to prepare subPath for volumeMount "scratch" of container "code"',
)
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
NO_NODE = "0/3 nodes are available: 3 node(s) had untolerated taint"

WAITS: list[tuple[str, tuple[PodRecord, ...], tuple[str, ...], str, str]] = [
    ("image", (pod([IMAGE]),), (), "ImagePullFailed", "Back-off"),
    ("no GPU", (pod(unschedulable=NO_GPU),), (), "GPUNotAllocatable", "Insufficient"),
    ("no node", (pod(unschedulable=NO_NODE),), (), "Unschedulable", "taint"),
    ("security", (), (VIOLATES.format("restricted:latest"),), "PodSecurityRefused", "enforces PodSecurity restricted"),
    ("link", (pod([NO_FOLDER]),), (), "FolderRefused", "a link may lead out of the volume"),
    ("quota", (), ('pods "x" is forbidden: exceeded quota: q',), "QuotaExceeded", "exceeded quota"),
    ("other refusal", (), ("admission webhook said no",), "PodRefused", "webhook"),
    ("nobody says why", (), (), "PodNotCreated", "no pod"),
    ("starting", (pod([waiting("code")]),), (), "PodStarting", "is starting"),
]


@pytest.mark.parametrize(("case", "pods", "warnings", "reason", "word"), WAITS, ids=[case[0] for case in WAITS])
def test_a_pod_that_does_not_start_says_why_and_ends_the_run_after_its_time(
    case: str, pods: tuple[PodRecord, ...], warnings: tuple[str, ...], reason: str, word: str
) -> None:
    observed = Observed(job=job(), pods=pods, job_warnings=warnings)
    early = _at(observed, START - timedelta(seconds=1))
    assert (early.phase, early.reason) == (Phase.ACTIVE, reason), case
    assert word in early.message
    late = _at(observed, START)
    assert (late.phase, late.reason) == (Phase.FAILED, reason)
    assert word in late.message


def test_the_start_timeout_does_not_end_a_run_whose_stage_is_running() -> None:
    observed = Observed(job=job(), pods=(pod(up_to("code")),))
    assert _at(observed, 10 * START).phase is Phase.ACTIVE


def test_a_later_container_that_never_starts_is_timed_from_the_end_of_the_one_before() -> None:
    ended = done("code", at=NOW + timedelta(hours=2))
    stuck = waiting("preflight", "ErrImagePull", "no such image")
    observed = Observed(job=job(), pods=(pod([ended, stuck]),))
    assert _at(observed, timedelta(hours=2) + START - timedelta(seconds=1)).phase is Phase.ACTIVE
    assert _at(observed, timedelta(hours=2) + START).reason == "ImagePullFailed"


FAILURES: list[tuple[str, ContainerRecord, str, list[str]]] = [
    ("a stage", failed("build"), "StageFailed", ["stage build", "exit code 65", "its command 2", "last line"]),
    ("no result", failed("run", reason="NoResult"), "NoResult", ["stage run"]),
    ("a full scratch", failed("download-data", reason="ScratchFull"), "ScratchFull", ["download-data"]),
    ("configuration", failed("preflight", 64, reason="PreflightFailed"), "PreflightFailed", ["exit code 64"]),
    ("a crash of the wrapper", failed("code", 1, message="Traceback"), "StageCrashed", ["exit code 1", "Traceback"]),
    ("memory", replace(failed("run", 137, message=""), reason="OOMKilled"), "OutOfMemory", ["137"]),
]


@pytest.mark.parametrize(("case", "container", "reason", "words"), FAILURES, ids=[case[0] for case in FAILURES])
def test_a_failed_job_is_explained_by_the_stage_that_failed(
    case: str, container: ContainerRecord, reason: str, words: list[str]
) -> None:
    ended = job(outcome="Failed", reason="PodFailurePolicy", message="pod failed", ended_at=NOW)
    sidecar = ContainerRecord(name="collect", state="Terminated", reason="Error", exit_code=143)
    reached = _at(Observed(job=ended, pods=(pod([sidecar, container], phase="Failed"),)))
    assert (reached.phase, reached.reason) == (Phase.FAILED, reason), case
    for word in words:
        assert word in reached.message


def test_a_pod_that_overran_its_deadline_is_a_run_timeout_and_no_failure_of_its_stage() -> None:
    ended = job(outcome="Failed", reason="BackoffLimitExceeded", ended_at=NOW)
    late = pod([failed("run", 137, message="")], phase="Failed", reason="DeadlineExceeded")
    assert _at(Observed(job=ended, pods=(late,))).reason == "RunTimeout"


def test_a_failed_job_whose_pod_is_gone_gives_the_jobs_own_reason() -> None:
    ended = Observed(job=job(outcome="Failed", reason="BackoffLimitExceeded", message="too often", ended_at=NOW))
    assert _at(ended, LAST_WORD_GRACE) == Outcome(Phase.FAILED, "BackoffLimitExceeded", "too often")
    reached = outcome(run(status={"podName": "demo-1"}), ended, NOW + LAST_WORD_GRACE)
    assert reached.message == "too often; pod demo-1 is gone, by hand or with its node"


def test_a_job_that_outlives_the_run_timeout_ends_the_run() -> None:
    observed = Observed(job=job(), pods=(pod([running("run")]),))
    assert _at(observed, timedelta(seconds=60 + 361), runTimeoutSeconds=60).reason == "RunTimeout"
    assert _at(observed, timedelta(seconds=60 + 359), runTimeoutSeconds=60).phase is Phase.ACTIVE


def test_a_complete_job_without_a_report_is_not_a_success() -> None:
    complete = job(outcome="Complete", ended_at=NOW)
    assert _at(Observed(job=complete)).phase is Phase.COLLECTING
    assert _at(Observed(job=complete)).reason == "ResultsNotCollected"
    behind = _at(Observed(job=complete, pods=(pod([running("run")]),)))
    assert (behind.phase, behind.reason) == (Phase.COLLECTING, "Collecting")
    lost = _at(Observed(job=complete, report_error="nothing is left"))
    assert (lost.phase, lost.reason) == (Phase.FAILED, "ResultsNotCollected")
    assert _at(Observed(job=complete, report=Report(()))).phase is Phase.COMPLETED


def test_stages_say_which_were_skipped_and_what_they_said() -> None:
    stages = {s.name: s for s in stage_statuses(pod([done("code"), done("build", reason="Skipped"), running("run")]))}
    assert stages["code"].state is StageState.COMPLETED
    assert stages["build"].state is StageState.SKIPPED
    assert stages["build"].message == "build said so"
    assert stages["run"].state is StageState.RUNNING
    assert stages["prebuild"].state is StageState.PENDING
    assert "collect" not in stages


def _suspended(status: str, at: timedelta) -> dict[str, object]:
    moment = format_time(NOW + at)
    condition = {"type": "Suspended", "status": status, "reason": "x", "lastTransitionTime": moment}
    return {"conditions": [condition]}


def test_a_run_that_waits_suspended_for_its_driver_is_suspended_for_as_long_as_it_likes() -> None:
    observed = Observed(blocked=Blocked("Suspended", "no node is claimed"))
    for after in (timedelta(0), 10 * START):
        assert _at(observed, after, suspend=True) == Outcome(Phase.SUSPENDED, "Suspended", "no node is claimed")
    assert _at(observed, START).phase is Phase.FAILED


def test_a_suspended_run_that_waits_for_something_else_says_that_and_never_gives_up() -> None:
    observed = Observed(blocked=Blocked("ConfigMapNotFound", "x"))
    assert _at(observed, 10 * START, suspend=True) == Outcome(Phase.NOT_STARTED, "ConfigMapNotFound", "x")


def test_the_time_to_start_counts_from_the_end_of_a_suspension() -> None:
    hour = timedelta(hours=1)
    assert start_deadline(run()) == NOW + START
    assert start_deadline(run(status=_suspended("False", hour))) == NOW + hour + START
    assert start_deadline(run(status=_suspended("True", hour))) == NOW + START
    assert start_deadline(run(status=_suspended("False", -hour))) == NOW + START
    observed = Observed(blocked=Blocked("NodeDriverConflict", "by bench/a"))
    resumed = run(status=_suspended("False", hour))
    assert outcome(resumed, observed, NOW + hour + START - timedelta(seconds=1)).phase is Phase.NOT_STARTED
    late = outcome(resumed, observed, NOW + hour + START)
    assert (late.phase, late.reason) == (Phase.FAILED, "NodeDriverConflict")
