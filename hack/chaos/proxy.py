"""A reverse proxy before the API server that does to each request what the weather says."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import yaml
from aiohttp import web

from chaos.weather import Answer, Call, Cut, Expire, Fault, Lag, Lose, Reset, Silence, Wait, Weather, calm

GROUP = "mlperf-chaos-operators"
"""What the operator's rights are bound to: each replica is a user of its own of this group."""

_PASSED_ON = ("Accept", "Content-Type", "User-Agent")
_PAGE = 3
"""Objects in a page of a list: so that few objects have continue tokens."""


@dataclass(frozen=True)
class Upstream:
    """The API server and the administrator's certificate for it."""

    server: str
    ca: Path
    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Return the TLS settings."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.cert, self.key)
        return context


class FaultProxy:
    """Passes the requests of one replica on as a user of its own name, so that the audit log tells replicas apart."""

    def __init__(self, upstream: Upstream, user: str, folder: Path) -> None:
        self.weather: Weather = calm
        self.injected: Counter[str] = Counter()
        self.user = user
        self.kubeconfig = folder / f"{user}.kubeconfig"
        self._upstream = upstream
        self._watches: list[web.Request] = []
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._upstream.context(), limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=16 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # Cancelled with its client: what a dead client asked for and was not passed on yet never happens.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self._write_kubeconfig(f"http://{host}:{port}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    @property
    def watches(self) -> int:
        """How many watches its replica has open."""
        return len(self._watches)

    @property
    def connections(self) -> int:
        """How many connections its replica has open, those of its watches included."""
        server = self._runner.server if self._runner is not None else None
        return len(server.connections) if server is not None else 0

    def cut_watches(self) -> None:
        """Break all of them off."""
        for request in tuple(self._watches):
            _broken(request)

    def _write_kubeconfig(self, server: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "chaos",
            "contexts": [{"name": "chaos", "context": {"cluster": "chaos", "user": "chaos"}}],
            "clusters": [{"name": "chaos", "cluster": {"server": server}}],
            # kopf wants some credentials; the proxy has its own.
            "users": [{"name": "chaos", "user": {"token": "unused"}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(body))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.method, request.path, dict(request.query))
        fault = self.weather(call)
        if fault is not None:
            self.injected[type(fault).__name__ + (f" {fault.status}" if isinstance(fault, Answer) else "")] += 1
        match fault:
            case Answer():
                return _refusal(fault)
            case Reset():
                return _broken(request)
            case Wait(seconds):
                await asyncio.sleep(seconds)
        try:
            return await self._pass_on(request, call, fault)
        except aiohttp.ClientError:
            return _broken(request)

    async def _pass_on(self, request: web.Request, call: Call, fault: Fault | None) -> web.StreamResponse:
        assert self._session is not None  # noqa: S101 - it is entered
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        headers |= {"Impersonate-User": self.user, "Impersonate-Group": GROUP, "Accept-Encoding": "identity"}
        query = dict(request.query)
        if "limit" in query:
            query["limit"] = str(_PAGE)
        url, body = self._upstream.server + request.path, await request.read()
        async with self._session.request(
            request.method, url, params=query, data=body or None, headers=headers
        ) as answer:
            if call.watch and answer.status == 200:
                self._watches.append(request)
                try:
                    return await _stream(request, answer, fault)
                finally:
                    self._watches.remove(request)
            content = await answer.read()
        if isinstance(fault, Lose):
            return _broken(request)
        passed = {name: answer.headers[name] for name in ("Date", "Retry-After") if name in answer.headers}
        return web.Response(status=answer.status, body=content, content_type=answer.content_type, headers=passed)


def _refusal(fault: Answer) -> web.Response:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return web.json_response(_status(fault.status, fault.reason), status=fault.status, headers=headers)


def _status(code: int, reason: str) -> dict[str, object]:
    text = "a fault on purpose"
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": text, "reason": reason, "code": code}


def _broken(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _stream(request: web.Request, answer: aiohttp.ClientResponse, fault: Fault | None) -> web.StreamResponse:
    """Pass a watch on until it ends, the client goes, or the fault has it end."""
    response = web.StreamResponse(headers={"Content-Type": answer.content_type})
    await response.prepare(request)
    lag = fault.seconds if isinstance(fault, Lag) else 0.0
    limit = fault.after if isinstance(fault, Silence | Cut | Expire) else None
    try:
        async with asyncio.timeout(limit):
            async for chunk in answer.content.iter_any():
                await asyncio.sleep(lag)
                await response.write(chunk)
    except TimeoutError:
        await _end_watch(request, response, answer, fault)
    except (aiohttp.ClientError, ConnectionError):
        return _broken(request)
    return response


async def _end_watch(
    request: web.Request, response: web.StreamResponse, answer: aiohttp.ClientResponse, fault: Fault | None
) -> None:
    match fault:
        case Silence():
            await asyncio.Event().wait()
        case Expire():
            error = {"type": "ERROR", "object": _status(410, "Expired")}
            await response.write(json.dumps(error).encode() + b"\n")
        case _:
            chunk = await answer.content.readany()
            await response.write(chunk[: len(chunk) // 2])
            _broken(request)
