"""The status that follows from what was observed, and the Events that tell the difference."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlperf_operator.api.v1alpha1 import MLPerfRunStatus, ResultStatus, StageState, to_wire
from mlperf_operator.events import Note, event, notes
from mlperf_operator.limits import Refusal
from mlperf_operator.observed import DriverView, Kept, Observed, PodRecord, Report, format_time
from mlperf_operator.resources.containers import PREPARE_STAGES
from mlperf_operator.status import is_finished, next_status, refused_status, summarize
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import NOW, UID, done, failed, job, pod, result, run, running, up_to, waiting

SUITE = BUILT_IN["reference-cpu"]
OFFLINE = [{"name": "digits", "scenarios": ["Offline"]}]


def _next(observed: Observed, status: dict[str, Any] | None = None, after: int = 0, **spec: Any) -> MLPerfRunStatus:
    return next_status(run(spec, status), SUITE, observed, NOW + timedelta(seconds=after))


def _results(*entries: dict[str, Any]) -> tuple[ResultStatus, ...]:
    return tuple(ResultStatus.model_validate(entry) for entry in entries)


def test_a_run_under_way_shows_its_stage_node_and_pod() -> None:
    status = _next(Observed(job=job(), pods=(pod(up_to("build")),), config_digest="abc"))
    assert (status.stage, status.node, status.pod_name, status.job_name) == ("build", "node-1", "demo-abcde", "demo")
    assert (status.start_time, status.completion_time, status.attempts) == ("2026-01-02T03:04:05Z", None, 1)
    assert status.config_digest == "abc"
    assert status.benchmarks == "digits"
    assert not is_finished(status)


def test_the_same_observation_gives_the_same_status_at_any_later_time() -> None:
    observed = Observed(job=job(), pods=(pod(up_to("build")),))
    first = to_wire(_next(observed))
    assert to_wire(_next(observed, first, after=60)) == first


def test_a_finished_run_keeps_its_results_and_says_where_its_logs_are() -> None:
    report = Report(_results(result(), result(mode="AccuracyOnly")), kept=Kept("ab" * 32, "s3://b/p", "cut"))
    ended = pod([*(done(c.name) for c in up_to("run"))], phase="Succeeded")
    observed = Observed(job=job(outcome="Complete", ended_at=NOW), pods=(ended,), report=report)
    status = _next(observed, after=9, benchmarks=OFFLINE)
    assert is_finished(status)
    assert status.completion_time == "2026-01-02T03:04:14Z"
    assert status.summary == "Offline 1234.5 samples/s"
    assert [r.mode.value for r in status.results] == ["PerformanceOnly", "AccuracyOnly"]
    assert status.artifacts is not None
    assert UID in status.artifacts.path
    kept = (status.artifacts.manifest_sha256, status.artifacts.uploaded_to, status.artifacts.upload_error)
    assert kept == ("ab" * 32, "s3://b/p", "cut")


UPLOAD = {"s3": {"endpoint": "https://store", "bucket": "results", "credentialsSecret": {"name": "keys"}}}


@pytest.mark.parametrize(
    ("kept", "upload", "said"),
    [
        (Kept("ab" * 32), UPLOAD, "collect did not say that the copy is whole"),
        (None, UPLOAD, "collect did not say that the copy is whole"),
        (Kept("ab" * 32, "https://store/results/x"), UPLOAD, ""),
        (Kept("ab" * 32, None, "NoSuchBucket"), UPLOAD, "NoSuchBucket"),
        (Kept("ab" * 32), None, ""),
    ],
)
def test_an_ended_run_always_says_what_became_of_its_copy(
    kept: Kept | None, upload: dict[str, Any] | None, said: str
) -> None:
    report = Report(_results(result(), result(mode="AccuracyOnly")), kept=kept) if kept is not None else None
    observed = Observed(job=job(outcome="Complete", ended_at=NOW), report=report, report_error="" if kept else "lost")
    status = _next(observed, benchmarks=OFFLINE, upload=upload)
    assert is_finished(status)
    assert status.artifacts is not None
    error = status.artifacts.upload_error or ""
    assert said in error
    assert bool(said) == bool(error)


def test_a_run_under_way_says_nothing_yet_of_its_copy() -> None:
    status = _next(Observed(job=job(), pods=(pod(up_to("build")),)), upload=UPLOAD)
    assert status.artifacts is not None
    assert status.artifacts.upload_error is None


@pytest.mark.parametrize(
    ("spec", "claim", "path"),
    [
        ({}, None, f".mlperf/runs/{UID}/results"),
        ({"scratch": {"claimName": "big"}}, "big", f".mlperf/runs/{UID}/results"),
        ({"results": {"claimTemplate": {"size": "1Gi"}}}, "demo-results", f"bench/demo/{UID}"),
        ({"results": {"hostPath": {"path": "/mnt/r/"}}}, None, f"/mnt/r/bench/demo/{UID}"),
    ],
)
def test_artifacts_name_a_folder_that_only_this_uid_has(spec: dict[str, Any], claim: str | None, path: str) -> None:
    status = _next(Observed(job=job()), **spec)
    assert status.artifacts is not None
    assert (status.artifacts.claim, status.artifacts.path) == (claim, path)


def test_a_failed_run_keeps_the_results_that_there_are() -> None:
    ended = job(outcome="Failed", reason="PodFailurePolicy", ended_at=NOW)
    observed = Observed(
        job=ended, pods=(pod([*up_to("run")[:7], failed("run")], phase="Failed"),), report=Report(_results(result()))
    )
    status = _next(observed, benchmarks=OFFLINE, testModes=["PerformanceOnly"])
    assert is_finished(status)
    assert status.stage == "run"
    assert [r.validity for r in status.results] == ["VALID"]


def test_a_second_pod_counts_as_a_second_attempt_and_is_counted_once() -> None:
    first, second = pod(up_to("run")), pod(up_to("code"), name="demo-zzzzz", created_at=NOW + timedelta(seconds=9))
    status = _next(Observed(job=job(), pods=(first, second)), {"podName": "demo-abcde", "attempts": 1})
    assert (status.attempts, status.pod_name) == (2, "demo-zzzzz")
    again = _next(Observed(job=job(), pods=(first, second)), to_wire(status))
    assert again.attempts == 2


def test_what_was_known_of_a_run_outlives_its_job_and_pod() -> None:
    known = {"jobName": "demo", "podName": "demo-1", "node": "node-7", "configDigest": "abc", "attempts": 2}
    status = to_wire(_next(Observed(config_digest="other"), known))
    assert {key: status[key] for key in known} == known


def _looked(facts: Any, node: str = "node-1", code: int = 0) -> PodRecord:
    message = json.dumps({"stage": "preflight", "reason": "Completed", "message": "", "facts": facts})
    record = replace(done("preflight"), message=message, exit_code=code)
    return pod([done("code"), record, running("prebuild")], node=node)


SEEN = {"driver": "550.54.14", "product": "NVIDIA A100-SXM4-40GB", "count": 8}


@pytest.mark.parametrize("code", [0, 64])
def test_what_preflight_saw_stands_in_the_status_and_stays(code: int) -> None:
    first = to_wire(_next(Observed(job=job(), pods=(_looked(SEEN, code=code),))))
    assert first["driver"] == {"version": "550.54.14"}
    assert first["gpu"] == {"product": "NVIDIA A100-SXM4-40GB", "count": 8}
    for later in (Observed(job=job()), Observed(job=job(), pods=(pod(up_to("preflight")),))):
        status = to_wire(_next(later, first))
        assert (status["driver"], status["gpu"]) == (first["driver"], first["gpu"])


def test_another_pod_on_another_node_takes_along_what_was_known_of_the_first() -> None:
    first = to_wire(_next(Observed(job=job(), pods=(_looked(SEEN),))))
    status = _next(Observed(job=job(), pods=(pod(up_to("preflight"), node="node-2"),)), first)
    assert (status.driver, status.gpu) == (None, None)
    status = _next(Observed(job=job(), pods=(_looked({**SEEN, "count": 4}, node="node-2"),)), first)
    assert status.gpu is not None
    assert status.gpu.count == 4


VIEW = DriverView(
    node="node-1",
    ready=True,
    working=False,
    claimed=True,
    reason="Matched",
    message="",
    version="535.161.08",
    fabric_manager="535.161.08",
    managed_by="mlperf-operator",
)


def test_the_nodes_driver_pod_adds_what_only_the_host_shows() -> None:
    status = _next(Observed(job=job(), driver=VIEW))
    told = {"version": "535.161.08", "fabricManagerVersion": "535.161.08", "managedBy": "mlperf-operator"}
    assert to_wire(status)["driver"] == told
    both = _next(Observed(job=job(), pods=(_looked(SEEN),), driver=VIEW), to_wire(status))
    assert to_wire(both)["driver"] == {**told, "version": "550.54.14"}
    # The view is of a node that the run's pod is not on.
    other = _next(Observed(job=job(), pods=(_looked(SEEN, node="node-2"),), driver=VIEW), to_wire(both))
    assert to_wire(other)["driver"] == {"version": "550.54.14"}


@pytest.mark.parametrize(
    "facts",
    [
        None,
        [1],
        "550",
        {"driver": 550, "product": 1, "count": "8"},
        {"driver": "550", "product": "", "count": -1},
        {"driver": "550.54; rm", "product": "a\nb", "count": True},
        {"driver": "5." + "5" * 200, "product": "x" * 129, "count": 10**9},
    ],
)
def test_facts_that_are_none_are_left_out(facts: Any) -> None:
    # They come out of the user's image.
    status = _next(Observed(job=job(), pods=(_looked(facts),)))
    assert (status.driver, status.gpu) == (None, None)


def test_a_first_pod_that_waits_shows_what_its_containers_say() -> None:
    before = to_wire(_next(Observed(job=job())))
    stuck = pod([waiting("code", "ErrImagePull", "no such image")])
    assert _next(Observed(job=job(), pods=(stuck,)), before).stages[0].message == "ErrImagePull: no such image"


def test_a_suspended_run_keeps_what_its_stages_said() -> None:
    before = to_wire(_next(Observed(job=job(), pods=(pod(up_to("build")),))))
    status = _next(Observed(job=job(suspend=True)), before)
    states = {stage.name: stage.state for stage in status.stages}
    assert states["code"] is StageState.COMPLETED
    assert states["build"] is StageState.PENDING


def test_a_refused_run_is_finished_at_once() -> None:
    status = refused_status(run(), Refusal("UnknownSuite", "no such suite"), NOW)
    assert is_finished(status)
    assert status.summary == "UnknownSuite"
    assert status.job_name is None


def test_the_summary_names_the_variant_only_when_there_are_several() -> None:
    one = _results(result(), result("SingleStream", metric={"name": "l", "value": 1234567.0, "unit": "ns"}))
    assert summarize(one) == "Offline 1234.5 samples/s, SingleStream 1.235 ms"
    two = _results(result(), result(variant="bert-99"))
    assert summarize(two) == "digits-99 Offline 1234.5 samples/s, bert-99 Offline 1234.5 samples/s"
    none = _results(result(metric=None, validity=None, missing="nothing"))
    assert summarize(none) == "Offline none"


def test_events_tell_each_step_once() -> None:
    start = MLPerfRunStatus()
    first = _next(Observed(job=job(), pods=(pod(up_to("preflight")),)))
    told = [(note.kind, note.reason) for note in notes(start, first)]
    assert told == [
        ("Normal", "JobCreated"),
        ("Normal", "StageStarted"),
        ("Normal", "AcceptedTrue"),
    ]
    assert notes(first, first) == []


def _story(moments: list[Observed]) -> list[Note]:
    told, before = [], MLPerfRunStatus()
    for number, observed in enumerate(moments):
        after = _next(observed, to_wire(before), number * 60, testModes=["PerformanceOnly"], benchmarks=OFFLINE)
        told += notes(before, after)
        before = after
    return told


def test_a_run_from_start_to_end_is_told_in_a_dozen_events() -> None:
    order = [*PREPARE_STAGES, "run"]
    moments = [Observed(), Observed(job=job())]
    for number, name in enumerate(order):
        moments.append(Observed(job=job(), pods=(pod(up_to(name)),)))
        ended = [*(done(stage, at=NOW) for stage in order[: number + 1]), *map(waiting, order[number + 1 :])]
        moments.append(Observed(job=job(), pods=(pod(ended),)))
    whole = (pod([*map(done, order)], phase="Succeeded"),)
    report = Report(results=_results(result()))
    moments.append(Observed(job=job(outcome="Complete", ended_at=NOW), pods=whole, report=report))
    told = _story(moments)
    assert [note.reason for note in told] == [
        *("AcceptedTrue", "JobCreated"),
        *["StageStarted"] * len(order),
        *("StageCompleted", "SucceededTrue"),
    ]
    assert len(told) <= 12
    assert {note.kind for note in told} == {"Normal"}
    starts = [note.message for note in told if note.reason == "StageStarted"]
    assert [text.split()[1] for text in starts] == order
    assert all(f"{before} is done" in text for before, text in zip(order, starts[1:], strict=False))
    assert told[-2].message == "run is done after 0 s"
    assert "Offline 1234.5 samples/s; LoadGen says VALID for 1 of 1" in told[-1].message


def _stage(name: str, state: str, seconds: int = 0) -> dict[str, Any]:
    ended = {
        "startedAt": "2026-01-02T03:00:00Z",
        "finishedAt": format_time(datetime(2026, 1, 2, 3, 0, tzinfo=UTC) + timedelta(seconds=seconds)),
    }
    return {"name": name, "state": state, **(ended if state in ("Completed", "Failed") else {})}


def _stages(*stages: dict[str, Any]) -> MLPerfRunStatus:
    return MLPerfRunStatus.model_validate({"stages": stages})


@pytest.mark.parametrize(
    ("seconds", "spoken"), [(7, "7 s"), (252, "4 min 12 s"), (7 * 3600 + 61, "7 h 1 min")], ids=str
)
def test_the_end_of_a_stage_is_told_with_the_begin_of_the_next(seconds: int, spoken: str) -> None:
    under_way = _stages(_stage("code", "Running"), _stage("preflight", "Pending"))
    between = _stages(_stage("code", "Completed", seconds), _stage("preflight", "Pending"))
    later = _stages(_stage("code", "Completed", seconds), _stage("preflight", "Running"))
    assert notes(under_way, between) == []
    told = [Note("Normal", "StageStarted", f"stage preflight started; code is done after {spoken}")]
    assert notes(between, later) == notes(under_way, later) == told


def test_stages_that_were_too_quick_to_be_seen_running_are_told_at_once() -> None:
    before = _stages(_stage("code", "Pending"), _stage("preflight", "Pending"), _stage("run", "Pending"))
    after = _stages(_stage("code", "Completed", 1), _stage("preflight", "Skipped"), _stage("run", "Pending"))
    assert notes(before, after) == [Note("Normal", "StageCompleted", "code is done after 1 s; preflight was skipped")]


def test_a_failure_is_told_as_a_warning_with_its_last_lines() -> None:
    before = _next(Observed(job=job(), pods=(pod(up_to("build")),)))
    ended = job(outcome="Failed", ended_at=NOW)
    after = _next(Observed(job=ended, pods=(pod([*up_to("build")[:6], failed("build")], phase="Failed"),)))
    warnings = {note.reason: note.message for note in notes(before, after) if note.kind == "Warning"}
    assert set(warnings) == {"StageFailed", "SucceededFalse"}
    assert "last line" in warnings["StageFailed"]


def test_a_replaced_pod_is_told() -> None:
    old = MLPerfRunStatus(pod_name="a", job_name="demo")
    assert [n.reason for n in notes(old, MLPerfRunStatus(pod_name="b", job_name="demo"))] == ["PodReplaced"]


def test_waiting_for_a_reason_of_note_is_told_while_it_lasts() -> None:
    before = _next(Observed(job=job(), pods=(pod(),)))
    after = _next(Observed(job=job(), pods=(pod(unschedulable="0/1 nodes: Insufficient nvidia.com/gpu"),)))
    assert [(n.kind, n.reason) for n in notes(before, after)] == [("Warning", "GPUNotAllocatable")]


@pytest.mark.parametrize(
    "reason", ["Queued", "Resuming", "Collecting", "Ending", "WaitingForDeletion", "PodNotCreated"]
)
def test_waiting_that_asks_nothing_of_anybody_is_no_warning(reason: str) -> None:
    unknown = [{"type": "Succeeded", "status": "Unknown", "reason": reason}]
    assert notes(MLPerfRunStatus(), MLPerfRunStatus.model_validate({"conditions": unknown})) == []


def test_the_same_event_has_the_same_name_and_fits_the_api() -> None:
    note = notes(MLPerfRunStatus(), _next(Observed(job=job())))[0]
    first, again = event(run(), note, NOW, 1), event(run(), note, NOW + timedelta(hours=1), 1)
    assert first["metadata"]["name"] == again["metadata"]["name"]
    assert len(event(run(), type(note)("Normal", "R", "x" * 9999), NOW, 1)["message"]) == 1024
