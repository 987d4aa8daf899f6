"""Copies of a real run's objects: bare pairs of the same shape, and runs that finished long ago."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fleet import requests
from mlperf_operator import naming
from mlperf_operator.cluster import CONFIG_MAPS, JOBS, MLPERF_RUNS, PODS, Cluster

Json = dict[str, Any]

# Set by the API server, or by the Job controller on what is its own.
_GIVEN = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid", "finalizers", "generateName")
_JOBS_LABELS = ("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name")


@dataclass(frozen=True)
class Model:
    """The objects of one run that has finished."""

    run: Json
    job: Json
    config_maps: tuple[Json, ...]
    pod: Json

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.run["metadata"]["name"])


async def model_of(cluster: Cluster, namespace: str, name: str) -> Model:
    """Read a finished run with all that belongs to it."""
    [run, job] = [await _get(cluster, resource.url(namespace, name)) for resource in (MLPERF_RUNS, JOBS)]
    maps = [await _get(cluster, CONFIG_MAPS.url(namespace, f"{name}-{part}")) for part in ("agent", "gpu-config")]
    selector = f"{naming.RUN_LABEL}={name}"
    [pod] = (await _get(cluster, f"{PODS.url(namespace)}?labelSelector={selector}"))["items"]
    return Model(run, job, tuple(maps), pod)


def bare(model: Model, namespace: str, name: str) -> Iterator[Json]:
    """Return the ConfigMaps and the Job of a run without the run: nobody's but the Job controller's."""
    uid = str(uuid.uuid4())
    for body in (*model.config_maps, model.job):
        copy = _copy(model, body, namespace, name, uid)
        copy["metadata"].pop("ownerReferences", None)
        copy["metadata"]["labels"][naming.MANAGED_BY_LABEL] = "nobody"
        if body is model.job:
            copy["spec"]["template"]["metadata"]["labels"][naming.MANAGED_BY_LABEL] = "nobody"
        yield copy


async def keep(cluster: Cluster, model: Model, namespace: str, name: str) -> None:
    """Write a run that finished, with its ConfigMaps, its completed Job and its pod, as if all had happened."""
    made = await requests.create(cluster, _copy(model, model.run, namespace, name, ""))
    uid = made["metadata"]["uid"]
    status = _renamed(model, {"status": model.run["status"]}, name, uid)
    await _write_status(cluster, MLPERF_RUNS.url(namespace, name, "status"), status)
    for config_map in model.config_maps:
        await requests.create(cluster, _copy(model, config_map, namespace, name, uid))
    job = _copy(model, model.job, namespace, name, uid)
    # The Job controller leaves such a Job alone: it would make a pod before the status says that the Job has ended.
    job["spec"]["managedBy"] = "mlperf.dev/bench-scale"
    job = await requests.create(cluster, job)
    await _write_status(cluster, JOBS.url(namespace, name, "status"), {"status": model.job["status"]})
    pod = _copy(model, model.pod, namespace, name, uid)
    pod["metadata"]["ownerReferences"][0]["uid"] = job["metadata"]["uid"]
    pod["metadata"]["labels"] |= {key: job["metadata"]["uid"] for key in _JOBS_LABELS if key.endswith("uid")}
    pod = await requests.create(cluster, pod)
    status = {"status": _renamed(model, model.pod["status"], name, uid)}
    await _write_status(cluster, PODS.url(namespace, pod["metadata"]["name"], "status"), status)


async def keep_all(cluster: Cluster, model: Model, namespace: str, count: int) -> None:
    """Write many such runs, several at a time."""
    await requests.several(16, (keep(cluster, model, namespace, f"kept-{index:05}") for index in range(count)))


async def _get(cluster: Cluster, url: str) -> Json:
    return await requests.ask(cluster, "GET", url)


async def _write_status(cluster: Cluster, url: str, status: Json) -> None:
    await requests.ask(cluster, "PATCH", url, status, kind=requests.MERGE)


def _copy(model: Model, body: Json, namespace: str, name: str, uid: str) -> Json:
    """Return an object anew, under the name of another run, without what the cluster sets itself."""
    copy = json.loads(json.dumps(body))
    meta = {key: value for key, value in copy["metadata"].items() if key not in _GIVEN}
    copy = {"apiVersion": _VERSIONS[_kind(body)], "kind": _kind(body), **copy, "metadata": meta}
    copy.pop("status", None)
    if _kind(body) == "Job":
        copy["spec"].pop("selector", None)
        for label in _JOBS_LABELS:
            copy["spec"]["template"]["metadata"]["labels"].pop(label, None)
            meta.get("labels", {}).pop(label, None)
    meta["namespace"] = namespace
    return dict(_renamed(model, copy, name, uid))


_VERSIONS = {"MLPerfRun": "mlperf.dev/v1alpha1", "Job": "batch/v1", "ConfigMap": "v1", "Pod": "v1"}


def _kind(body: Json) -> str:
    # The API server leaves the kind out of what is in a list.
    return str(body.get("kind") or "Pod")


def _renamed(model: Model, value: Any, name: str, uid: str) -> Any:  # noqa: ANN401 - any JSON
    """Return JSON with the name and the uid of another run in place of the model's."""
    return json.loads(json.dumps(value).replace(model.name, name).replace(model.run["metadata"]["uid"], uid))
