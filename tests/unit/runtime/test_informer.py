"""The informer against a server that misbehaves as real ones do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from kubernetes.aio import client

from mlperf_operator import informer as informer_module
from mlperf_operator.cluster import CONFIG_MAPS, Cluster
from mlperf_operator.informer import Informer

Change = tuple[str | None, str | None]


@dataclass(frozen=True)
class Item:
    """A record with one value."""

    namespace: str
    name: str
    value: str


def decode(body: Mapping[str, Any]) -> Item:
    return Item(body["metadata"]["namespace"], body["metadata"]["name"], body.get("data", {}).get("v", ""))


def item(name: str, value: str, version: int) -> dict[str, Any]:
    meta = {"namespace": "n", "name": name, "resourceVersion": str(version)}
    return {"metadata": meta, "data": {"v": value}}


class Server:
    """Plays lists and watches from scripts; each watch takes the next script."""

    def __init__(self) -> None:
        self.lists: list[list[dict[str, Any]]] = []
        self.watches: list[list[dict[str, Any] | int]] = []
        self.queries: list[dict[str, str]] = []
        self.refusals: list[int] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.queries.append(query)
        if self.refusals:
            code = self.refusals.pop(0)
            return web.json_response({"code": code, "reason": "R", "message": "no"}, status=code)
        if "watch" in query:
            return await self._watch(request)
        return self._list(query)

    def _list(self, query: dict[str, str]) -> web.Response:
        items = self.lists[0] if len(self.lists) == 1 else self.lists.pop(0)
        start, limit = int(query.get("continue") or 0), int(query["limit"])
        meta = {"resourceVersion": "100"}
        if start + limit < len(items):
            meta["continue"] = str(start + limit)
        return web.json_response({"metadata": meta, "items": items[start : start + limit]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        script = self.watches.pop(0) if self.watches else None
        if script and isinstance(script[0], int):
            return web.json_response({"code": script[0], "reason": "Gone", "message": "x"}, status=script[0])
        response = web.StreamResponse()
        await response.prepare(request)
        for event in script or ():
            await response.write(json.dumps(event).encode() + b"\n")
        if script is None:
            await asyncio.sleep(60)
        return response


@asynccontextmanager
async def following(server: Server) -> AsyncIterator[tuple[Informer[Item], list[Change]]]:
    app = web.Application()
    app.router.add_get("/{tail:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    changes: list[Change] = []
    configuration = client.Configuration(host=f"http://127.0.0.1:{port}")
    async with client.ApiClient(configuration) as api:
        informer: Informer[Item] = Informer(
            Cluster(api),
            CONFIG_MAPS,
            decode,
            index=lambda found: found.value,
            on_change=lambda old, new: changes.append((old.value if old else None, new.value if new else None)),
        )
        task = asyncio.create_task(informer.run())
        try:
            yield informer, changes
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await runner.cleanup()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await asyncio.sleep(0.01)


Setup = Callable[[Server], Awaitable[None]]


async def test_a_list_of_many_pages_is_read_whole(monkeypatch: Any) -> None:
    monkeypatch.setattr(informer_module, "PAGE_SIZE", 2)
    server = Server()
    server.lists = [[item(str(i), "v", i) for i in range(5)]]
    async with following(server) as (informer, _):
        await informer.synced.wait()
        assert len(informer.store) == 5
        assert [q["limit"] for q in server.queries if "watch" not in q] == ["2", "2", "2"]


async def test_changes_arrive_and_the_index_follows() -> None:
    server = Server()
    server.lists = [[item("a", "1", 1)]]
    server.watches = [
        [
            {"type": "ADDED", "object": item("b", "1", 101)},
            {"type": "MODIFIED", "object": item("a", "2", 102)},
            {"type": "DELETED", "object": item("b", "1", 103)},
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "150"}}},
        ]
    ]
    async with following(server) as (informer, changes):
        await until(lambda: len(changes) == 4)
        assert changes == [(None, "1"), (None, "1"), ("1", "2"), ("1", None)]
        assert informer.by_index("1") == ()
        assert [found.name for found in informer.by_index("2")] == ["a"]
        await until(lambda: sum("watch" in q for q in server.queries) == 2)
        assert server.queries[-1]["resourceVersion"] == "150"


async def test_a_relist_after_gone_tells_what_was_deleted_meanwhile() -> None:
    server = Server()
    server.lists = [[item("a", "1", 1), item("b", "1", 2)], [item("a", "1", 1)]]
    server.watches = [[{"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}]]
    async with following(server) as (informer, changes):
        await until(lambda: informer.relists == 2 and len(changes) == 3)
        assert changes[-1] == ("1", None)
        assert set(informer.store) == {"n/a"}


async def test_gone_as_a_status_relists_too() -> None:
    server = Server()
    server.lists = [[item("a", "1", 1)]]
    server.watches = [[410]]
    async with following(server) as (informer, changes):
        await until(lambda: informer.relists == 2)
        assert changes == [(None, "1")]


async def test_an_unchanged_object_is_not_told_again() -> None:
    server = Server()
    server.lists = [[item("a", "1", 1)]]
    server.watches = [[{"type": "MODIFIED", "object": item("a", "1", 101)}]]
    async with following(server) as (_, changes):
        await until(lambda: sum("watch" in q for q in server.queries) == 2)
        assert changes == [(None, "1")]


async def test_refusals_are_tried_again_until_they_end() -> None:
    server = Server()
    server.refusals = [500, 429]
    server.lists = [[item("a", "1", 1)]]
    async with following(server) as (informer, _):
        async with asyncio.timeout(10):
            await informer.synced.wait()


async def test_a_silent_watch_is_given_up_and_opened_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(informer_module, "SILENCE_SECONDS", 0.2)
    server = Server()
    server.lists = [[item("a", "1", 1)]]
    async with following(server) as (informer, _):
        await until(lambda: sum("watch" in q for q in server.queries) >= 2, seconds=10)
        assert informer.relists == 1
