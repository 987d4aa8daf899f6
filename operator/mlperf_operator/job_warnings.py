"""Why Jobs have no pods: what the cluster warns of them, read once for all Jobs of a namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from mlperf_operator.cluster import Cluster
from mlperf_operator.observed import JobRecord, parse_time

FRESH = timedelta(seconds=3)
"""How old an answer may be.

The API server finds Events by reading all of a namespace, which takes it a third of a second where there are ten
thousand; and when it is busy, many Jobs wait for their pods (make bench-scale).
"""


class JobWarnings:
    """The warnings about Jobs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = asyncio.Lock()
        self._read: dict[str, tuple[datetime, list[Mapping[str, Any]]]] = {}
        """By namespace: when they were read, and all of them."""

    async def about(self, job: JobRecord, since: datetime, now: datetime) -> tuple[str, ...]:
        """Return what was said of a Job since a moment, the latest last.

        Raises:
            ApiError: the Events cannot be read.
        """
        found = [e for e in await self._all(job.namespace, now) if e["involvedObject"].get("uid") == job.uid]
        told = [(parse_time(event.get("lastTimestamp")) or since, str(event.get("message", ""))) for event in found]
        return tuple(message for moment, message in sorted(told) if moment >= since)

    async def _all(self, namespace: str, now: datetime) -> list[Mapping[str, Any]]:
        # Who comes while others read takes what they read.
        async with self._lock:
            self._read = {key: read for key, read in self._read.items() if abs(now - read[0]) <= FRESH}
            if namespace not in self._read:
                self._read[namespace] = (now, list(await self._cluster.warnings_about_jobs(namespace)))
            return self._read[namespace][1]
