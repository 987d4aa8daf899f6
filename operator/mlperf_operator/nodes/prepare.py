"""A node that is to get another driver: closed, emptied of pods with GPUs, then handed to the driver's pod.

Until no pod has a GPU, the node stays under watch with the driver and the labels that it has: others go on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from mlperf_operator.driver_report import Reason
from mlperf_operator.nodes.claims import Claim
from mlperf_operator.nodes.state import NodeState, Phase
from mlperf_operator.nodes.step import RECHECK, GpuPod, Step, World, attempts_so_far, before, names, working
from mlperf_operator.nodes.watch import watched

BUSY_RECHECK = timedelta(seconds=15)
"""How often a node whose GPUs are in use is looked at: pods end without an event that would say so here."""


def prepared(world: World, version: str, now: datetime) -> Step:
    """Return the next step on the way from the driver that a node has to the one that it shall have."""
    told, driver, mode = before(world), world.driver, world.node.mode
    if told is not None and told.version == version and told.due is not None and now < told.due:
        return Step(report=told, again=told.due - now)
    if driver is None or mode is None:
        text = f"driver {version} is not in the catalogue any more; possible: {world.catalogue.names()}"
        report = NodeState(phase=Phase.WAITING, reason="DriverNotInCatalogue", message=text, version=version)
        return replace(_as_it_is(world, now), report=report)
    if world.gpu_pods:
        return _occupied(world, version, world.gpu_pods, now)
    if world.gpu_pods is None or not world.node.unschedulable:
        report = working(world, version, "it is cordoned, so that no pod with GPUs comes in between")
        return replace(_as_it_is(world, now), report=report, cordon=True, again=RECHECK)
    if world.pods or world.node.wanted is not None:
        report = working(world, version, "the driver pod that was there ends first")
        return Step(report=report, cordon=True, again=RECHECK)
    report = working(world, version, f"driver {version} is being made to match")
    return Step(report=report, wanted=version, cordon=True, daemon_set=(mode, driver), again=RECHECK)


def _as_it_is(world: World, now: datetime) -> Step:
    """Return the step that only keeps the node's present driver under watch."""
    present = world.node.wanted
    if present is None:
        return Step(report=None)
    return watched(replace(world, claim=Claim(), somebody_waits=False, digest=""), present, now)


def _occupied(world: World, version: str, pods: Sequence[GpuPod], now: datetime) -> Step:
    """Evict pods with GPUs where that is allowed, else leave the node open and as it is, and look again."""
    ours = any(pod.is_run for pod in pods)
    if world.evict and not ours:
        report = working(world, version, f"evicting pods with GPUs: {names(pods)}", "DriverDraining")
        return replace(_as_it_is(world, now), report=report, cordon=True, evict=tuple(pods), again=RECHECK)
    advice = (
        "a run of MLPerf is never evicted, and nothing else while one is there; it goes on when they have ended"
        if ours
        else "it goes on when they have ended, or with chart value driver.evictGpuPods"
    )
    busy = NodeState(
        phase=Phase.WAITING,
        reason=Reason.GPU_IN_USE.value,
        message=f"pods use its GPUs: {names(pods)}; {advice}",
        version=version,
        attempts=attempts_so_far(world, version),
    )
    return replace(_as_it_is(world, now), report=busy, cordon=False, again=BUSY_RECHECK)
