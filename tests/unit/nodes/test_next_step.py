"""What a node needs next, from each state that it can be in."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mlperf_operator.driver_report import MANAGED_HERE, Reason, encode
from mlperf_operator.nodes import state
from mlperf_operator.nodes.claims import Claim
from mlperf_operator.nodes.next_step import needs_gpu_pods, next_step
from mlperf_operator.nodes.prepare import BUSY_RECHECK
from mlperf_operator.nodes.records import DriverPodRecord, NodeRecord
from mlperf_operator.nodes.state import NodeState, Phase
from mlperf_operator.nodes.step import RECHECK, GpuPod, Step, World
from mlperf_operator.nodes.watch import UNREADY_GRACE
from mlperf_operator.observed import format_time
from unit.core.builders import NOW
from unit.nodes.builders import (
    EMPTY,
    NEW,
    OLD,
    SETTINGS,
    annotated,
    cordoned,
    driver,
    driver_pod,
    labelled,
    node,
    report,
    told,
    world,
)

CLAIM = Claim(NEW, {"uid-a": "bench/a"})
OTHERS_POD = GpuPod("team", "train", "uid-t", is_run=False)
OUR_POD = GpuPod("bench", "demo-x", "uid-x", is_run=True)
READY = labelled(node(gpus=8), wanted=NEW, loaded=NEW, ready=NEW)
WANTED = cordoned(labelled(node(), wanted=NEW), by_us=True)


def _step(record: NodeRecord, after: timedelta = timedelta(0), **changes: Any) -> Step:
    return next_step(world(record, **changes), NOW + after)


def _said(step: Step) -> tuple[Phase, str]:
    assert step.report is not None
    return step.report.phase, step.report.reason


def _message(step: Step) -> str:
    return step.report.message if step.report is not None else ""


def _labels(step: Step) -> tuple[str | None, str | None, str | None]:
    return step.wanted, step.loaded, step.ready


NOTHING = (None, None, None)


# Nodes that are not ours

MANAGED: dict[str, Any] = {"managed": "NVIDIA's GPU operator (label a=b)"}


@pytest.mark.parametrize("opt_in", ["install", "adopt"])
def test_a_node_that_somebody_manages_loses_all_that_is_ours(opt_in: str) -> None:
    begun = told(
        cordoned(labelled(node(opt_in=opt_in), wanted=NEW, loaded=NEW, ready=NEW), by_us=True), Phase.READY, "x"
    )
    step = _step(begun, claim=CLAIM, **MANAGED)
    assert _labels(step) == NOTHING
    assert not step.cordon
    assert step.daemon_set is None
    assert _said(step) == (Phase.WAITING, "NodeManaged")
    assert "label a=b" in _message(step)


def test_a_node_whose_opt_in_went_loses_all_that_is_ours_and_says_why() -> None:
    begun = told(cordoned(labelled(node(opt_in=None), wanted=NEW), by_us=True), Phase.WORKING, "DriverInstalling")
    step = _step(begun, claim=CLAIM)
    assert (_labels(step), step.cordon, _said(step)) == (NOTHING, False, (Phase.WAITING, "NodeNotOptedIn"))


@pytest.mark.parametrize("changes", [MANAGED, {}])
def test_of_a_node_that_we_never_touched_nothing_is_said(changes: dict[str, Any]) -> None:
    assert _step(node(opt_in=None), pods=(), **changes) == Step(report=None)


def test_a_run_that_claimed_a_node_hears_that_it_is_managed_although_nothing_was_said_before() -> None:
    step = _step(node(), claim=CLAIM, pods=(), **MANAGED)
    assert _said(step) == (Phase.WAITING, "NodeManaged")
    assert step.report is not None
    assert step.report.version == NEW


# Nodes that nobody wants


def test_an_opted_in_node_that_nobody_claims_is_left_as_it_is() -> None:
    assert _step(node(), pods=()) == Step(report=None)
    ready = told(node(), Phase.FAILED, "DiskFull", version=NEW)
    assert _said(_step(ready, pods=())) == (Phase.FAILED, "DiskFull")


def test_what_was_begun_for_runs_that_ended_is_taken_back() -> None:
    begun = told(cordoned(node(), by_us=True), Phase.WORKING, "DriverInstalling", version=NEW)
    step = _step(begun, pods=())
    assert (_labels(step), step.cordon, _said(step)) == (NOTHING, False, (Phase.WAITING, "DriverNotWanted"))
    assert NEW in _message(step)


def test_a_change_that_nobody_wants_any_more_goes_back_to_the_driver_that_is_there() -> None:
    ready = labelled(cordoned(node(), by_us=True), wanted=OLD, loaded=OLD, ready=OLD)
    ready = told(ready, Phase.READY, "Matched", version=OLD, driver=OLD, managed_by=MANAGED_HERE)
    emptied = _after(_step(ready, claim=CLAIM, pods=(), gpu_pods=()), ready)
    step = _step(emptied, pods=())
    assert (step.wanted, _said(step)) == (OLD, (Phase.WORKING, "DriverInstalling"))
    assert step.daemon_set == ("Install", driver(OLD))


def _left(reason: str = "DiskFull", **fields: Any) -> NodeRecord:
    """Return a node on which a change to the newer driver failed, and which has the older one still."""
    return told(node(), Phase.FAILED, reason, **{"version": NEW, "driver": OLD, "managed_by": MANAGED_HERE, **fields})


def test_after_a_change_that_failed_the_driver_that_the_node_still_has_is_watched_again() -> None:
    step = _step(_left(retry_at=format_time(NOW)), pods=())
    assert (_labels(step), step.cordon, step.again) == ((OLD, None, None), False, RECHECK)
    assert step.daemon_set == ("Install", driver(OLD))
    assert _said(step) == (Phase.WORKING, "DriverInstalling")
    assert step.report is not None
    assert (step.report.version, step.report.retry_at) == (OLD, None)
    pod = driver_pod(version=OLD, digest="")
    watched = _step(replace(_after(step, node()), gpus=8), pods=(pod,), told=report(driver=OLD), digest="")
    assert (_labels(watched), _said(watched)) == ((OLD, OLD, OLD), (Phase.READY, "Matched"))


NOT_AGAIN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("the node has none", {"driver": None}, {}),
    ("somebody else's", {"managed_by": "host"}, {}),
    ("nobody's", {"managed_by": None}, {}),
    ("it has what failed", {"driver": NEW}, {}),
    ("not in the catalogue", {}, {"catalogue": SETTINGS.model_copy(update={"drivers": (driver(NEW),)})}),
    ("a branch is no version", {"driver": "535"}, {}),
    ("the runs still wait", {"retry_at": format_time(NOW + timedelta(seconds=9))}, {"claim": CLAIM}),
]


@pytest.mark.parametrize(("case", "fields", "changes"), NOT_AGAIN, ids=[case[0] for case in NOT_AGAIN])
def test_no_other_driver_is_watched_after_a_failure(case: str, fields: dict[str, Any], changes: dict[str, Any]) -> None:
    step = _step(_left(**fields), pods=(), **changes)
    assert (_labels(step), step.cordon, step.daemon_set) == (NOTHING, False, None), case
    assert _said(step) == (Phase.FAILED, "DiskFull")


# Making a node ready: cordon, look, label


@pytest.mark.parametrize("gpu_pods", [None, ()], ids=["not looked", "none seen"])
def test_a_claimed_node_is_cordoned_before_it_counts_that_no_pod_has_a_gpu(gpu_pods: tuple[GpuPod, ...] | None) -> None:
    first = _step(node(), claim=CLAIM, pods=(), gpu_pods=gpu_pods)
    assert (first.cordon, first.wanted, first.daemon_set, first.again) == (True, None, None, RECHECK)
    assert _said(first) == (Phase.WORKING, "DriverInstalling")
    second = _step(cordoned(node(), by_us=True), claim=CLAIM, pods=(), gpu_pods=())
    assert (second.cordon, second.wanted, second.daemon_set) == (True, NEW, ("Install", driver(NEW)))


def test_the_pods_with_gpus_are_asked_for_only_where_the_answer_counts() -> None:
    assert needs_gpu_pods(world(node(), claim=CLAIM))
    assert not needs_gpu_pods(world(READY, claim=CLAIM))
    assert not needs_gpu_pods(world(node()))
    assert not needs_gpu_pods(world(node(opt_in="verify"), claim=CLAIM))
    assert not needs_gpu_pods(world(node(opt_in=None), claim=CLAIM))
    assert not needs_gpu_pods(world(node(), claim=CLAIM, **MANAGED))
    assert needs_gpu_pods(world(READY, digest="newer"))
    assert not needs_gpu_pods(world(READY, digest="newer", claim=CLAIM))


HAS_OLD = labelled(node(gpus=8), wanted=OLD, loaded=OLD, ready=OLD)
OLD_POD = driver_pod(version=OLD, uid="old-pod", report=encode(report(driver=OLD)))
CHANGES: dict[str, Any] = {"claim": CLAIM, "pods": (OLD_POD,), "told": report(driver=OLD), "digest": "of the new one"}
KEPT = (OLD, OLD, OLD)


def test_a_node_that_is_to_change_keeps_its_labels_and_its_daemon_set_until_it_is_closed_and_idle() -> None:
    closing = _step(HAS_OLD, **CHANGES, gpu_pods=())
    assert (_labels(closing), closing.cordon, closing.again) == (KEPT, True, RECHECK)
    assert (closing.daemon_set, closing.delete) == (("Install", driver(OLD)), ())
    assert (_said(closing), _message(closing)[:14]) == ((Phase.WORKING, "DriverInstalling"), "it is cordoned")
    assert closing.report is not None
    assert closing.report.version == NEW
    closed = _step(cordoned(HAS_OLD, by_us=True), **CHANGES, gpu_pods=())
    assert (_labels(closed), closed.cordon, closed.again) == (NOTHING, True, RECHECK)
    assert "ends first" in _message(closed)


def test_an_old_driver_pod_whose_host_stopped_matching_keeps_the_node_as_it_is_while_others_are_waited_for() -> None:
    said = report(ready=False, reason="GPUMissing", driver=OLD)
    looks: dict[str, Any] = {**CHANGES, "pods": (replace(OLD_POD, ready=False),), "told": said, "somebody_waits": True}
    since = told(HAS_OLD, Phase.FAILED, "GPUMissing", version=OLD, since=format_time(NOW))
    step = _step(since, UNREADY_GRACE, **looks, gpu_pods=(OTHERS_POD,))
    assert (_labels(step), step.cordon, step.again) == ((OLD, OLD, None), False, BUSY_RECHECK)
    assert _said(step) == (Phase.WAITING, "GPUInUse")


def test_one_driver_is_never_wanted_right_after_another_one() -> None:
    step = _step(cordoned(HAS_OLD, by_us=True), **{**CHANGES, "pods": ()}, gpu_pods=())
    assert (_labels(step), step.cordon) == (NOTHING, True)


def test_the_driver_pod_that_was_there_ends_before_the_new_one_is_let_in() -> None:
    left = cordoned(node(), by_us=True)
    for deleting in (False, True):
        step = _step(left, **{**CHANGES, "pods": (replace(OLD_POD, deleting=deleting),)}, gpu_pods=())
        assert (_labels(step), step.cordon, step.again) == (NOTHING, True, RECHECK)
    gone = _step(left, **{**CHANGES, "pods": ()}, gpu_pods=())
    assert (_labels(gone), gone.cordon, gone.daemon_set) == ((NEW, None, None), True, ("Install", driver(NEW)))


def test_a_pause_after_a_failure_comes_before_everything_else() -> None:
    due = told(node(), Phase.FAILED, "DiskFull", version=NEW, retry_at=format_time(NOW + timedelta(seconds=9)))
    for changes in ({"gpu_pods": (OTHERS_POD,), "evict": True}, {"gpu_pods": ()}, {"catalogue": EMPTY}):
        step = _step(due, claim=CLAIM, pods=(), **changes)
        assert (_labels(step), step.cordon, step.evict, step.again) == (NOTHING, False, (), timedelta(seconds=9))
        assert _said(step) == (Phase.FAILED, "DiskFull")


def test_a_driver_that_left_the_catalogue_leaves_the_node_with_the_one_that_it_has() -> None:
    only_old = SETTINGS.model_copy(update={"drivers": (driver(OLD),)})
    for gpu_pods in ((), (OTHERS_POD,)):
        step = _step(HAS_OLD, **CHANGES, catalogue=only_old, gpu_pods=gpu_pods, evict=True)
        assert (_labels(step), step.cordon, step.evict) == (KEPT, False, ())
        assert _said(step) == (Phase.WAITING, "DriverNotInCatalogue")
        assert OLD in _message(step)


def test_a_driver_that_left_the_catalogue_is_not_brought_and_the_node_is_not_kept_closed() -> None:
    step = _step(cordoned(node(), by_us=True), claim=CLAIM, pods=(), gpu_pods=(), catalogue=EMPTY)
    assert (_labels(step), step.cordon, step.daemon_set) == (NOTHING, False, None)
    assert _said(step) == (Phase.WAITING, "DriverNotInCatalogue")
    assert "possible: none" in _message(step)


@pytest.mark.parametrize("record", [HAS_OLD, cordoned(HAS_OLD, by_us=True)], ids=["open", "cordoned"])
def test_pods_with_gpus_are_evicted_where_that_is_allowed(record: NodeRecord) -> None:
    step = _step(record, **CHANGES, gpu_pods=(OTHERS_POD,), evict=True)
    assert (step.evict, step.cordon, step.again) == ((OTHERS_POD,), True, RECHECK)
    assert _labels(step) == KEPT
    assert _said(step) == (Phase.WORKING, "DriverDraining")
    assert "team/train" in _message(step)


OCCUPIED: list[tuple[str, tuple[GpuPod, ...], bool, str]] = [
    ("others and no leave", (OTHERS_POD,), False, "driver.evictGpuPods"),
    ("a run of ours and leave", (OUR_POD,), True, "never evicted"),
    ("both and leave", (OTHERS_POD, OUR_POD), True, "never evicted"),
    ("both and no leave", (OTHERS_POD, OUR_POD), False, "never evicted"),
]


@pytest.mark.parametrize("record", [HAS_OLD, cordoned(HAS_OLD, by_us=True)], ids=["open", "cordoned"])
@pytest.mark.parametrize(("case", "pods", "evict", "word"), OCCUPIED, ids=[case[0] for case in OCCUPIED])
def test_a_node_in_use_stays_open_with_what_it_has_and_is_looked_at_again(
    case: str, pods: tuple[GpuPod, ...], evict: bool, word: str, record: NodeRecord
) -> None:
    step = _step(record, **CHANGES, gpu_pods=pods, evict=evict)
    assert (step.evict, step.cordon, _labels(step)) == ((), False, KEPT), case
    assert step.again == BUSY_RECHECK == timedelta(seconds=15)
    assert _said(step) == (Phase.WAITING, "GPUInUse")
    assert word in _message(step)
    assert str(pods[0]) in _message(step)


def test_to_wait_for_pods_is_no_attempt() -> None:
    tried = told(node(), Phase.WORKING, "DriverInstalling", version=NEW, attempts=2)
    for _ in range(3):
        step = _step(tried, claim=CLAIM, pods=(), gpu_pods=(OTHERS_POD,))
        assert step.report is not None
        assert (step.report.attempts, step.report.retry_at) == (2, None)
        tried = _after(step, tried)


def test_of_many_pods_the_first_are_named() -> None:
    many = tuple(GpuPod("team", f"p{n}", f"u{n}", is_run=False) for n in range(7))
    step = _step(cordoned(node(), by_us=True), claim=CLAIM, pods=(), gpu_pods=many)
    assert "team/p4 and 2 more" in _message(step)
    assert "team/p5" not in _message(step)


# Attempts


def _failed(message: str = "disk") -> DriverPodRecord:
    said = encode(report(ready=False, reason=Reason.DISK_FULL.value, message=message, driver=None))
    return driver_pod(ensured=False, ready=False, failed=True, report=said)


def test_a_driver_pod_at_work_is_waited_for_behind_our_cordon() -> None:
    step = _step(WANTED, claim=CLAIM, pods=(driver_pod(ensured=False, ready=False),), told=None)
    assert (_labels(step), step.cordon, step.again) == ((NEW, None, None), True, RECHECK)
    assert (_said(step), _message(step)) == ((Phase.WORKING, "DriverInstalling"), "its driver pod is at work")


def test_a_driver_pod_that_has_not_come_is_waited_for() -> None:
    step = _step(WANTED, claim=CLAIM, pods=(), told=None)
    assert (_labels(step), step.cordon, step.again) == ((NEW, None, None), True, RECHECK)
    assert step.daemon_set == ("Install", driver(NEW))
    assert "has not come yet" in _message(step)


def test_what_keeps_a_driver_pod_from_starting_is_passed_on() -> None:
    pod = driver_pod(ensured=False, ready=False, waits_for="ImagePullBackOff: no such image")
    step = _step(WANTED, claim=CLAIM, pods=(pod,), told=None)
    assert (_said(step), _message(step)) == ((Phase.WORKING, "DriverPodBlocked"), "ImagePullBackOff: no such image")
    assert step.cordon


def test_a_failed_attempt_takes_the_pod_away_opens_the_node_and_says_what_the_pod_said() -> None:
    step = _step(WANTED, claim=CLAIM, pods=(_failed(),), told=None)
    assert (_labels(step), step.cordon, step.daemon_set) == (NOTHING, False, None)
    assert (_said(step), _message(step)) == ((Phase.FAILED, "DiskFull"), "disk")
    assert step.again == timedelta(seconds=30)
    assert step.report is not None
    assert (step.report.version, step.report.attempts) == (NEW, 1)


def test_an_attempt_without_a_report_names_its_pod() -> None:
    pod = driver_pod(ensured=False, ready=False, failed=True, report="Traceback")
    step = _step(WANTED, claim=CLAIM, pods=(pod,), told=None)
    assert _said(step) == (Phase.FAILED, "InstallFailed")
    assert pod.name in _message(step)


def _after(step: Step, record: NodeRecord) -> NodeRecord:
    """Return a node as a step's patch leaves it."""
    text = state.write(step.report)
    assert text is not None
    left = labelled(record, wanted=step.wanted, loaded=step.loaded, ready=step.ready)
    return annotated(left, {"mlperf.dev/driver-report": text})


KILLED = driver_pod(ensured=False, ready=False, failed=True, report="", killed=True)


def test_a_driver_pod_that_was_killed_is_tried_again_at_a_pause_that_does_not_double() -> None:
    record = told(WANTED, Phase.WORKING, "DriverInstalling", version=NEW, attempts=3)
    for _ in range(4):
        step = _step(record, claim=CLAIM, pods=(KILLED,), told=None)
        assert (_labels(step), step.cordon, step.again) == (NOTHING, False, timedelta(seconds=30))
        assert _said(step) == (Phase.FAILED, "Interrupted")
        assert f"{KILLED.name} was killed" in _message(step)
        assert step.report is not None
        assert step.report.attempts == 3
        record = _after(step, WANTED)
    other = told(WANTED, Phase.FAILED, "DiskFull", version=OLD, attempts=5)
    step = _step(other, claim=CLAIM, pods=(KILLED,), told=None)
    assert step.report is not None
    assert step.report.attempts == 0


def test_a_driver_pod_that_said_itself_that_it_was_interrupted_is_treated_alike_and_another_reason_is_not() -> None:
    for reason, pause in ((Reason.INTERRUPTED, 30), (Reason.DISK_FULL, 120)):
        pod = replace(KILLED, report=encode(report(ready=False, reason=reason.value)))
        step = _step(told(WANTED, Phase.WORKING, "x", version=NEW, attempts=2), claim=CLAIM, pods=(pod,), told=None)
        assert (_said(step)[1], step.again) == (reason.value, timedelta(seconds=pause))


def test_attempts_come_at_pauses_that_double_up_to_ten_minutes() -> None:
    record, now, waits = node(), NOW, []
    for _ in range(7):
        failed = next_step(
            world(_after(Step(_report(record), wanted=NEW), WANTED), claim=CLAIM, pods=(_failed(),)), now
        )
        assert failed.again is not None
        waits.append(failed.again)
        record = _after(failed, node())
        early = next_step(world(record, claim=CLAIM, pods=(), gpu_pods=None), now + failed.again - timedelta(seconds=1))
        assert (early.cordon, _labels(early), early.again) == (False, NOTHING, timedelta(seconds=1))
        assert _said(early) == _said(failed)
        now += failed.again
        begun = next_step(world(record, claim=CLAIM, pods=(), gpu_pods=None), now)
        assert begun.cordon
        record = _after(begun, record)
    assert [int(wait.total_seconds()) for wait in waits] == [30, 60, 120, 240, 480, 600, 600]


def _report(record: NodeRecord) -> NodeState:
    return state.read(record.annotations) or NodeState(phase=Phase.WORKING, reason="DriverInstalling", version=NEW)


def test_the_pause_of_another_version_is_not_waited_for() -> None:
    due = told(node(), Phase.FAILED, "DiskFull", version=OLD, retry_at=format_time(NOW + timedelta(hours=1)))
    assert _step(due, claim=CLAIM, pods=(), gpu_pods=None).cordon


# Ready


def test_a_node_is_ready_only_when_every_gpu_that_was_found_is_allocatable() -> None:
    full = cordoned(labelled(node(gpus=8), wanted=NEW), by_us=True)
    step = _step(full, claim=CLAIM)
    assert (_labels(step), step.cordon, step.again) == ((NEW, NEW, NEW), False, None)
    assert _said(step) == (Phase.READY, "Matched")
    assert step.report is not None
    assert (step.report.driver, step.report.gpus, step.report.fabric_manager) == (NEW, 8, NEW)


@pytest.mark.parametrize("gpus", [0, 7, 9])
def test_a_driver_that_works_is_loaded_while_the_device_plugin_is_awaited(gpus: int) -> None:
    step = _step(cordoned(labelled(node(gpus=gpus), wanted=NEW), by_us=True), claim=CLAIM)
    assert (_labels(step), step.cordon, step.again) == ((NEW, NEW, None), False, RECHECK)
    assert _said(step) == (Phase.WAITING, "GPUNotAllocatable")
    assert f"{gpus} of 8 GPUs" in _message(step)


def test_a_node_without_a_gpu_is_never_ready() -> None:
    step = _step(labelled(node(gpus=0), wanted=NEW), claim=CLAIM, told=report(gpus=0))
    assert step.ready is None


def test_a_ready_node_stays_as_it_is_when_nobody_wants_it_any_more() -> None:
    step = _step(READY)
    assert (_labels(step), step.cordon) == ((NEW, NEW, NEW), False)
    assert step.daemon_set == ("Install", driver(NEW))


def test_without_its_log_a_ready_pod_is_believed_by_what_its_init_container_said() -> None:
    assert _step(READY, told=None).ready == NEW
    silent = _step(READY, told=None, pods=(driver_pod(report="torn"),))
    assert (silent.ready, silent.loaded, silent.wanted) == (None, None, NEW)
    assert "verifies" in _message(silent)


@pytest.mark.parametrize("said", [report(ready=False, reason="GPUMissing"), report(driver=None)])
def test_a_ready_pod_whose_last_word_is_another_makes_no_node_ready(said: Any) -> None:
    step = _step(READY, told=said)
    assert (step.ready, step.again) == (None, RECHECK)


# Not ready any more

UNREADY = driver_pod(ready=False)
BROKEN = report(ready=False, reason="FabricManagerFailed", message="fabric manager is down", gpus=8)


def test_the_labels_are_taken_back_when_the_pod_is_unready_and_the_device_plugin_stays_while_the_driver_works() -> None:
    step = _step(READY, pods=(UNREADY,), told=BROKEN)
    assert (_labels(step), step.again) == ((NEW, NEW, None), RECHECK)
    assert (_said(step), _message(step)) == ((Phase.FAILED, "FabricManagerFailed"), "fabric manager is down")
    for other in (None, OLD):
        assert _step(READY, pods=(UNREADY,), told=report(ready=False, driver=other)).loaded is None


@pytest.mark.parametrize("said", [None, report()])
def test_a_pod_that_has_said_nothing_bad_yet_still_verifies(said: Any) -> None:
    step = _step(READY, pods=(UNREADY,), told=said)
    assert (_labels(step), _said(step), _message(step)) == (
        *((NEW, None, None), (Phase.WORKING, "DriverInstalling")),
        "its driver pod verifies",
    )


def test_a_verifying_container_that_crashes_is_told() -> None:
    crashing = driver_pod(ready=False, waits_for="CrashLoopBackOff: back-off 10s")
    step = _step(READY, pods=(crashing,), told=None)
    assert (_said(step)[1], _message(step)) == ("DriverPodBlocked", "CrashLoopBackOff: back-off 10s")


def test_a_node_that_stays_unready_is_put_right_for_a_run_that_waits_and_only_then() -> None:
    since = format_time(NOW)
    unready = told(READY, Phase.FAILED, "FabricManagerFailed", version=NEW, since=since, attempts=2)
    looks: dict[str, Any] = {"pods": (UNREADY,), "told": BROKEN, "claim": CLAIM}
    early = _step(unready, UNREADY_GRACE - timedelta(seconds=1), **looks, somebody_waits=True)
    assert (early.wanted, early.cordon) == (NEW, False)
    nobody = _step(unready, UNREADY_GRACE, **looks)
    assert nobody.wanted == NEW
    late = _step(unready, UNREADY_GRACE, **looks, somebody_waits=True)
    assert (_labels(late), _said(late)) == (NOTHING, (Phase.FAILED, "FabricManagerFailed"))
    assert late.report is not None
    assert (late.report.attempts, late.again) == (3, timedelta(seconds=120))


def test_an_unready_node_remembers_how_often_it_was_put_right() -> None:
    working = told(WANTED, Phase.WORKING, "DriverInstalling", version=NEW, attempts=3)
    step = _step(working, pods=(UNREADY,), told=BROKEN, claim=CLAIM)
    assert step.report is not None
    assert step.report.attempts == 3


# Nobody waits any more


def test_a_cordon_of_ours_ends_with_the_runs_unless_the_package_manager_may_be_at_work() -> None:
    at_work = _step(WANTED, pods=(driver_pod(ensured=False, ready=False),), told=None)
    assert (at_work.cordon, at_work.wanted) == (True, NEW)
    going = _step(WANTED, pods=(driver_pod(ensured=False, ready=False, deleting=True),), told=None)
    assert (going.cordon, going.wanted) == (True, NEW)
    verifies = _step(WANTED, pods=(UNREADY,), told=None)
    assert (verifies.cordon, verifies.wanted) == (False, NEW)


@pytest.mark.parametrize(
    "pods", [(), (driver_pod(ensured=False, ready=False, waits_for="ImagePullBackOff"),)], ids=["none", "blocked"]
)
def test_a_driver_pod_that_cannot_start_is_given_up_with_the_last_run_that_wanted_it(
    pods: tuple[DriverPodRecord, ...],
) -> None:
    step = _step(WANTED, pods=pods, told=None)
    assert (_labels(step), step.cordon, _said(step)) == (NOTHING, False, (Phase.WAITING, "DriverNotWanted"))
    assert step.daemon_set is None


def test_an_attempt_that_fails_after_the_last_run_is_not_repeated() -> None:
    step = _step(WANTED, pods=(_failed(),), told=None)
    assert (_labels(step), step.cordon, _said(step)) == (NOTHING, False, (Phase.FAILED, "DiskFull"))
    again = _step(_after(step, node()), pods=(), told=None)
    assert (_labels(again), again.cordon) == (NOTHING, False)


def test_a_watched_node_whose_pod_fails_after_a_reboot_stays_watched() -> None:
    step = _step(READY, pods=(_failed(),), told=None)
    assert (_labels(step), step.cordon, step.again) == ((NEW, None, None), False, None)
    assert _said(step) == (Phase.FAILED, "DiskFull")
    assert step.report is not None
    assert step.report.retry_at is None


# Replacing an older driver pod


@pytest.mark.parametrize(
    ("claim", "gpu_pods", "rolled"),
    [(Claim(), (), True), (Claim(), (OTHERS_POD,), False), (Claim(), None, False), (CLAIM, (), False)],
)
def test_an_older_driver_pod_is_replaced_on_an_idle_node_only(
    claim: Claim, gpu_pods: tuple[GpuPod, ...] | None, rolled: bool
) -> None:
    step = _step(READY, claim=claim, gpu_pods=gpu_pods, digest="newer")
    assert (step.delete == (driver_pod(),)) is rolled
    assert step.ready == (None if rolled else NEW)
    assert (step.wanted, step.loaded) == (NEW, NEW)


def test_a_pod_that_is_gone_already_or_is_of_another_daemon_set_is_not_what_is_replaced() -> None:
    gone = driver_pod(deleting=True)
    assert _step(READY, gpu_pods=(), digest="newer", pods=(gone,)).delete == ()
    other, mine = driver_pod(mode="Adopt", uid="other"), driver_pod(digest="newer")
    assert _step(READY, gpu_pods=(), digest="newer", pods=(other, mine)).delete == ()


def test_the_pod_of_a_driver_that_left_the_catalogue_goes_on_watching() -> None:
    step = _step(READY, catalogue=EMPTY, digest="", gpu_pods=())
    assert (_labels(step), step.delete, step.daemon_set) == ((NEW, NEW, NEW), (), None)


def test_a_pod_of_another_mode_does_not_count() -> None:
    adopted = labelled(node(opt_in="adopt", gpus=8), wanted=NEW, loaded=NEW, ready=NEW)
    step = _step(adopted)
    assert (_labels(step), step.daemon_set) == ((NEW, None, None), ("Adopt", driver(NEW)))


# Verify

VERIFIED = node(opt_in="verify", gpus=8)
LOOKS = driver_pod(mode="Verify", version="")


def test_verify_follows_whatever_driver_the_node_has() -> None:
    found = report(driver=OLD, fabric_manager=None, managed_by="host")
    step = _step(VERIFIED, pods=(LOOKS,), told=found)
    assert (_labels(step), step.daemon_set, step.cordon) == ((None, OLD, OLD), ("Verify", None), False)
    assert _said(step) == (Phase.READY, "Matched")
    unready = _step(
        labelled(VERIFIED, loaded=OLD, ready=OLD),
        pods=(driver_pod(mode="Verify", version="", ready=False),),
        told=BROKEN,
    )
    assert (unready.wanted, unready.ready) == (None, None)


def test_verify_looks_at_the_driver_of_a_manager_too_and_names_him_without_a_device_plugin_of_ours() -> None:
    found = report(driver=OLD, managed_by="host")
    record = labelled(VERIFIED, loaded=OLD)
    step = _step(record, pods=(LOOKS,), told=found, **MANAGED)
    assert (_labels(step), step.daemon_set, step.cordon) == ((None, None, OLD), ("Verify", None), False)
    assert _said(step) == (Phase.READY, "Matched")
    assert step.report is not None
    assert (step.report.managed_by, step.report.driver) == (MANAGED["managed"], OLD)
    assert _step(VERIFIED, pods=(LOOKS,), told=found).report != step.report


@pytest.mark.parametrize("said", [True, False])
def test_no_state_of_a_managed_node_that_is_only_verified_asks_for_our_device_plugin(*, said: bool) -> None:
    record = labelled(replace(VERIFIED, gpus=0), wanted=OLD, loaded=OLD, ready=OLD)
    record = told(record, Phase.READY, "Matched", driver=OLD) if said else record
    worlds: list[dict[str, Any]] = [
        {"pods": ()},
        {"pods": (LOOKS,), "told": report(driver=OLD)},
        {"pods": (LOOKS,), "told": report(driver=OLD), "digest": "newer"},
        {"pods": (replace(LOOKS, ready=False),), "told": report(ready=False, driver=OLD)},
        {"pods": (replace(LOOKS, ensured=False, failed=True),), "told": None},
    ]
    for looked in worlds:
        step = _step(record, **looked, **MANAGED)
        assert (_labels(step), step.cordon) == (NOTHING, False)
        assert step.report is None or step.report.managed_by == MANAGED["managed"]


def test_a_node_that_becomes_verify_only_is_not_wanted_and_not_closed_by_us_any_more() -> None:
    before = cordoned(labelled(VERIFIED, wanted=NEW, loaded=NEW, ready=NEW), by_us=True)
    for pods in ((), (driver_pod(ensured=False, ready=False, deleting=True),), (LOOKS,)):
        step = _step(before, pods=pods, told=None, claim=CLAIM)
        assert (step.wanted, step.cordon, step.daemon_set) == (None, False, ("Verify", None))


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (driver_pod(mode="Verify", version="", ready=False), BROKEN),
        (driver_pod(mode="Verify", version="", ready=False, ensured=False, failed=True, report="Traceback"), None),
    ],
    ids=["unready", "crashed"],
)
def test_verify_changes_nothing_and_so_never_starts_over(pod: DriverPodRecord, said: Any) -> None:
    """Each failure that is counted changes the node, which is looked at again at once: that would never end."""
    record, steps = VERIFIED, []
    for minute in range(3):
        look = world(record, pods=(pod,), told=said, claim=CLAIM, somebody_waits=True)
        step = next_step(look, NOW + timedelta(minutes=minute))
        steps.append(step)
        record = _after(step, record)
    assert steps[0] == steps[1] == steps[2]
    assert _said(steps[0])[0] is Phase.FAILED
    assert (_labels(steps[0]), steps[0].cordon) == (NOTHING, False)


def test_verify_replaces_an_older_pod_at_once() -> None:
    step = _step(VERIFIED, pods=(LOOKS,), digest="newer", claim=CLAIM, gpu_pods=(OUR_POD,))
    assert step.delete == (LOOKS,)


# Any state

STATES: list[World] = [
    world(record, claim=claim, pods=pods, told=said, gpu_pods=gpu_pods)
    for record in (node(), WANTED, READY, cordoned(node(), by_us=True), labelled(node(), wanted=OLD, ready=OLD))
    for claim in (Claim(), CLAIM)
    for pods in ((), (driver_pod(),), (UNREADY,), (_failed(),), (driver_pod(ensured=False, ready=False),))
    for said in (None, report(), BROKEN)
    for gpu_pods in (None, (), (OTHERS_POD,))
]


@pytest.mark.parametrize("looked", STATES, ids=map(str, range(len(STATES))))
def test_the_same_look_at_what_a_step_left_changes_nothing_more_without_time(looked: World) -> None:
    """Whatever is written wakes the node's own reconciliation: a report that always differs would never end."""
    record, found = looked.node, []
    for _ in range(6):
        step = next_step(World(**{**vars(looked), "node": record}), NOW)
        found.append(step)
        closed = step.cordon or (record.unschedulable and "mlperf.dev/driver-cordon" not in record.annotations)
        record = (
            _after(step, node(gpus=record.gpus))
            if step.report is not None
            else labelled(record, wanted=step.wanted, loaded=step.loaded, ready=step.ready)
        )
        record = cordoned(record, by_us=True) if closed else record
    assert found[-2].report == found[-1].report
    assert _labels(found[-2]) == _labels(found[-1])


def test_no_step_newly_wants_another_version_than_the_claims_and_an_old_value_may_stay() -> None:
    stayed = 0
    for looked in STATES:
        step = next_step(looked, NOW)
        assert step.wanted in (None, looked.version, looked.node.wanted)
        stayed += step.wanted not in (None, looked.version)
        assert not (step.evict and not looked.evict)
    assert stayed
    assert SETTINGS.find(NEW) is not None
