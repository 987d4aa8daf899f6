"""A few paths served by HTTP."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def site(
    port: int, routes: Iterable[web.RouteDef], *, host: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Serve these routes while it is entered, on all addresses unless a host is given.

    Raises:
        OSError: the port is taken.
    """
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        yield
    finally:
        await runner.cleanup()
