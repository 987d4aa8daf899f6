"""A small API server over HTTP: it stores, lists, watches and says 404 and 409, and no more than that."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from mlperf_operator.observed import format_time
from unit.nodes.api import merged
from unit.runtime.stream_server import refusal

Body = dict[str, Any]


@dataclass
class FakeApi:
    """Objects by path, and whoever watches their collection."""

    objects: dict[str, Body] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refused: dict[str, web.Response] = field(default_factory=dict)
    """Answers by `METHOD path`, each given once."""
    version: int = 0
    history: list[tuple[int, str, Body]] = field(default_factory=list)
    watchers: list[tuple[str, asyncio.Queue[Body]]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        refused = self.refused.pop(self.requests[-1], None)
        if refused is not None:
            return refused
        if "watch" in request.query:
            return await self._watch(request)
        answer = getattr(self, f"_{request.method.lower()}")
        body = json.loads(await request.read() or b"{}")
        found: web.Response = answer(request.path.removesuffix("/status"), body)
        return found

    def put(self, path: str, body: Body, kind: str = "ADDED") -> Body:
        """Store an object and tell who watches."""
        self.version += 1
        meta = body.setdefault("metadata", {})
        meta["resourceVersion"] = str(self.version)
        meta.setdefault("uid", f"uid-{self.version}")
        meta.setdefault("creationTimestamp", format_time(datetime.now(UTC)))
        self.objects[path] = body
        self._tell(path, {"type": kind, "object": body})
        return body

    def delete(self, path: str) -> None:
        """Delete an object and tell who watches."""
        body = self.objects.pop(path)
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self._tell(path, {"type": "DELETED", "object": body})

    def _tell(self, path: str, event: Body) -> None:
        frozen: Body = json.loads(json.dumps(event))
        self.history.append((self.version, path, frozen))
        for plural, queue in self.watchers:
            if f"/{plural}/" in path:
                queue.put_nowait(frozen)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[Body] = asyncio.Queue()
        plural, since = request.path.rsplit("/", 1)[1], int(request.query["resourceVersion"])
        for version, path, event in self.history:
            if version > since and f"/{plural}/" in path:
                queue.put_nowait(event)
        self.watchers.append((plural, queue))
        while True:
            await response.write(json.dumps(await queue.get()).encode() + b"\n")

    def _get(self, path: str, _body: Body) -> web.Response:
        if path in self.objects:
            return web.json_response(self.objects[path])
        plural = path.rsplit("/", 1)[1]
        if path.endswith(("mlperfruns", "jobs", "pods", "events", "nodes", "daemonsets")):
            items = [body for stored, body in self.objects.items() if f"/{plural}/" in stored]
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})
        return refusal(404)

    def _post(self, path: str, body: Body) -> web.Response:
        path = f"{path}/{body['metadata']['name']}"
        if path in self.objects:
            return web.json_response({"code": 409, "reason": "AlreadyExists"}, status=409)
        return web.json_response(self.put(path, body))

    def _put(self, path: str, body: Body) -> web.Response:
        return web.json_response(self.put(path, body, "MODIFIED"))

    def _patch(self, path: str, body: Body) -> web.Response:
        if "/nodes/" in path:
            return self._merge(path, body)
        if "/daemonsets/" in path:
            return web.json_response(self.put(path, body, "MODIFIED"))
        stored = self.objects[path]
        changed = {**stored, "status": body["status"]} if "status" in body else {**stored, "spec": body["spec"]}
        return web.json_response(self.put(path, changed, "MODIFIED"))

    def _merge(self, path: str, patch: Body) -> web.Response:
        if patch["metadata"].pop("resourceVersion") != self.objects[path]["metadata"]["resourceVersion"]:
            return web.json_response({"code": 409, "reason": "Conflict"}, status=409)
        return web.json_response(self.put(path, merged(self.objects[path], patch), "MODIFIED"))

    def _delete(self, path: str, _body: Body) -> web.Response:
        self.delete(path)
        return web.json_response({})
