"""What the API server held, as a watcher saw it that no fault touches: every state of every run, and every Job."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from mlperf_operator.cluster import JOBS, MLPERF_RUNS, ApiError, Cluster, Resource

Json = dict[str, Any]
_WATCHED = (MLPERF_RUNS, JOBS)
_SILENCE_SECONDS = 120.0


@dataclass
class History:
    """States by uid, in the order in which they were seen."""

    runs: dict[str, list[Json]] = field(default_factory=lambda: defaultdict(list))
    jobs: dict[str, list[Json]] = field(default_factory=lambda: defaultdict(list))
    gone: set[str] = field(default_factory=set)
    """Uids of what was deleted."""

    async def record(self, cluster: Cluster) -> None:
        """Watch until cancelled."""
        await asyncio.gather(*(self._follow(cluster, resource) for resource in _WATCHED))

    def of(self, namespace: str) -> History:
        """Return the part about one namespace."""
        kept = History(gone=self.gone)
        for part, whole in ((kept.runs, self.runs), (kept.jobs, self.jobs)):
            part.update({k: v for k, v in whole.items() if v[-1]["metadata"]["namespace"] == namespace})
        return kept

    async def _follow(self, cluster: Cluster, resource: Resource) -> None:
        version: str | None = None
        while True:
            try:
                if version is None:
                    version = await self._list(cluster, resource)
                query = {"resourceVersion": version, "allowWatchBookmarks": "true"}
                async with cluster.watch(resource, query, _SILENCE_SECONDS) as events:
                    async for event in events:
                        version = self._take(resource, event)
            except ApiError as error:
                version = None if error.status == 410 else version
                await asyncio.sleep(0.1)

    async def _list(self, cluster: Cluster, resource: Resource) -> str:
        page = await cluster.list_page(resource, {})
        known = self._of(resource)
        present = {item["metadata"]["uid"] for item in page["items"]}
        self.gone |= known.keys() - present
        for item in page["items"]:
            known[item["metadata"]["uid"]].append(item)
        return str(page["metadata"]["resourceVersion"])

    def _take(self, resource: Resource, event: Json) -> str:
        body = event["object"]
        if event["type"] == "ERROR":
            raise ApiError(int(body.get("code") or 0), str(body.get("reason", "")), str(body.get("message", "")))
        meta = body["metadata"]
        if event["type"] == "DELETED":
            self.gone.add(meta["uid"])
        if event["type"] != "BOOKMARK":
            self._of(resource)[meta["uid"]].append(body)
        return str(meta["resourceVersion"])

    def _of(self, resource: Resource) -> dict[str, list[Json]]:
        return self.runs if resource == MLPERF_RUNS else self.jobs


def condition(run: Json, kind: str) -> tuple[str, str]:
    """Return status and reason of a run's condition; empty where it has none yet."""
    conditions = (run.get("status") or {}).get("conditions") or ()
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == kind), ("", ""))


def finished(run: Json) -> bool:
    """Say whether a run has ended."""
    return condition(run, "Finished")[0] == "True"
