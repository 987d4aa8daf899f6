"""From an MLPerfRun as stored to the typed one; what another version of the API wrote may not be typed here."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from mlperf_operator.api.v1alpha1 import ConditionType, MLPerfRun, MLPerfRunSpec, MLPerfRunStatus, ObjectMeta
from mlperf_operator.observed import Raw, RunRecord

_SHOWN = 63
"""How much of a key that a user chose stands in a message."""

_CONDITION_TYPES = frozenset(kind.value for kind in ConditionType)


class UnreadableError(Exception):
    """A run that does not validate: what could be read of it, and what could not."""

    def __init__(self, run: MLPerfRun, problem: str) -> None:
        super().__init__(problem)
        self.run = run


def typed(record: RunRecord) -> MLPerfRun:
    """Return the run.

    Raises:
        UnreadableError: it does not validate.
    """
    body = record.body
    status = _known_status(body.get("status") or {})
    try:
        return MLPerfRun.model_validate({**body, "status": status})
    except ValidationError as error:
        run = MLPerfRun.model_construct(
            metadata=ObjectMeta.model_validate(body["metadata"]),
            spec=_readable_spec(body.get("spec") or {}),
            status=_readable_status(status),
        )
        raise UnreadableError(run, problems(error)) from error


def _known_status(status: Raw) -> dict[str, Any]:
    # Anybody may add a condition of a type of their own; server-side apply keeps it theirs.
    conditions = status.get("conditions") or ()
    return {**status, "conditions": [c for c in conditions if c.get("type") in _CONDITION_TYPES]}


def _readable_spec(spec: Raw) -> MLPerfRunSpec:
    ttl = spec.get("ttlSecondsAfterFinished")
    return MLPerfRunSpec.model_construct(
        system="", benchmarks=[], ttl_seconds_after_finished=ttl if isinstance(ttl, int) else None
    )


def _readable_status(status: Raw) -> MLPerfRunStatus:
    try:
        return MLPerfRunStatus.model_validate(status)
    except ValidationError:
        return MLPerfRunStatus.model_construct(job_name=status.get("jobName"))


def problems(error: ValidationError) -> str:
    """Return what is wrong with a spec, one sentence a field."""
    parts = [f"{'.'.join(str(p)[:_SHOWN] for p in e['loc'])}: {e['msg']}" for e in error.errors(include_url=False)]
    return "; ".join(parts)
