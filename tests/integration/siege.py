"""A namespace that hostile runs are thrown at, with a real operator and with objects that belong to nobody's run."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any

from integration import api_server
from integration.hostile import NEIGHBOUR, NEIGHBOUR_UID, SUFFIXES, Body
from integration.operator_process import OperatorProcess
from integration.test_cluster import config_map, job_body
from mlperf_operator import naming
from mlperf_operator.cluster import CLAIMS, CONFIG_MAPS, JOBS, MLPERF_RUNS, ApiError, Cluster, Resource

AT_ONCE = 24
JUDGED_SECONDS = 90.0
"""In which a batch must have its conditions, on a machine with other work."""

SETTLED_SECONDS = 3.0

SECRETS = Resource("", "v1", "secrets", "Secret")
CHILDREN = (JOBS, CONFIG_MAPS, CLAIMS)
UNFORESEEN = "in a way that nobody foresaw"


def labels(run: str = NEIGHBOUR, uid: str = NEIGHBOUR_UID) -> dict[str, str]:
    """The labels that a child of a run has."""
    return {naming.MANAGED_BY_LABEL: naming.MANAGER, naming.RUN_LABEL: run, naming.RUN_UID_LABEL: uid}


def neighbours(namespace: str, run: str = NEIGHBOUR, uid: str = NEIGHBOUR_UID) -> list[Body]:
    """Objects that are no children of any run, under the names and with the labels of some."""
    found: list[Body] = []
    for suffix in SUFFIXES:
        meta = {"metadata": {"name": f"{run}{suffix}", "namespace": namespace, "labels": labels(run, uid)}}
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        found += [
            {**job_body(namespace, suspend=True), **meta},
            {**config_map(namespace), **meta, "data": {"plan.json": "{}"}},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **meta, "spec": claim},
            {"apiVersion": "v1", "kind": "Secret", **meta, "stringData": {"a": "b"}},
        ]
    return found


def resource_of(body: Body) -> Resource:
    return {r.kind: r for r in (*CHILDREN, SECRETS)}[body["kind"]]


def condition(run: Body, kind: str) -> Body:
    """A run's condition, empty while it has none."""
    found = run.get("status", {}).get("conditions", ())
    return next((dict(c) for c in found if c["type"] == kind), {})


def has_answer(run: Body) -> bool:
    """Say whether a run is judged. One that its status says has finished is left as it is, whoever wrote that."""
    return bool(condition(run, "Accepted")) or condition(run, "Finished").get("status") == "True"


async def gathered(work: Iterable[Any]) -> list[Any]:
    """Await all, a few at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(task: Any) -> Any:
        async with places:
            return await task

    return list(await asyncio.gather(*(one(task) for task in work)))


class Siege:
    """What hostile users do, and what becomes of it."""

    def __init__(self, cluster: Cluster, namespace: str, operator: OperatorProcess) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.operator = operator
        self.refused: Counter[tuple[int, str]] = Counter()
        """What the API server refused, by status and message."""
        self.judged: Counter[tuple[str, str, str]] = Counter()
        """What the operator said of the others, by status, reason and message of Accepted."""
        self._gone: set[str] = set()

    async def plant(self, bodies: Iterable[Body]) -> list[Body]:
        """Create objects and return them as stored, once the cluster's own controllers are done with them."""
        wanted = list(bodies)
        await gathered(
            self.cluster._json("POST", resource_of(body).url(body["metadata"]["namespace"]), body) for body in wanted
        )
        found = await self._read(wanted)
        while True:
            await asyncio.sleep(SETTLED_SECONDS)
            before, found = found, await self._read(wanted)
            if found == before:
                return found

    async def _read(self, bodies: Iterable[Body]) -> list[Body]:
        async def one(body: Body) -> Body:
            meta = body["metadata"]
            found = await self.cluster.get(resource_of(body), meta["namespace"], meta["name"])
            return {**(found or {}), "kind": body["kind"]}

        return await gathered(one(body) for body in bodies)

    async def untouched(self, planted: list[Body]) -> None:
        """Each of these objects is as it was, its resourceVersion too."""
        for body, found in zip(planted, await self._read(planted), strict=True):
            assert found == body

    async def create(self, body: Body) -> Body | None:
        """Create a run as a user does, and return it as stored, or None where it is refused."""
        metadata = body.get("metadata")
        if isinstance(metadata, dict):
            metadata = {"namespace": self.namespace, "name": f"run-{uuid.uuid4().hex[:10]}", **metadata}
            body = {**body, "metadata": {key: value for key, value in metadata.items() if value is not None}}
        # kubectl has unknown fields refused; other clients have them dropped.
        validation = "Strict" if len(json.dumps(body)) % 2 else "Ignore"
        url, query = MLPERF_RUNS.url(self.namespace), {"fieldValidation": validation}
        try:
            return await self.cluster._json("POST", url, body, query=query)
        except ApiError as error:
            self.refused[error.status, error.message] += 1
            return None

    async def batch(self, bodies: Iterable[Body]) -> None:
        """Create the runs, wait until each is judged, hold their children, and take it all away."""
        made = await gathered(self.create(body) for body in bodies)
        uids = {run["metadata"]["uid"] for run in made if run is not None}
        runs = await self.answered(uids)
        # Of a short time to live; its children follow.
        self._gone |= uids - set(runs)
        for run in runs.values():
            found = condition(run, "Accepted")
            self.judged[found["status"], found["reason"], found["message"]] += 1
        for resource in CHILDREN:
            for child in await self.listed(resource):
                self._hold(resource, child, runs)
        await self._clear(runs)

    async def listed(self, resource: Resource) -> list[Body]:
        return list((await self.cluster._json("GET", resource.url(self.namespace)))["items"])

    async def answered(self, uids: set[str]) -> dict[str, Body]:
        """Wait until each of these runs has the condition Accepted; one that is gone meanwhile is left out."""
        deadline = time.monotonic() + JUDGED_SECONDS
        while True:
            self.operator_is_well()
            runs = {run["metadata"]["uid"]: run for run in await self.listed(MLPERF_RUNS)}
            waiting = [run for uid, run in runs.items() if uid in uids and not has_answer(run)]
            if not waiting:
                return {uid: run for uid, run in runs.items() if uid in uids}
            assert time.monotonic() < deadline, json.dumps(waiting)[:4000]
            await asyncio.sleep(0.2)

    def operator_is_well(self) -> None:
        """The same process still runs, and met nothing that it was not made for."""
        text = self.operator.log.read_text()
        assert self.operator.process.poll() is None, text[-4000:]
        assert UNFORESEEN not in text, text[text.index(UNFORESEEN) - 300 :][:4000]

    def _hold(self, resource: Resource, child: Body, runs: dict[str, Body]) -> None:
        """An object in the namespace was there before, is still being deleted, or is a child of one of these runs."""
        meta = child["metadata"]
        found = meta.get("labels", {})
        uid = found.get(naming.RUN_UID_LABEL, "")
        if uid in self._gone or uid == NEIGHBOUR_UID or naming.MANAGED_BY_LABEL not in found:
            return
        run = runs[uid]
        # What was made before the name was met that somebody else has goes with the run.
        said = condition(run, "Accepted")
        assert said["status"] == "True" or said["reason"] == "NameConflict", (run["spec"], said, meta["name"])
        assert meta["name"] in {f"{run['metadata']['name']}{suffix}" for suffix in SUFFIXES}
        if resource is not CLAIMS:
            assert [(o["kind"], o["uid"]) for o in meta["ownerReferences"]] == [("MLPerfRun", uid)]

    async def _clear(self, runs: dict[str, Body]) -> None:
        self._gone |= set(runs)
        for run in runs.values():
            if run["metadata"].get("finalizers"):
                patch = {"metadata": {"finalizers": None}}
                await api_server.merge(self.cluster, MLPERF_RUNS, self.namespace, run["metadata"]["name"], patch)
        await self.cluster._json("DELETE", MLPERF_RUNS.url(self.namespace), {})
        children = {"labelSelector": f"{naming.SELECTOR},{naming.RUN_UID_LABEL}!={NEIGHBOUR_UID}"}
        for resource in CHILDREN:
            options = {"propagationPolicy": "Background"}
            await self.cluster._json("DELETE", resource.url(self.namespace), options, query=children)

    async def patch_status(self, resource: Resource, name: str, status: Body) -> None:
        """Write a status as somebody who may; one that the API server refuses has changed nothing."""
        url = resource.url(self.namespace, name, "status")
        try:
            await self.cluster._json("PATCH", url, {"status": status}, content_type="application/merge-patch+json")
        except ApiError as error:
            self.refused[error.status, error.message] += 1
