"""What the leader holds: memory, files, watches, tasks, objects. Seen from outside where it can be."""

from __future__ import annotations

import asyncio
import csv
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from chaos.scene import Scene
from fleet import control_plane, requests
from fleet.replica import resident_mb as resident_mb_of
from mlperf_operator.cluster import CLAIMS, CONFIG_MAPS, JOBS, MLPERF_RUNS, PODS, ApiError
from mlperf_operator.naming import SELECTOR

EVERY_SECONDS = 30.0
_CHILDREN = (JOBS, CONFIG_MAPS, PODS, CLAIMS)
_REST_LOOKS = 6
_REST_PAUSE_SECONDS = 3.0
_NOT_NOW = (ApiError, OSError, aiohttp.ClientError, TimeoutError)
"""What asking for a sample meets while a process or the API server is gone."""


@dataclass(frozen=True)
class Sample:
    """The leader at one moment. Megabytes are 10^6 bytes."""

    at: float
    """Seconds since the first run."""
    replica: str
    pid: int
    rss_mb: float
    fds: int
    connections: int
    """To the API server, as the proxy before it sees them; those of watches included."""
    watches: int
    """Likewise."""
    informers: int
    tasks: int
    informer_objects: int
    queue_depth: int
    runs: int
    """In the API, in whatever state."""
    objects: int
    """In the API with our label."""
    api_server_mb: float
    etcd_mb: float
    etcd_file_mb: float

    @property
    def files(self) -> int:
        """File descriptors that are no connection to the API server."""
        return self.fds - self.connections

    @property
    def pooled(self) -> int:
        """Connections that no watch has: the client keeps them for its next requests."""
        return self.connections - self.watches


def totals(metrics: str) -> Mapping[str, float]:
    """Return each metric's sum over its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process; 0 where there is none."""
    try:
        return resident_mb_of(pid)
    except OSError:
        return 0.0


def open_files(pid: int) -> int:
    """Return how many file descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@dataclass(frozen=True)
class Holdings:
    """What a leader holds where nothing happens: the least of several looks, for a request may be under way."""

    files: int
    pooled: int
    tasks: int
    watches: int
    informers: int
    informer_objects: int
    queue_depth: int


class Sampler:
    """Takes samples of whoever leads, and writes them down at once."""

    def __init__(self, scene: Scene, ports: Mapping[str, int], file: Path) -> None:
        """Take the replicas' ports of /metrics, by identity, and a CSV file for the samples."""
        self.samples: list[Sample] = []
        self.started = time.monotonic()
        self._scene = scene
        self._ports = ports
        self._file = file

    async def keep(self) -> None:
        """Take samples until cancelled; none where nobody leads or answers."""
        names = [field.name for field in fields(Sample)]
        with self._file.open("w", newline="") as out:
            rows = csv.DictWriter(out, names)
            rows.writeheader()
            while True:
                await asyncio.sleep(EVERY_SECONDS)
                sample = await self.take()
                if sample is not None:
                    self.samples.append(sample)
                    rows.writerow(asdict(sample))
                    out.flush()
                    print(f"{sample.at:7.1f} s  {_short(sample)}", flush=True)

    async def take(self) -> Sample | None:
        """Return what the leader holds now; None where nobody leads or answers."""
        try:
            return await self._take()
        except _NOT_NOW:
            return None

    async def at_rest(self) -> Holdings:
        """Return what the leader holds while nothing happens.

        Raises:
            RuntimeError: nobody leads.
        """
        found = []
        for _ in range(_REST_LOOKS):
            await asyncio.sleep(_REST_PAUSE_SECONDS)
            sample = await self.take()
            found += [sample] if sample is not None else []
        if not found:
            raise RuntimeError("nobody leads at rest")
        return Holdings(**{f.name: min(getattr(sample, f.name) for sample in found) for f in fields(Holdings)})

    async def _take(self) -> Sample | None:
        pairs = zip(self._scene.replicas, self._scene.proxies, strict=True)
        leading = [(replica, proxy) for replica, proxy in pairs if await replica.says() == "leader"]
        if not leading:
            return None
        replica, proxy = leading[0]
        pid, layout = replica.pid, self._scene.lab.fleet.layout
        # Before the scrape, which has a file and a task of its own.
        rss, fds, connections, watches = resident_mb(pid), open_files(pid), proxy.connections, proxy.watches
        shown = totals(await _text(self._ports[replica.identity]))
        database = layout.state / "etcd" / "member" / "snap" / "db"
        return Sample(
            at=round(time.monotonic() - self.started, 1),
            replica=replica.identity,
            pid=pid,
            rss_mb=round(rss, 2),
            fds=fds,
            connections=connections,
            watches=watches,
            informers=int(shown["mlperf_operator_informer_synced"]),
            tasks=int(shown["mlperf_operator_tasks"]),
            informer_objects=int(shown["mlperf_operator_informer_objects"]),
            queue_depth=int(shown["workqueue_depth"]),
            runs=len(await requests.table(self._scene.lab.cluster, MLPERF_RUNS, self._scene.namespace)),
            objects=await self._objects(),
            api_server_mb=round(_component_mb(self._scene, "kube-apiserver"), 1),
            etcd_mb=round(_component_mb(self._scene, "etcd"), 1),
            etcd_file_mb=round(database.stat().st_size / 1e6, 1),
        )

    async def _objects(self) -> int:
        cluster, namespace = self._scene.lab.cluster, self._scene.namespace
        return sum([len(await requests.table(cluster, kind, namespace, SELECTOR)) for kind in _CHILDREN])


def _short(sample: Sample) -> str:
    known = f"{sample.tasks} tasks, {sample.watches} watches, {sample.informer_objects} records"
    return f"{sample.replica}: {sample.rss_mb:.1f} MB, {sample.fds} files, {known}; {sample.runs} runs are there"


async def _text(port: int) -> str:
    limit = aiohttp.ClientTimeout(total=10)
    url = f"http://127.0.0.1:{port}/metrics"
    async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as answer:
        return await answer.text()


def _component_mb(scene: Scene, name: str) -> float:
    try:
        return resident_mb(control_plane.pid(scene.lab.fleet.layout, name))
    except RuntimeError:
        return 0.0
