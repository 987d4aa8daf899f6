"""The informer against a real API server, its history cut off included."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from local_cluster.layout import Layout

from integration import api_server
from mlperf_operator import informer as informer_module
from mlperf_operator.cluster import CONFIG_MAPS, MLPERF_RUNS, ApiError, Cluster
from mlperf_operator.informer import Informer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

Change = tuple[str | None, str | None]


@dataclass(frozen=True)
class Item:
    """A ConfigMap or a run, with one value."""

    namespace: str
    name: str
    value: str


def decode(body: Mapping[str, Any]) -> Item:
    meta = body["metadata"]
    return Item(meta["namespace"], meta["name"], meta.get("annotations", {}).get("value", ""))


def config_map(namespace: str, name: str, value: str = "") -> dict[str, Any]:
    meta = {"namespace": namespace, "name": name, "labels": {"test": namespace}, "annotations": {"value": value}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}


class Follower:
    """An informer of one namespace's ConfigMaps and what it told."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.changes: list[Change] = []
        self.informer: Informer[Item] = Informer(
            cluster,
            CONFIG_MAPS,
            decode,
            index=lambda found: found.value,
            on_change=self._note,
            label_selector=f"test={namespace}",
        )

    def _note(self, old: Item | None, new: Item | None) -> None:
        self.changes.append((old.value if old else None, new.value if new else None))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.informer.run())
        try:
            async with asyncio.timeout(10):
                await self.informer.synced.wait()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await asyncio.sleep(0.02)


@pytest.fixture
def follower(cluster: Cluster, namespace: str) -> Follower:
    """A follower that has not started."""
    return Follower(cluster, namespace)


async def test_pages_and_then_changes_arrive(
    cluster: Cluster, namespace: str, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informer_module, "PAGE_SIZE", 3)
    for number in range(7):
        await cluster.create(config_map(namespace, f"m{number}", "old"))
    async with follower.running():
        assert len(follower.informer.store) == 7
        made = await cluster.create(config_map(namespace, "new", "1"))
        await api_server.merge(cluster, CONFIG_MAPS, namespace, "new", {"metadata": {"annotations": {"value": "2"}}})
        await cluster.delete(CONFIG_MAPS, namespace, "new", made["metadata"]["uid"])
        await until(lambda: len(follower.changes) == 10)
        assert follower.changes[7:] == [(None, "1"), ("1", "2"), ("2", None)]
        assert len(follower.informer.by_index("old")) == 7
        assert follower.informer.relists == 1


async def test_objects_of_others_are_not_seen(cluster: Cluster, namespace: str, follower: Follower) -> None:
    other = config_map(namespace, "other")
    other["metadata"]["labels"] = {}
    await cluster.create(other)
    async with follower.running():
        await cluster.create(config_map(namespace, "ours"))
        await until(lambda: bool(follower.changes))
        assert set(follower.informer.store) == {f"{namespace}/ours"}


async def test_an_object_that_loses_its_label_is_gone_from_the_records(
    cluster: Cluster, namespace: str, follower: Follower
) -> None:
    await cluster.create(config_map(namespace, "a", "1"))
    async with follower.running():
        await api_server.merge(cluster, CONFIG_MAPS, namespace, "a", {"metadata": {"labels": {"test": None}}})
        await until(lambda: follower.changes == [(None, "1"), ("1", None)])


async def test_history_that_was_cut_off_is_made_up_for_by_a_new_list(
    cluster: Cluster, namespace: str, runs_served: None
) -> None:
    """The API server keeps the history of runs from when it began to serve them, so version 1 is too old for it."""
    told: list[Change] = []
    body = {
        "apiVersion": "mlperf.dev/v1alpha1",
        "kind": "MLPerfRun",
        "spec": {"suite": "reference-cpu", "system": "CPU_REFERENCE", "benchmarks": [{"name": "digits"}]},
    }
    for name in ("kept", "lost"):
        meta = {"namespace": namespace, "name": name, "labels": {"test": namespace}, "annotations": {"value": name}}
        made = await cluster.create({**body, "metadata": meta})
    informer: Informer[Item] = Informer(
        cluster,
        MLPERF_RUNS,
        decode,
        index=lambda found: found.value,
        on_change=lambda old, new: told.append((old.value if old else None, new.value if new else None)),
        label_selector=f"test={namespace}",
    )

    async def follow(relists: int) -> None:
        task = asyncio.create_task(informer.run())
        await until(lambda: informer.relists == relists and informer.synced.is_set())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await follow(1)
    await cluster.delete(MLPERF_RUNS, namespace, "lost", made["metadata"]["uid"])
    informer._version = "1"
    informer.synced.clear()
    await follow(2)
    assert told == [(None, "kept"), (None, "lost"), ("lost", None)]
    assert set(informer.store) == {f"{namespace}/kept"}


async def test_a_page_older_than_etcds_history_is_gone(
    cluster: Cluster, namespace: str, runs_served: None, control_plane: Layout | None
) -> None:
    if control_plane is None:
        pytest.skip("etcd of the user's cluster is not ours to compact")
    newest = await cluster.create(config_map(namespace, "now"))
    api_server.compact(control_plane, int(newest["metadata"]["resourceVersion"]))
    token = {"v": "meta.k8s.io/v1", "rv": 2, "start": "a\u0000"}
    text = base64.urlsafe_b64encode(json.dumps(token).encode()).decode().rstrip("=")
    with pytest.raises(ApiError) as caught:
        await cluster.list_page(MLPERF_RUNS, {"limit": "1", "continue": text})
    assert caught.value.status == informer_module.GONE


async def test_a_watch_that_the_server_ends_goes_on_without_a_list(
    cluster: Cluster, namespace: str, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informer_module, "WATCH_SECONDS", 2.5)
    async with follower.running():
        for number in range(4):
            await cluster.create(config_map(namespace, f"m{number}", str(number)))
            await asyncio.sleep(1)
        await until(lambda: len(follower.changes) == 4)
        assert [new for _, new in follower.changes] == ["0", "1", "2", "3"]
        assert follower.informer.relists == 1
