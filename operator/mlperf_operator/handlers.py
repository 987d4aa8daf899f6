"""Kopf registration: the only module that imports kopf. An event of a run does nothing but wake the queue."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import kopf
from kopf._cogs.clients.errors import APIError

from mlperf_operator.api.v1alpha1 import GROUP, PLURAL, VERSION
from mlperf_operator.cluster import METADATA_ALONE
from mlperf_operator.informer import PAGE_SIZE
from mlperf_operator.naming import MANAGER

Wake = Callable[[str], None]

logger = logging.getLogger(__name__)

_BACKOFF_CAP_SECONDS = 60.0
_RESTART_SECONDS = 5.0


class EndlessBackoffs:
    """Pauses in seconds that grow to a cap and never end: kopf gives up for good when they do."""

    def __iter__(self) -> Iterator[float]:
        """Start the pauses again, as kopf does for each request."""
        for attempt in itertools.count():
            yield min(_BACKOFF_CAP_SECONDS, 2.0 ** min(attempt, 6)) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter


class NoDiffs(kopf.DiffBaseStorage):
    """Keeps no earlier state of an object: only kopf's change handlers want one, and a copy an event costs most."""

    def build(self, **_: object) -> kopf.BodyEssence:
        """Return nothing to compare."""
        return kopf.BodyEssence()

    def fetch(self, **_: object) -> None:
        """Return that nothing was kept."""

    def store(self, **_: object) -> None:
        """Keep nothing."""


async def _metadata_alone(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Ask for no more of a run than its metadata: it may be large, and nothing but its name is taken from kopf.

    Not of a list: without any run it would come with null for its items, which kopf does not expect.
    """
    if "watch" in request.url.query:
        request.headers["Accept"] = METADATA_ALONE
    return await handler(request)


def _session(found: kopf.ConnectionInfo) -> kopf.AiohttpSession:
    """Return kopf's own session but for what it reads of a run."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=found.as_ssl_context()),
        headers=found.as_http_headers(),
        trust_env=found.trust_env,
        middlewares=(_metadata_alone,),
    )
    return kopf.AiohttpSession(server=found.server, priority=found.priority, aiohttp_session=session)


def registry(wake: Wake) -> kopf.OperatorRegistry:
    """Return kopf's handlers."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**kwargs: Any) -> kopf.AiohttpSession | None:  # noqa: ANN401 - kopf's own arguments
        found = kopf.login_via_client(**kwargs)
        return _session(found) if found is not None else None

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: object) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.networking.request_timeout = 30
        settings.networking.error_backoffs = EndlessBackoffs()
        settings.watching.inactivity_timeout = 70
        settings.watching.chunk_size = PAGE_SIZE
        settings.queueing.idle_timeout = 0.1
        settings.persistence.diffbase_storage = NoDiffs()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def changed(namespace: str | None, name: str | None, **_: object) -> None:
        wake(f"{namespace}/{name}")

    return handlers


async def watch(wake: Wake) -> None:
    """Run kopf until it is stopped.

    It ends on refusals that it has no answer to, such as 410 to a list (docs/faults.md). The operator's own informer
    goes on meanwhile, so kopf is started again and the process is not.
    """
    while True:
        try:
            # Without an identity kopf asks for the user's name, which the uid of the image does not have.
            identity: Any = MANAGER
            await kopf.operator(registry=registry(wake), standalone=True, clusterwide=True, identity=identity)
        except APIError as error:
            logger.warning("kopf's watch was refused and starts again: %s", error)
            await asyncio.sleep(_RESTART_SECONDS)
        else:
            return
