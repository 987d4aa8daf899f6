"""What a node needs next: pure, from the node, its driver pod and its claim as they are now.

docs/driver.md draws the states. A step is labels, a cordon and a report that are written in one patch, so that an
operator that is killed between two of them finds the node in a state that it knows.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from mlperf_operator.driver_report import MANAGED_HERE
from mlperf_operator.nodes import state
from mlperf_operator.nodes.prepare import prepared
from mlperf_operator.nodes.state import NodeState, Phase
from mlperf_operator.nodes.step import RECHECK, Step, World, before, working
from mlperf_operator.nodes.watch import given_up, is_outdated, watched


def needs_gpu_pods(world: World) -> bool:
    """Say whether the step depends on the pods with GPUs on the node, which cost a request to list."""
    if world.managed or world.node.mode not in ("Install", "Adopt") or world.version is None:
        return False
    return _must_prepare(world) or (not world.claim.runs and any(is_outdated(world, pod) for pod in world.pods))


def next_step(world: World, now: datetime) -> Step:
    """Return what a node needs next."""
    step = _step(world, now)
    return replace(step, report=state.follow(before(world), step.report, now) if step.report is not None else None)


def _step(world: World, now: datetime) -> Step:
    mode = world.node.mode
    if mode == "Verify":
        return _verified(world, now)
    if world.managed:
        return _released(world, "NodeManaged", f"its driver is managed by {world.managed}; it is left alone")
    if mode is None:
        return _released(world, "NodeNotOptedIn", "it lost the label mlperf.dev/driver-opt-in; it is left alone")
    if world.version is None:
        return _idle(world)
    if _must_prepare(world):
        return prepared(world, world.version, now)
    return watched(world, world.version, now)


def _must_prepare(world: World) -> bool:
    return world.node.wanted != world.version


def _verified(world: World, now: datetime) -> Step:
    step = watched(world, None, now)
    if not world.managed:
        return step
    report = step.report.model_copy(update={"managed_by": world.managed}) if step.report is not None else None
    # Who manages the driver brings a device plugin too, so ours is not asked for.
    return replace(step, loaded=None, report=report)


def _released(world: World, reason: str, message: str) -> Step:
    """Take back all that is ours; the report stays where a run waits for it, or where there was one."""
    if before(world) is None and not world.claim.runs:
        return Step(report=None)
    return Step(report=NodeState(phase=Phase.WAITING, reason=reason, message=message, version=world.version))


def _idle(world: World) -> Step:
    """Give up what was begun and nobody wants any more; watch a driver of ours again that a failed change left."""
    told, mode = before(world), world.node.mode
    if told is None or mode is None:
        return Step(report=told)
    there = world.catalogue.find(told.driver) if told.driver is not None else None
    if there is not None and there.version == told.driver != told.version and told.managed_by == MANAGED_HERE:
        report = working(world, there.version, f"driver {there.version}, which it still has, is watched again")
        return Step(report=report, wanted=there.version, daemon_set=(mode, there), again=RECHECK)
    return given_up(told.version) if told.phase is Phase.WORKING else Step(report=told)
