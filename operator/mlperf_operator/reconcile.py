"""One reconciliation: observe, plan, act, status. Every decision is made from the present state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from mlperf_operator import plan
from mlperf_operator.acceptance import Limits, Refusal, refusal
from mlperf_operator.act import NameTakenError, act
from mlperf_operator.api.v1alpha1 import MLPerfRun, MLPerfRunSpec, MLPerfRunStatus, ObjectMeta, to_wire
from mlperf_operator.cluster import ApiError, Cluster
from mlperf_operator.events import event, notes
from mlperf_operator.gpu_config import ConfigError
from mlperf_operator.inputs import InputsReader, NotReadyError
from mlperf_operator.observe import Observer, Views
from mlperf_operator.observed import Blocked, Observed, RunRecord, decode_job
from mlperf_operator.outcome import Phase, outcome
from mlperf_operator.status import is_finished, next_status, refused_status
from mlperf_operator.suites import Suite

logger = logging.getLogger(__name__)

COALESCE = timedelta(seconds=5)
"""Changes of stages alone are written at most this often."""

CONFLICT_RETRY = timedelta(seconds=2)
AT_ONCE = timedelta(0)


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Written:
    """Our last status of a run, and where it stands in the run's history."""

    resource_version: int
    status: MLPerfRunStatus
    at: datetime


class Reconciler:
    """Brings one run at a time closer to what its spec asks."""

    def __init__(
        self,
        cluster: Cluster,
        views: Views,
        limits: Limits,
        inputs: InputsReader,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._cluster = cluster
        self._views = views
        self._limits = limits
        self._inputs = inputs
        self._observer = Observer(cluster, views)
        self._now = now
        self._written: dict[str, _Written] = {}

    async def reconcile(self, key: str) -> timedelta | None:
        """Reconcile the run of that namespace/name.

        Returns:
            After how long to look again, or None when only an event can change anything.

        Raises:
            ApiError: the API server failed; the caller retries with backoff.
        """
        record = self._views.runs.get(key)
        if record is None:
            return None
        try:
            run = self._with_written_status(MLPerfRun.model_validate(record.body))
        except ValidationError as error:
            await self._refuse_unreadable(record, error)
            return None
        if run.metadata.deletion_timestamp is not None:
            return None
        if is_finished(run.status):
            return await self._finish(run)
        refused = refusal(run, self._limits)
        if refused is not None:
            return await self._refuse(run, refused)
        return await self._advance(run, self._limits.suites[run.spec.suite])

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a run that is gone."""
        self._written.pop(uid, None)

    def _with_written_status(self, run: MLPerfRun) -> MLPerfRun:
        # The informer may be behind our own last write; resource versions can be compared (KEP-5504).
        written = self._written.get(run.metadata.uid)
        if written is None or int(run.metadata.resource_version or 0) >= written.resource_version:
            return run
        return run.model_copy(update={"status": written.status})

    async def _advance(self, run: MLPerfRun, suite: Suite) -> timedelta | None:
        now = self._now()
        observed = await self._observer.observe(run, now)
        try:
            observed = await self._act(run, suite, observed, now)
        except ConfigError as error:
            return await self._refuse(run, Refusal("InvalidGpuConfig", str(error)))
        except NameTakenError as error:
            if error.deleting:
                return CONFLICT_RETRY
            return await self._refuse(run, Refusal("NameConflict", f"{error}; delete it or give the run another name"))
        status = next_status(run, suite, observed, now)
        pause = await self._write(run, status, now)
        if is_finished(status):
            return AT_ONCE
        pauses = [p for p in (pause, plan.next_look(run, observed, now)) if p is not None]
        return min(pauses, default=None)

    async def _act(self, run: MLPerfRun, suite: Suite, observed: Observed, now: datetime) -> Observed:
        phase = outcome(run, observed, now).phase
        if phase is Phase.NOT_STARTED:
            return await self._start(run, suite, observed)
        actions = plan.keep_going(run, observed)
        if phase is Phase.COLLECTING:
            actions += plan.recover(run, observed, suite, self._inputs.images(run, suite))
        await act(self._cluster, run, observed.job, actions)
        return observed

    async def _start(self, run: MLPerfRun, suite: Suite, observed: Observed) -> Observed:
        try:
            inputs = await self._inputs.read(run, suite)
            body = await act(self._cluster, run, None, plan.start(run, inputs))
        except NotReadyError as error:
            return replace(observed, blocked=error.blocked)
        except ApiError as error:
            if error.status != 403:
                raise
            reason = "QuotaExceeded" if "exceeded quota" in error.message else "CreationForbidden"
            return replace(observed, blocked=Blocked(reason, error.message))
        job = decode_job(body) if body is not None else None
        return replace(observed, job=job, config_digest=plan.config_digest(run, inputs))

    async def _finish(self, run: MLPerfRun) -> timedelta | None:
        now, observed = self._now(), self._observer.recorded(run)
        await act(self._cluster, run, observed.job, plan.finish(run, observed, now))
        return plan.next_look(run, observed, now)

    async def _refuse(self, run: MLPerfRun, refused: Refusal) -> timedelta | None:
        now = self._now()
        await self._write(run, refused_status(run, refused, now), now)
        return AT_ONCE if run.spec.ttl_seconds_after_finished is not None else None

    async def _refuse_unreadable(self, record: RunRecord, error: ValidationError) -> None:
        run = MLPerfRun.model_construct(
            metadata=ObjectMeta.model_validate(record.body["metadata"]),
            spec=MLPerfRunSpec.model_construct(system="", benchmarks=[]),
            status=MLPerfRunStatus.model_validate(record.body.get("status") or {}),
        )
        run = self._with_written_status(run)
        if not is_finished(run.status):
            await self._refuse(run, Refusal("InvalidSpec", problems(error)))

    async def _write(self, run: MLPerfRun, status: MLPerfRunStatus, now: datetime) -> timedelta | None:
        """Write the status if it differs; return how long to wait when the change can wait."""
        old, new = to_wire(run.status), to_wire(status)
        if old == new:
            return None
        meta = run.metadata
        written = self._written.get(meta.uid)
        if written is not None and _essence(old) == _essence(new) and now < written.at + COALESCE:
            return written.at + COALESCE - now
        body = await self._cluster.apply_run_status(meta.namespace, meta.name, meta.uid, new)
        self._written[meta.uid] = _Written(int(body["metadata"]["resourceVersion"]), status, now)
        await self._tell(run, status, now)
        return None

    async def _tell(self, run: MLPerfRun, status: MLPerfRunStatus, now: datetime) -> None:
        for note in notes(run.status, status):
            try:
                await self._cluster.emit_event(event(run, note, now, status.attempts))
            except ApiError as error:
                # Events are a convenience; the status, which is the truth, is already written.
                logger.warning("event %s was not written: %s", note.reason, error)


def _essence(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a status whose change is written at once: all but stages and wording."""
    kept = {key: value for key, value in status.items() if key not in ("stages", "stage", "conditions")}
    return {**kept, "conditions": [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", ())]}


def problems(error: ValidationError) -> str:
    """Return what is wrong with a spec, one sentence a field."""
    parts = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors(include_url=False)]
    return "; ".join(parts)
