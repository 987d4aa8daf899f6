"""A node whose driver pod belongs there: its labels follow what that pod finds."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from mlperf_operator.driver_report import NodeReport, Reason
from mlperf_operator.nodes import state
from mlperf_operator.nodes.records import DriverPodRecord
from mlperf_operator.nodes.state import NodeState, Phase
from mlperf_operator.nodes.step import RECHECK, Step, World, attempts_so_far, before, failure, is_ours, working

UNREADY_GRACE = timedelta(seconds=20)
"""How long a driver pod that was ready may be unready before a run that waits has the node put right again."""


def watched(world: World, version: str | None, now: datetime) -> Step:
    """Follow the driver pod: the labels say what it found."""
    mode, node = world.node.mode, world.node
    driver = world.driver if version is not None else None
    daemon_set = (mode, driver) if mode is not None and (version is None or driver is not None) else None
    # Closed only for a run that waits, and while the package manager may be at work.
    at_work = any(not pod.ensured and not pod.waits_for for pod in world.pods)
    cordon = mode != "Verify" and is_ours(node) and (bool(world.claim.runs) or at_work)
    keep = Step(report=before(world), wanted=version, cordon=cordon, daemon_set=daemon_set)
    pod = next((p for p in world.pods if (p.mode, p.version) == (mode, version or "") and not p.deleting), None)
    if mode != "Verify" and is_ours(node) and not cordon and (pod is None or not pod.ensured):
        return given_up(version)
    if pod is None:
        report = working(world, version, "its driver pod has not come yet; see `kubectl get daemonsets -A`")
        return replace(keep, report=report, again=RECHECK)
    return _followed(world, keep, pod, now)


def _followed(world: World, keep: Step, pod: DriverPodRecord, now: datetime) -> Step:
    if is_outdated(world, pod) and (world.node.mode == "Verify" or (not world.claim.runs and world.gpu_pods == ())):
        return replace(keep, loaded=world.node.loaded, ready=None, delete=(pod,), again=RECHECK)
    if pod.failed:
        return _attempt_failed(world, keep, pod, now)
    if not pod.ensured:
        text = pod.waits_for or "its driver pod is at work"
        report = working(world, keep.wanted, text, *_blocked_reason(pod))
        return replace(keep, report=report, again=RECHECK)
    if not pod.ready:
        return _unready(world, keep, pod, now)
    return _loaded(world, keep, pod)


def _blocked_reason(pod: DriverPodRecord) -> tuple[str, ...]:
    return ("DriverPodBlocked",) if pod.waits_for else ()


def is_outdated(world: World, pod: DriverPodRecord) -> bool:
    """Say whether a driver pod comes from an older template."""
    return bool(world.digest) and pod.digest != world.digest and not pod.deleting


def _attempt_failed(world: World, keep: Step, pod: DriverPodRecord, now: datetime) -> Step:
    """Take the pod away and try again later; where nobody waits for it, the kubelet's own restarts do."""
    report = parsed(pod.report)
    if report is None:
        how = "was killed" if pod.killed else "ended without a report; see its log"
        reason = Reason.INTERRUPTED if pod.killed else Reason.INSTALL_FAILED
        report = NodeReport(ready=False, reason=reason.value, message=f"the driver pod {pod.name} {how}")
    found = state.of_report(Phase.FAILED, keep.wanted, report)
    if keep.wanted is not None and (world.claim.runs or is_ours(world.node)):
        return failure(world, found, now)
    return replace(keep, report=found, cordon=False)


def given_up(version: str | None) -> Step:
    """Take back what was begun for runs that ended before their driver was there."""
    text = f"the runs that wanted driver {version} ended before its driver pod could start"
    return Step(report=NodeState(phase=Phase.WAITING, reason="DriverNotWanted", message=text, version=version))


def parsed(text: str) -> NodeReport | None:
    """Return a driver pod's report, or None where it is none."""
    try:
        return NodeReport.model_validate_json(text)
    except ValueError:
        return None


def _unready(world: World, keep: Step, pod: DriverPodRecord, now: datetime) -> Step:
    """The driver was there and something does not match any more, or the first look is not over."""
    told, version = world.told, keep.wanted
    if told is None or told.ready:
        text = pod.waits_for or "its driver pod verifies"
        return replace(keep, report=working(world, version, text, *_blocked_reason(pod)), again=RECHECK)
    found = state.of_report(Phase.FAILED, version, told).model_copy(
        update={"attempts": attempts_so_far(world, version)}
    )
    report = state.follow(before(world), found, now)
    since = datetime.fromisoformat(report.since)
    if version is not None and world.somebody_waits and now >= since + UNREADY_GRACE:
        return failure(world, report, now)
    # The device plugin stays while the driver itself works.
    loaded = told.driver if told.driver is not None and told.driver == world.node.loaded else None
    return replace(keep, report=report, loaded=loaded, cordon=False, again=RECHECK)


def _loaded(world: World, keep: Step, pod: DriverPodRecord) -> Step:
    report = world.told or parsed(pod.report)
    if report is None or not report.ready or report.driver is None:
        return replace(keep, report=working(world, keep.wanted, "its driver pod verifies"), again=RECHECK)
    if report.gpus and world.node.gpus == report.gpus:
        found = state.of_report(Phase.READY, keep.wanted, report)
        return replace(keep, report=found, loaded=report.driver, ready=report.driver, cordon=False)
    text = (
        f"driver {report.driver} works, and {world.node.gpus} of {report.gpus} GPUs are allocatable as nvidia.com/gpu; "
        "a device plugin has to offer them (chart value driver.devicePlugin.enabled)"
    )
    found = state.of_report(Phase.WAITING, keep.wanted, report)
    found = found.model_copy(update={"reason": "GPUNotAllocatable", "message": text})
    return replace(keep, report=found, loaded=report.driver, cordon=False, again=RECHECK)
