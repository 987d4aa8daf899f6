"""The invariants of hack/chaos for runs by the thousand: each is judged when it is gone, and forgotten."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from chaos import invariants
from chaos.audit import Write
from chaos.history import History, Json
from chaos.invariants import Evidence, owner_of
from chaos.lab import utc_now
from chaos.scene import Scene
from fleet.reported import figure
from mlperf_operator.resources.containers import COLLECT
from soak.audit_tail import AuditTail

LOOK_SECONDS = 15.0
HELD_BACK = timedelta(seconds=30)
"""A write is logged when it has been answered: by then every earlier one is in the log."""

GONE_FOR_SECONDS = 60.0
"""After which nothing more is heard of a run: what the garbage collector does, and what was held back of the log."""


def part_of(history: History, uids: Collection[str]) -> History:
    """Return the part of these runs and their Jobs."""
    runs = {uid: history.runs[uid] for uid in uids}
    jobs = {uid: states for uid, states in history.jobs.items() if owner_of(states[0]) in runs}
    return History(runs=runs, jobs=jobs, gone=history.gone)


def forget(history: History, part: History) -> None:
    """Take a part away: all states of all runs would be gigabytes."""
    for uid in part.runs:
        history.gone.discard(uid)
        del history.runs[uid]
    for uid in part.jobs:
        history.gone.discard(uid)
        del history.jobs[uid]


def judge(part: History, truths: Mapping[str, Collection[str]], writes: Sequence[Write]) -> list[str]:
    """Return what is broken about runs, whoever led meanwhile; `writes` may be those of others too."""
    names = {states[-1]["metadata"]["name"] for states in part.runs.values()}
    return invariants.broken(
        Evidence(
            history=part,
            writes=[write for write in writes if write.name in names],
            truths=truths,
            figures={uid: figure(uid) for uid in part.runs},
            # Who led is judged by all writes in their order.
            late=True,
        )
    )


class Ledger:
    """What was found broken so far."""

    def __init__(self, scene: Scene) -> None:
        self.broken: list[str] = []
        self.judged = 0
        self._scene = scene
        self._tail = AuditTail(scene.lab.fleet.audit_logs, "chaos-")
        self._waiting: list[Write] = []
        self._creations: list[Write] = []
        self._lease: list[Write] = []
        """The last write of it that was judged."""
        self._gone_since: dict[str, float] = {}

    async def keep(self) -> None:
        """Judge now and then, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Judge the writes that came, and the runs that are gone."""
        self._waiting += await asyncio.to_thread(self._tail.new)
        self._judge_writes(utc_now() - HELD_BACK)
        self._judge_runs(self._gone())

    async def close(self, left: Sequence[Json], rest: tuple[datetime, datetime]) -> None:
        """Judge all that is left, once everything has been deleted."""
        self._waiting += await asyncio.to_thread(self._tail.new)
        logs = [line for replica in self._scene.replicas for line in replica.odd_lines()]
        self._judge_writes(utc_now(), Evidence(History(), left=left, odd_lines=logs, rest=rest))
        self._judge_runs(self._scene.lab.history.of(self._scene.namespace).runs)
        # Of runs that the watcher never saw.
        self._say(judge(History(), self._scene.truths, ()))
        self._say(self._scene.notes)

    def _judge_writes(self, until: datetime, evidence: Evidence | None = None) -> None:
        ready = sorted((write for write in self._waiting if write.at < until), key=lambda write: write.at)
        self._waiting = [write for write in self._waiting if write.at >= until]
        self._creations += [write for write in ready if (write.verb, write.resource) == ("create", "jobs")]
        found = evidence or Evidence(History())
        found.writes = [*self._lease, *ready]
        self._say(invariants.broken(found))
        leases = [write for write in found.writes if write.done and write.resource == "leases"]
        self._lease = leases[-1:]

    def _gone(self) -> list[str]:
        """Return the runs that have been gone for long enough."""
        now, history = time.monotonic(), self._scene.lab.history
        gone = [uid for uid in history.runs if uid in history.gone]
        self._gone_since = {uid: self._gone_since.get(uid, now) for uid in gone}
        return [uid for uid in gone if now - self._gone_since[uid] >= GONE_FOR_SECONDS]

    def _judge_runs(self, uids: Collection[str]) -> None:
        part = part_of(self._scene.lab.history, uids)
        truths = {uid: self._scene.truths.pop(uid) for uid in part.runs if uid in self._scene.truths}
        self._say(judge(part, truths, self._creations))
        names = {states[-1]["metadata"]["name"] for states in part.runs.values()}
        self._creations = [w for w in self._creations if w.name.removesuffix(f"-{COLLECT}") not in names]
        self.judged += len(part.runs)
        forget(self._scene.lab.history, part)

    def _say(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            print(f"  BROKEN {sentence}", flush=True)
        self.broken += sentences
