"""Scenarios of the cluster around a run: its node, quotas, namespace, CRD, and the run itself deleted or made again."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from typing import Any

from chaos.history import Json
from chaos.lab import crd
from chaos.scene import GONE_WITHIN, Scenario, Scene, holds
from fleet import control_plane, workload
from mlperf_operator.cluster import JOBS, NODES, PODS, Resource
from mlperf_operator.resources.containers import COLLECT, PREPARE_STAGES, RUN

_QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
_STAGES = (*PREPARE_STAGES, RUN, COLLECT)
STAGE_WITHIN = 60.0


async def pod_of(scene: Scene, job: str) -> Json | None:
    """Return the latest pod of a Job."""
    query = {"labelSelector": f"batch.kubernetes.io/job-name={job}"}
    pods = (await scene.lab.request("GET", PODS.url(scene.namespace), query=query))["items"]
    return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)


def _running(pod: Json | None, stage: str) -> bool:
    status: dict[str, Any] = (pod or {}).get("status", {})
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return any(c["name"] == stage and c["state"].keys() & {"running", "terminated"} for c in statuses)


async def reaches(scene: Scene, run: Json, stage: str) -> Json:
    """Wait until a stage of the run has begun, and return its pod.

    Raises:
        TimeoutError: it has not in time.
    """
    async with asyncio.timeout(STAGE_WITHIN):
        while True:
            pod = await pod_of(scene, run["metadata"]["name"])
            if pod is not None and _running(pod, stage):
                return pod
            await asyncio.sleep(0.05)


async def _node_lost(scene: Scene, count: int) -> None:
    """Delete the nodes of runs that are under way: each Job's next pod goes to another node, a minute later."""
    runs, nodes = [], []
    for number in range(count):
        runs.append(await scene.create(f"run-{number}"))
        pod = await reaches(scene, runs[-1], scene.random.choice(PREPARE_STAGES[:4]))
        node = await scene.lab.cluster.get(NODES, None, pod["spec"]["nodeName"])
        if node is not None:
            nodes.append(node)
            await scene.lab.request("DELETE", NODES.url(None, node["metadata"]["name"]), {})
            scene.injections += 1
    await scene.all_end(runs, 240)
    for node in nodes:
        meta = {key: node["metadata"][key] for key in ("name", "labels")}
        await scene.lab.request("POST", NODES.url(), {**node, "kind": "Node", "metadata": meta})


async def _eviction(scene: Scene, count: int) -> None:
    """Evict the run's pod in each stage: the Job makes another one, and the run goes on."""
    runs = []
    for number in range(count):
        run = await scene.create(f"run-{number}")
        runs.append(run)
        pod = await reaches(scene, run, (*PREPARE_STAGES, RUN)[number % (len(PREPARE_STAGES) + 1)])
        await evict(scene, pod)
    await scene.all_end(runs)


async def evict(scene: Scene, pod: Json) -> None:
    """Evict a pod, as a drain of its node does."""
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": scene.namespace}}
    await scene.lab.request("POST", PODS.url(scene.namespace, name, "eviction"), body)
    scene.injections += 1


async def _quota(scene: Scene, count: int) -> None:
    """Forbid Jobs, then pods, by a quota: who waits long enough starts when it is lifted, who does not is told why."""
    for number in range(count):
        hard = {"count/jobs.batch": "0"} if number % 2 else {"pods": "0"}
        body = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none", "namespace": scene.namespace},
            "spec": {"hard": hard},
        }
        await scene.lab.request("POST", _QUOTAS.url(scene.namespace), body)
        await holds(lambda: _quota_counts(scene), 20)
        scene.injections += 1
        impatient = await scene.create(f"impatient-{number}", ends={"QuotaExceeded"}, startTimeoutSeconds=10)
        patient = await scene.create(f"patient-{number}")
        await scene.all_end([impatient])
        await scene.delete(_QUOTAS, "none")
        await scene.all_end([patient])


async def _quota_counts(scene: Scene) -> bool:
    quota = await scene.get(_QUOTAS, "none")
    return bool((quota or {}).get("status", {}).get("hard"))


async def _namespace_deleted(scene: Scene, count: int) -> None:
    """Delete a namespace with runs in every stage, with the operator there and, every second time, without it."""
    for number in range(count):
        namespace = f"{scene.namespace}-x{number}"
        await scene.lab.make_namespace(namespace)
        for each in range(4):
            await scene.lab.cluster.create(workload.run(namespace, f"run-{each}"))
            await asyncio.sleep(scene.random.random())
        absent = number % 2 == 1
        if absent:
            await scene.replica.stop(signal.SIGKILL)
        await scene.lab.remove_namespace(namespace)
        scene.injections += 1
        if not await holds(partial(scene.lab.namespace_gone, namespace), GONE_WITHIN):
            scene.notes.append(f"namespace {namespace} is not gone; the operator was {'not ' * absent}there")
        if absent:
            scene.replica.start()
        await scene.recovered(f"after-{number}")


async def _crd_upgraded(scene: Scene, count: int) -> None:
    """Apply the CRD with another description and another field, and the old one again, while runs go on."""
    runs = []
    for number in range(count):
        runs += [await scene.create(f"run-{number}-{each}") for each in range(2)]
        await asyncio.sleep(scene.random.random())
        await scene.lab.apply_crd(_changed(number) if number % 2 == 0 else crd())
        scene.injections += 1
        await scene.recovered(f"after-{number}")
    await scene.all_end(runs)
    await scene.lab.apply_crd(crd())


def _changed(number: int) -> Json:
    """Return the CRD of a next version: a spec with one more field."""
    changed = crd()
    schema = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["description"] = f"Changed {number}."
    schema["properties"]["spec"]["properties"]["fromTheFuture"] = {"type": "string", "maxLength": 10}
    return changed


async def _run_deleted(scene: Scene, count: int) -> None:
    """Delete the run in every stage: at once, when its Job is there, in each container, and after its end."""
    for number in range(count):
        run = await scene.create(f"run-{number}")
        stage = (None, "job", *_STAGES, "end")[number % (len(_STAGES) + 3)]
        if stage == "job":
            await holds(partial(_is_there, scene, JOBS, f"run-{number}"), STAGE_WITHIN)
        elif stage == "end":
            await scene.all_end([run])
        elif stage is not None:
            await reaches(scene, run, stage)
        await scene.delete_run(run)
        scene.injections += 1


async def _is_there(scene: Scene, resource: Resource, name: str) -> bool:
    return await scene.get(resource, name) is not None


async def _made_again(scene: Scene, count: int) -> None:
    """Delete a run in a random stage and make it again under its name at once: the second one ends well, as itself."""
    runs = []
    for number in range(count):
        first = await scene.create(f"run-{number}", ends=())
        await asyncio.sleep(scene.random.random() * 3)
        await scene.delete_run(first)
        scene.injections += 1
        runs.append(await scene.create(f"run-{number}"))
    await scene.all_end(runs)


async def _collector_misses(scene: Scene, count: int) -> None:
    """Have Kubernetes' garbage collector miss a deletion: it is stopped while a run goes and comes, and lists again.

    A list that has the same name under another uid is an update to its informer: the dependents of the old uid stay.
    """
    layout = scene.lab.fleet.layout
    runs = []
    for number in range(count):
        first = await scene.create(f"run-{number}", ends=())
        await reaches(scene, first, scene.random.choice(PREPARE_STAGES))
        collector = control_plane.pid(layout, "kube-controller-manager")
        os.kill(collector, signal.SIGSTOP)
        try:
            await scene.delete_run(first)
            runs.append(await scene.create(f"run-{number}"))
            os.kill(control_plane.pid(layout, "kube-apiserver"), signal.SIGKILL)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(control_plane.start, layout, "kube-apiserver")
        finally:
            os.kill(collector, signal.SIGCONT)
        scene.injections += 1
    await scene.all_end(runs)


async def _operator_gone(scene: Scene, count: int) -> None:
    """Delete runs in every stage while there is no operator: nothing waits for it, nothing is left."""
    runs = [await scene.create(f"run-{number}") for number in range(count)]
    await asyncio.sleep(scene.random.random() * 3)
    await scene.replica.stop(signal.SIGKILL)
    for run in runs:
        await scene.delete_run(run)
        scene.injections += 1

    async def empty() -> bool:
        return not await scene.lab.children(scene.namespace)

    if not await holds(empty, GONE_WITHIN):
        scene.notes.append("children stay while the operator is gone")
    scene.replica.start()
    await scene.recovered("after")


SCENARIOS = (
    Scenario("node-lost", _node_lost, 3),
    Scenario("eviction", _eviction, 8),
    Scenario("quota", _quota, 4),
    Scenario("namespace-deleted", _namespace_deleted, 4),
    Scenario("crd-upgraded", _crd_upgraded, 4),
    Scenario("run-deleted", _run_deleted, 22),
    Scenario("made-again", _made_again, 12),
    Scenario("collector-misses", _collector_misses, 2),
    Scenario("operator-gone", _operator_gone, 8),
)
