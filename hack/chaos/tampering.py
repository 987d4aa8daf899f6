"""Scenarios of somebody's hand: children of a run deleted or edited, and its results damaged."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from functools import partial

from chaos.history import Json
from chaos.scene import COMPLETED, Scenario, Scene, holds
from chaos.world import pod_of, reaches
from fleet import requests
from mlperf_operator.cluster import CONFIG_MAPS, JOBS, PODS, Resource
from mlperf_operator.naming import MANAGED_BY_LABEL, RUN_LABEL, RUN_UID_LABEL
from mlperf_operator.resources.containers import COLLECT, PREPARE_STAGES, RUN

_NO_LABELS = {"metadata": {"labels": dict.fromkeys((MANAGED_BY_LABEL, RUN_LABEL, RUN_UID_LABEL))}}
POD_GONE = frozenset({"PodDeleted", "BackoffLimitExceeded"})


async def _jobs_deleted(scene: Scene, run: Json) -> None:
    await scene.delete(JOBS, run["metadata"]["name"])


async def _pod_deleted(scene: Scene, run: Json) -> None:
    pod = await pod_of(scene, run["metadata"]["name"])
    if pod is not None:
        await scene.delete(PODS, pod["metadata"]["name"])


async def _maps_deleted(scene: Scene, run: Json) -> None:
    for part in ("agent", "gpu-config"):
        await scene.delete(CONFIG_MAPS, f"{run['metadata']['name']}-{part}")


DELETIONS: tuple[tuple[Callable[[Scene, Json], Awaitable[None]], frozenset[str]], ...] = (
    (_jobs_deleted, frozenset({"JobDeleted"})),
    (_pod_deleted, POD_GONE),
    (_maps_deleted, COMPLETED),
)
"""What can be deleted of a run under way, and the reasons with which it may end then."""


async def _children_deleted(scene: Scene, count: int) -> None:
    """Delete a run's Job, its pod or its ConfigMaps while it goes on."""
    runs = []
    for number in range(count):
        delete, ends = DELETIONS[number % len(DELETIONS)]
        run = await scene.create(f"run-{number}", ends=ends)
        runs.append(run)
        await reaches(scene, run, "code")
        scene.lab.fleet.pause()
        try:
            await delete(scene, run)
            scene.injections += 1
        finally:
            scene.lab.fleet.pause(paused=False)
    await scene.all_end(runs)


async def _label(scene: Scene, resource: Resource, name: str) -> None:
    await scene.merge(resource, name, _NO_LABELS)


async def _edit(scene: Scene, run: Json, pod: Json, which: int) -> None:
    name = run["metadata"]["name"]
    match which:
        case 0:
            await _label(scene, JOBS, name)
        case 1:
            await _label(scene, PODS, pod["metadata"]["name"])
        case 2:
            await _label(scene, CONFIG_MAPS, f"{name}-agent")
        case _:
            await scene.merge(JOBS, name, {"spec": {"suspend": True}})


async def _children_edited(scene: Scene, count: int) -> None:
    """Take the labels of a run's Job, pod or ConfigMap away, or suspend its Job: the run ends as if nobody had."""
    runs = []
    for number in range(count):
        run = await scene.create(f"run-{number}")
        runs.append(run)
        pod = await reaches(scene, run, "code")
        scene.lab.fleet.pause()
        try:
            await _edit(scene, run, pod, number % 4)
            scene.injections += 1
            # Long enough for the operator to see the edit in the middle of the run.
            await asyncio.sleep(1)
        finally:
            scene.lab.fleet.pause(paused=False)
    await scene.all_end(runs)


async def _logs_unreadable(scene: Scene, count: int) -> None:
    """Let no node answer for logs while runs end, and then let them answer again."""
    scene.lab.fleet.logs.send_signal(signal.SIGSTOP)
    runs = await scene.create_many(count)
    await asyncio.sleep(15)
    scene.injections += 1
    scene.lab.fleet.logs.send_signal(signal.SIGCONT)
    await scene.recovered("after")
    await scene.all_end(runs)


async def _report_cut(scene: Scene, count: int) -> None:
    """Cut what collect said of its report: the results are read again from the volume, by a second pod if one fails."""
    runs = []
    for number in range(count):
        run = await scene.create(f"run-{number}")
        runs.append(run)
        name = run["metadata"]["name"]
        await reaches(scene, run, PREPARE_STAGES[-1])
        scene.lab.fleet.pause()
        try:
            await _end_pod(scene, await pod_of(scene, name), {RUN: 0, COLLECT: 0})
            scene.injections += 1
            if number % 2 and await holds(partial(_has_pod, scene, f"{name}-collect"), 60):
                await _end_pod(scene, await pod_of(scene, f"{name}-collect"), {COLLECT: 65})
        finally:
            scene.lab.fleet.pause(paused=False)
    await scene.all_end(runs)


async def _has_pod(scene: Scene, job: str) -> bool:
    return await pod_of(scene, job) is not None


async def _end_pod(scene: Scene, pod: Json | None, codes: dict[str, int]) -> None:
    """End a pod as its kubelet would, but with half of collect's word."""
    if pod is None:
        return
    bad = any(codes.values())
    changed = {}
    for part in ("initContainers", "containers"):
        statuses = [_ended(c["name"], codes.get(c["name"], 0)) for c in pod["spec"].get(part, ())]
        changed[f"{part.removesuffix('s')}Statuses"] = statuses
    patch = {"status": {"phase": "Failed" if bad else "Succeeded", **changed}}
    url = PODS.url(scene.namespace, pod["metadata"]["name"], "status")
    await scene.lab.request("PATCH", url, patch, kind=requests.MERGE)


def _ended(name: str, code: int) -> Json:
    moment = "2026-01-02T03:04:05Z"
    message = '{"kind": "report", "uid": "' if name == COLLECT else ""
    state = {"exitCode": code, "reason": "x", "message": message, "startedAt": moment, "finishedAt": moment}
    base = {"name": name, "image": "x", "imageID": "x", "ready": False, "started": False, "restartCount": 0}
    return {**base, "state": {"terminated": state}}


SCENARIOS = (
    Scenario("children-deleted", _children_deleted, 9),
    Scenario("children-edited", _children_edited, 8),
    Scenario("logs-unreadable", _logs_unreadable, 4),
    Scenario("report-cut", _report_cut, 4),
)
