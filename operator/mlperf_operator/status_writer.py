"""Writing a run's status: at once what somebody waits for, paced what can wait, and each change told as Events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from mlperf_operator.api.v1alpha1 import MLPerfRun, MLPerfRunStatus, to_wire
from mlperf_operator.cluster import ApiError, Cluster
from mlperf_operator.events import event, notes
from mlperf_operator.logs import of_run
from mlperf_operator.observed import RunRecord
from mlperf_operator.status import is_finished

logger = logging.getLogger(__name__)

OnFinished = Callable[[MLPerfRun, MLPerfRunStatus], None]

COALESCE = timedelta(seconds=5)
"""What can wait, such as changes of stages alone, is written at most this often for a run."""

COALESCED_A_SECOND = 10
"""What can wait is written at most this often for all runs together."""

_CAN_WAIT = ("conditions", "node", "stage", "stages")
"""Fields whose change alone can wait, but for a condition's status, and its reason unless that is an ordinary one."""

_ORDINARY_REASONS = frozenset({"Collecting", "Ending", "PodNotCreated", "PodStarting", "Running", "Starting"})
"""What every run goes through; any other reason is told at once, as somebody may have to do something."""


@dataclass(frozen=True)
class _Written:
    """Our last status of a run, and where it stands in the run's history."""

    resource_version: int
    status: MLPerfRunStatus
    at: datetime
    waiting: MLPerfRunStatus | None = None
    """What is to be written next. It counts already: its pod may be gone by then."""


class StatusWriter:
    """Writes statuses, and knows of each run what it wrote last."""

    def __init__(self, cluster: Cluster, runs: Mapping[str, RunRecord], on_finished: OnFinished) -> None:
        self._cluster = cluster
        self._runs = runs
        self._on_finished = on_finished
        self._written: dict[str, _Written] = {}
        """By uid."""

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a run that is gone."""
        self._written.pop(uid, None)

    def latest(self, run: MLPerfRun) -> MLPerfRun:
        """Return the run with the latest status that is known: as it was read, as we wrote it, or as it waits."""
        # The informer may be behind our own last write; resource versions can be compared (KEP-5504). What waits to be
        # written counts for as long as nobody wrote another status.
        written = self._written.get(run.metadata.uid)
        if written is None:
            return run
        version = int(run.metadata.resource_version or 0)
        if version >= written.resource_version and is_finished(run.status):
            self.forget(run.metadata.uid)
            return run
        waits = written.waiting is not None and run.status == written.status
        if version >= written.resource_version and not waits:
            return run
        latest = max(version, written.resource_version)
        metadata = run.metadata.model_copy(update={"resource_version": str(latest)})
        return run.model_copy(update={"metadata": metadata, "status": written.waiting or written.status})

    async def write(self, run: MLPerfRun, status: MLPerfRunStatus, now: datetime) -> timedelta | None:
        """Write the status if it differs; return how long to wait when the change can wait."""
        meta, written = run.metadata, self._written.get(run.metadata.uid)
        if written is not None and run.status is written.waiting:
            run = run.model_copy(update={"status": written.status})
        # Most passes change nothing, and to compare costs less than to write down.
        old, new = ({}, {}) if run.status == status else (to_wire(run.status), to_wire(status))
        if old == new:
            if written is not None:
                self._written[meta.uid] = replace(written, waiting=None)
            return None
        if written is not None and _essence(old) == _essence(new):
            due = written.at + self._coalesce()
            # Not for as long as the API server's clock was set back.
            if written.at <= now < due:
                self._written[meta.uid] = _Written(int(meta.resource_version), run.status, written.at, status)
                return due - now
        body = await self._cluster.apply_run_status(meta.namespace, meta.name, meta.uid, meta.resource_version, new)
        record = self._runs.get(f"{meta.namespace}/{meta.name}")
        if record is not None and record.uid == meta.uid:
            # Else it was deleted and forgotten meanwhile, and nobody would forget it again.
            self._written[meta.uid] = _Written(int(body["metadata"]["resourceVersion"]), status, now)
        if is_finished(status):
            # Once at most: a finished run is written no more. Where the answer to this write is lost, nobody is told.
            self._on_finished(run, status)
        await self._tell(run, status, now)
        return None

    def _coalesce(self) -> timedelta:
        """Return how long a change that can wait does: longer, the more runs are under way."""
        return max(COALESCE, timedelta(seconds=len(self._written) / COALESCED_A_SECOND))

    async def _tell(self, run: MLPerfRun, status: MLPerfRunStatus, now: datetime) -> None:
        for note in notes(run.status, status):
            of_run(logger, run).info("%s: %s", note.reason, note.message)
            try:
                await self._cluster.emit_event(event(run, note, now, status.attempts))
            except ApiError as error:
                # Events are a convenience; the status, which is the truth, is already written.
                of_run(logger, run).warning("event %s was not written: %s", note.reason, error)


def _essence(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a status whose change is written at once: no stages, node, ordinary reasons and wording."""
    kept = {key: value for key, value in status.items() if key not in _CAN_WAIT}
    said = [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", ())]
    return {**kept, "conditions": [(*c[:2], None if c[2] in _ORDINARY_REASONS else c[2]) for c in said]}
