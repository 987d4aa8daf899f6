"""Since when a run waits: clocks that start again after a pause, an eviction or a lost pod, and not before."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from mlperf_operator.api.v1alpha1 import StageState, to_wire
from mlperf_operator.observed import Blocked, ContainerRecord, Observed, PodRecord, format_time
from mlperf_operator.outcome import Outcome, Phase, outcome, run_deadline
from mlperf_operator.stages import reason_of, sentence, stage_statuses, termination
from mlperf_operator.status import next_status
from mlperf_operator.suites import BUILT_IN
from mlperf_operator.waiting import waiting_since
from unit.core.builders import NOW, done, failed, job, pod, run, running, up_to, waiting

START = timedelta(seconds=1800)
HOURS = timedelta(hours=5)
LATER = NOW + HOURS


def _stage(state: str, started: datetime, finished: datetime | None = None) -> dict[str, Any]:
    stage = {"name": "build", "state": state, "startedAt": format_time(started)}
    return {"stages": [{**stage, "finishedAt": format_time(finished)} if finished else stage]}


def _reached(observed: Observed, at: datetime, status: dict[str, Any] | None = None, **spec: Any) -> Outcome:
    return outcome(run(spec, status), observed, at)


def _evicted(**changes: Any) -> PodRecord:
    return pod(up_to("build"), phase="Failed", reason="Evicted", disrupted=True, changed_at=LATER, **changes)


def test_a_resumed_job_has_no_clock_before_its_controller_set_a_new_one() -> None:
    old = Observed(job=job(suspended=True))
    reached = _reached(old, LATER)
    assert (reached.phase, reached.reason) == (Phase.SUSPENDED, "Resuming")
    assert waiting_since(run(), old, LATER) is None
    resumed = Observed(job=job(start_time=LATER))
    assert _reached(resumed, LATER + START - timedelta(seconds=1)).phase is Phase.ACTIVE
    assert _reached(resumed, LATER + START).phase is Phase.FAILED


def test_a_run_whose_pod_was_just_evicted_waits_from_then_on() -> None:
    observed = Observed(job=job(), pods=(_evicted(),))
    assert (_reached(observed, LATER).phase, _reached(observed, LATER).reason) == (Phase.ACTIVE, "PodNotCreated")
    assert "may make another one" in _reached(observed, LATER).message
    assert _reached(observed, LATER + START).phase is Phase.ACTIVE
    assert _reached(observed, LATER + START + timedelta(seconds=10)).phase is Phase.FAILED


def test_the_job_controllers_pause_between_failures_is_not_the_runs_waiting() -> None:
    pods = tuple(_evicted(name=f"demo-{n}") for n in range(20))
    since = waiting_since(run(), Observed(job=job(), pods=pods), LATER)
    assert since == LATER + timedelta(minutes=10)
    assert waiting_since(run(), Observed(job=job(), pods=pods[:3]), LATER) == LATER + timedelta(seconds=40)


@pytest.mark.parametrize(
    ("status", "since"),
    [
        (_stage("Running", NOW), LATER),
        (_stage("Pending", NOW, NOW + timedelta(hours=3)), NOW + timedelta(hours=3)),
        (_stage("Completed", NOW, NOW + timedelta(hours=4)), NOW + timedelta(hours=4)),
        ({}, NOW),
    ],
)
def test_a_pod_that_went_without_a_trace_is_remembered_by_its_stages(status: dict[str, Any], since: datetime) -> None:
    assert waiting_since(run(status=status), Observed(job=job()), LATER) == since


def test_a_stage_whose_pod_went_away_was_interrupted_at_a_time_that_stays() -> None:
    suite, gone = BUILT_IN["reference-cpu"], Observed(job=job())
    before = to_wire(next_status(run(), suite, Observed(job=job(), pods=(pod(up_to("build")),)), NOW))
    first = next_status(run(status=before), suite, gone, LATER)
    stage = next(stage for stage in first.stages if stage.name == "build")
    assert (stage.state, stage.finished_at) == (StageState.PENDING, format_time(LATER))
    assert "was interrupted" in stage.message
    again = next_status(run(status=to_wire(first)), suite, gone, LATER + timedelta(minutes=5))
    assert again == first
    silent = Observed(job=job(), pods=(pod([waiting("code")], name="demo-2", created_at=LATER),))
    assert next_status(run(status=to_wire(first)), suite, silent, LATER).stages == first.stages
    speaking = Observed(job=job(), pods=(pod(up_to("code"), name="demo-2", created_at=LATER),))
    assert next_status(run(status=to_wire(first)), suite, speaking, LATER).stages[0].state is StageState.RUNNING


def test_a_pod_of_a_lost_node_runs_no_stage() -> None:
    stage = next(s for s in stage_statuses(_evicted()) if s.name == "build")
    assert (stage.state, stage.finished_at) == (StageState.PENDING, format_time(LATER))


@pytest.mark.parametrize("ending", [[done("run")], [failed("build")]], ids=["after its run", "after a failure"])
def test_a_pod_that_only_ends_waits_for_nothing(ending: list[ContainerRecord]) -> None:
    observed = Observed(job=job(), pods=(pod(ending, phase="Running"),))
    reached = _reached(observed, NOW + START)
    assert (reached.phase, reached.message) == (Phase.ACTIVE, "the pod is ending")
    succeeded = Observed(job=job(), pods=(pod([done("run")], phase="Succeeded"),))
    assert _reached(succeeded, NOW + START).phase is Phase.ACTIVE


def test_a_pod_that_is_deleted_says_so_and_has_time_to_end() -> None:
    going = Observed(job=job(), pods=(pod(up_to("run"), deleting=True),))
    assert _reached(going, NOW).reason == "PodTerminating"
    assert "--force" in _reached(going, NOW).message
    stuck = Observed(job=job(), pods=(pod([waiting("code")], deleting=True, disrupted=True),))
    early = _reached(stuck, NOW + START)
    assert (early.phase, early.reason) == (Phase.ACTIVE, "PodTerminating")
    assert "is evicted" in early.message
    assert _reached(stuck, NOW + START + timedelta(seconds=300)).phase is Phase.FAILED


@pytest.mark.parametrize("name", ["code", "collect"])
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("ImagePullBackOff", "ImagePullFailed"),
        ("ErrImageNeverPull", "ImagePullFailed"),
        ("CreateContainerConfigError", "CreateContainerConfigError"),
    ],
)
def test_a_container_that_cannot_be_made_says_which_and_why(name: str, word: str, reason: str) -> None:
    stuck = pod([done("code", at=NOW), waiting(name, word)] if name == "collect" else [waiting(name, word)])
    reached = _reached(Observed(job=job(), pods=(stuck,)), NOW)
    assert (reached.reason, reached.message) == (reason, f"container {name}: {word}")


def test_the_run_timeout_counts_from_the_start_of_the_pod_that_runs() -> None:
    late = pod(up_to("run"), start_time=LATER)
    observed, limit = Observed(job=job(), pods=(late,)), LATER + timedelta(seconds=60, minutes=6)
    assert run_deadline(run({"runTimeoutSeconds": 60}), late) == limit
    assert _reached(observed, limit - timedelta(seconds=1), runTimeoutSeconds=60).phase is Phase.ACTIVE
    assert _reached(observed, limit, runTimeoutSeconds=60).reason == "RunTimeout"
    assert run_deadline(run(), replace(late, start_time=None)) is None
    assert run_deadline(run(), replace(late, phase="Failed")) is None


def test_a_run_that_took_too_long_is_not_tried_again_whatever_its_backoff_limit() -> None:
    overran = pod([failed("run", 137)], phase="Failed", reason="DeadlineExceeded", changed_at=LATER)
    fresh = pod([waiting("code")], name="demo-2", created_at=LATER)
    reached = _reached(Observed(job=job(), pods=(overran, fresh)), LATER, backoffLimit=3)
    assert (reached.phase, reached.reason) == (Phase.FAILED, "RunTimeout")


ENDED = job(outcome="Failed", reason="BackoffLimitExceeded", message="too often", ended_at=NOW)
EXPLAINED: list[tuple[str, PodRecord, str, str]] = [
    ("evicted", pod([failed("run", 137)], phase="Failed", reason="Evicted", message="low on disk"), "Evicted", "disk"),
    ("no word", pod(phase="Failed", reason="UnexpectedAdmissionError"), "UnexpectedAdmissionError", "demo-abcde"),
    ("deleted", pod([failed("run", 143)], phase="Failed", deleting=True), "PodDeleted", "was deleted"),
    ("failed, then deleted", pod([failed("run", 65)], phase="Failed", deleting=True), "StageFailed", "stage run"),
    ("nothing at all", pod(phase="Failed"), "BackoffLimitExceeded", "too often"),
]


@pytest.mark.parametrize(("case", "ended", "reason", "word"), EXPLAINED, ids=[case[0] for case in EXPLAINED])
def test_a_failed_pod_is_explained_by_the_kubelet_before_its_stages(
    case: str, ended: PodRecord, reason: str, word: str
) -> None:
    reached = _reached(Observed(job=ENDED, pods=(ended,)), NOW)
    assert (reached.phase, reached.reason) == (Phase.FAILED, reason), case
    assert word in reached.message


def test_a_failed_job_waits_for_the_last_word_of_a_pod_whose_watch_is_behind() -> None:
    behind = Observed(job=ENDED, pods=(pod([running("code")]),))
    reached = _reached(behind, NOW + timedelta(seconds=29))
    assert (reached.phase, reached.reason) == (Phase.ACTIVE, "Ending")
    assert _reached(behind, NOW + timedelta(seconds=30)).reason == "BackoffLimitExceeded"


def test_a_suspended_run_is_not_ended_by_what_blocks_its_start() -> None:
    blocked = Observed(blocked=Blocked("ConfigMapNotFound", "there is no ConfigMap mine"))
    assert _reached(blocked, LATER, suspend=True).phase is Phase.NOT_STARTED


def test_a_queued_run_that_is_suspended_is_told_what_kueue_wants() -> None:
    reached = _reached(Observed(job=job(suspend=True)), NOW, suspend=True, queueName="gpus")
    assert (reached.reason, "spec.active" in reached.message) == ("Queued", True)


@pytest.mark.parametrize("message", ["[" * 5000, "[1]", "x", '{"reason": "not a word!"}', '{"reason": 7}'])
def test_whatever_a_users_image_says_at_its_end_is_survived(message: str) -> None:
    container = ContainerRecord(name="code", state="Terminated", exit_code=1, message=message)
    assert isinstance(termination(container), dict)
    assert reason_of(container) == "StageCrashed"
    assert len(sentence(container)) <= 1200
    assert stage_statuses(pod([container]))[0].state is StageState.FAILED


def test_a_long_message_of_a_stage_that_ended_well_is_cut() -> None:
    said = json.dumps({"reason": "Completed", "message": "x" * 5000})
    container = ContainerRecord(name="code", state="Terminated", exit_code=0, message=said)
    assert len(stage_statuses(pod([container]))[0].message) == 1200
