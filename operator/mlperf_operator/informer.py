"""List and watch of one kind of object into slim records."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from mlperf_operator.cluster import ApiError, Cluster, Resource

logger = logging.getLogger(__name__)

PAGE_SIZE = 200
"""Objects in a page of a list: 7 MB of pods, which are in memory more than once while they are read."""

SILENCE_SECONDS = 80.0
"""A watch without an event or bookmark for this long is dead.

The API server sends a bookmark each minute. With less than 80 s a late one would look like a dead watch; with more, the
first bookmark of the next watch would come after health.MAX_SILENCE_SECONDS (150 s), and the process would be restarted
for what a new watch has healed.
"""

WATCH_SECONDS = 290.0
SHORT_WATCH_SECONDS = 1.0
"""A watch that ends earlier and brought nothing is a failure: to open it again at once would never end."""

BACKOFF_CAP_SECONDS = 30.0
GONE = 410


class Record(Protocol):
    """What every record has."""

    @property
    def namespace(self) -> str:
        """Namespace of the object."""

    @property
    def name(self) -> str:
        """Name of the object."""


R = TypeVar("R", bound=Record)
Decode = Callable[[Mapping[str, Any]], R]


class Informer(Generic[R]):
    """The present records of one kind, and who is told when they change."""

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource,
        decode: Decode[R],
        *,
        index: Callable[[R], str],
        on_change: Callable[[R | None, R | None], None],
        label_selector: str = "",
        name: str = "",
    ) -> None:
        self.resource = resource
        self.name = name or resource.plural
        """Tells it from others, in metrics."""
        self.synced = asyncio.Event()
        self.last_activity = time.monotonic()
        self.relists = 0
        self._cluster = cluster
        self._decode = decode
        self._index = index
        self._on_change = on_change
        self._query = {"labelSelector": label_selector} if label_selector else {}
        self._records: dict[str, R] = {}
        self._by_index: dict[str, dict[str, R]] = defaultdict(dict)
        self._version: str | None = None
        self._failures = 0

    @property
    def store(self) -> Mapping[str, R]:
        """The records by namespace/name."""
        return MappingProxyType(self._records)

    def by_index(self, value: str, /) -> tuple[R, ...]:
        """Return the records whose index has this value."""
        return tuple(self._by_index.get(value, {}).values())

    async def run(self) -> None:
        """Keep the records up to date until cancelled. Errors are logged and tried again, for ever."""
        while True:
            try:
                if self._version is None:
                    self._version = await self._list()
                    self.synced.set()
                await self._watch(self._version)
            except ApiError as error:
                if error.status == GONE:
                    self._version = None
                self._failures += 1
                level = logging.INFO if error.status in (0, GONE) else logging.WARNING
                logger.log(level, "watch of %s ended and starts again: %s", self.resource.plural, error)
                await asyncio.sleep(self._pause(error))

    def _pause(self, error: ApiError) -> float:
        """Return the seconds to wait after an error: never less than the server asks for."""
        backoff = min(BACKOFF_CAP_SECONDS, 0.5 * 2.0 ** min(self._failures, 10))
        return (error.retry_after or 0.0) + backoff * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    async def _list(self) -> str:
        """Read all pages and put the difference into the records; return the list's resource version."""
        self.relists += 1
        seen: dict[str, R] = {}
        query = {**self._query, "limit": str(PAGE_SIZE)}
        while True:
            page = await self._cluster.list_page(self.resource, query)
            self.last_activity = time.monotonic()
            for item in page.get("items") or ():
                record = self._decode(item)
                seen[_key(record)] = record
            token = page["metadata"].get("continue")
            if not token:
                break
            query["continue"] = token
        for key in [key for key in self._records if key not in seen]:
            self._put(key, None)
        for key, record in seen.items():
            self._put(key, record)
        return str(page["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> None:
        """Follow the changes from a resource version until the server ends the watch."""
        query = {
            **self._query,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(WATCH_SECONDS * random.uniform(0.8, 1.0))),  # noqa: S311 - jitter
        }
        opened = time.monotonic()
        async with self._cluster.watch(self.resource, query, SILENCE_SECONDS) as events:
            async for event in events:
                # Kept event by event: after an error, going back to `version` would play old states again.
                self._version = self._take(event)
                self._failures = 0
                self.last_activity = time.monotonic()
        if self.last_activity < opened and time.monotonic() - opened < SHORT_WATCH_SECONDS:
            raise ApiError(0, "ShortWatch", "the watch ended at once and brought nothing")

    def _take(self, event: Mapping[str, Any]) -> str:
        kind, body = event["type"], event["object"]
        if kind == "ERROR":
            raise ApiError(int(body.get("code") or 0), str(body.get("reason", "")), str(body.get("message", "")))
        if kind != "BOOKMARK":
            record = self._decode(body)
            self._put(_key(record), None if kind == "DELETED" else record)
        return str(body["metadata"]["resourceVersion"])

    def _put(self, key: str, record: R | None) -> None:
        old = self._records.pop(key, None)
        if old is not None:
            group = self._by_index[self._index(old)]
            group.pop(key, None)
            if not group:
                del self._by_index[self._index(old)]
        if record is not None:
            self._records[key] = record
            self._by_index[self._index(record)][key] = record
        if old != record:
            self._on_change(old, record)


def _key(record: Record) -> str:
    return f"{record.namespace}/{record.name}"
