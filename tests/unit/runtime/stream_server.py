"""A server that plays lists and watches from scripts, so that streams can fail as real ones do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio import client

from mlperf_operator.cluster import CONFIG_MAPS, Cluster
from mlperf_operator.informer import Informer

Change = tuple[str | None, str | None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Line = dict[str, Any] | bytes


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


def event(kind: str, name: str, value: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": item(name, value, version)}


def refusal(code: int, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"code": code, "reason": "R", "message": "no"}, status=code, headers=headers)


@dataclass
class Server:
    """Each list and each watch takes the next script; the last list stays, a watch without script is silent."""

    lists: list[list[dict[str, Any]]]
    watches: list[list[Line] | web.Response] = field(default_factory=list)
    refusals: list[Callable[[dict[str, str]], web.Response | None]] = field(default_factory=list)
    """Asked for each request; the first is dropped once it refused one."""
    queries: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def watched(self) -> list[dict[str, str]]:
        """The queries of the watches so far."""
        return [query for query in self.queries if "watch" in query]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.queries.append(query)
        self.times.append(asyncio.get_running_loop().time())
        refused = self.refusals[0](query) if self.refusals else None
        if refused is not None:
            self.refusals.pop(0)
            return refused
        return await self._watch(request) if "watch" in query else self._list(query)

    def _list(self, query: dict[str, str]) -> web.Response:
        items = self.lists[0] if len(self.lists) == 1 else self.lists.pop(0)
        start, limit = int(query.get("continue") or 0), int(query["limit"])
        meta = {"resourceVersion": "100"}
        if start + limit < len(items):
            meta["continue"] = str(start + limit)
        return web.json_response({"metadata": meta, "items": items[start : start + limit]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        script = self.watches.pop(0) if self.watches else None
        if isinstance(script, web.Response):
            return script
        response = web.StreamResponse()
        await response.prepare(request)
        for line in script or ():
            await response.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        if script is None:
            await asyncio.sleep(60)
        return response


@asynccontextmanager
async def connected(handler: Handler) -> AsyncIterator[Cluster]:
    """Serve and give a client of it."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with client.ApiClient(client.Configuration(host=host)) as api:
            yield Cluster(api)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def following(server: Server) -> AsyncIterator[tuple[Informer[Item], list[Change]]]:
    """Run an informer against the server and note what it tells."""
    changes: list[Change] = []
    async with connected(server.handle) as cluster:
        informer: Informer[Item] = Informer(
            cluster,
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


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await asyncio.sleep(0.01)
