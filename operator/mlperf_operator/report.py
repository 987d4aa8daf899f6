"""Reading what `collect` reported: pure, from its termination message and its log."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

from pydantic import ValidationError

from mlperf_operator.api.v1alpha1 import MAX_MESSAGE, AuditStatus, ResultStatus
from mlperf_operator.observed import ContainerRecord, Kept, Report

_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"[a-z0-9]+://[!-~]{1,1000}")
_KINDS = ("result", "audit")


class ReportError(Exception):
    """There is no report that can be trusted; the message says why."""


def announced(container: ContainerRecord | None, uid: str) -> str:
    """Return the sha256 that `collect` announced in its termination message for exactly this run.

    Raises:
        ReportError: it has not ended, said nothing that can be read, or spoke of another run.
    """
    if container is None or container.state != "Terminated":
        raise ReportError("collect has not reported")
    said = _object(container.message)
    if said.get("kind") != "report":
        raise ReportError("collect ended without a report")
    if said.get("uid") != uid:
        raise ReportError(f"collect reported for another run ({said.get('uid')})")
    return str(said.get("sha256"))


def parse_log(log: str, uid: str, sha256: str) -> Report:
    """Return the results in collect's log after checking them against its own count and digest, and the announced one.

    Raises:
        ReportError: the log is cut, damaged, or belongs to another run.
    """
    lines = log.splitlines(keepends=True)
    # A second closing line, once the artifacts are dealt with, says the same and what became of them.
    last = next((i for i in range(len(lines) - 1, -1, -1) if _object(lines[i]).get("kind") == "report"), None)
    if last is None:
        raise ReportError("collect's log holds no report")
    closing = _object(lines[last])
    count, reported = closing.get("count"), _last_of_each_step(lines[:last])
    if not isinstance(count, int) or not 0 <= count <= len(reported):
        raise ReportError(f"collect's log is cut: {len(reported)} of {count} results are there")
    chosen = reported[len(reported) - count :]
    found = hashlib.sha256("".join(chosen).encode()).hexdigest()
    if found != sha256 or closing.get("sha256") != sha256:
        raise ReportError("collect's log does not match the digest that it announced")
    entries = [_object(line) for line in chosen]
    if any(entry.get("uid") != uid for entry in (*entries, closing)):
        raise ReportError("collect's log belongs to another run")
    return Report(results=_results(entries), audits=_audits(entries), kept=_kept(closing))


def parse_part(log: str, uid: str, why: str) -> Report | None:
    """Return what can be read of a log that is not whole, None when that is nothing.

    Args:
        log: What there is of it.
        uid: The run's; lines of another run are passed over.
        why: Why the log cannot be read as a whole report.
    """
    results: list[ResultStatus] = []
    audits: list[AuditStatus] = []
    for line in _last_of_each_step(log.splitlines(keepends=True)):
        entry = _object(line)
        if entry.get("uid") != uid:
            continue
        try:
            results += _results([entry])
            audits += _audits([entry])
        except ReportError:
            # It costs this line; the pair is then named as missing.
            continue
    if not results and not audits:
        return None
    return Report(results=tuple(results), audits=tuple(audits), unverified=why or "it cannot be read whole")


def _results(entries: Iterable[dict[str, Any]]) -> tuple[ResultStatus, ...]:
    try:
        found = tuple(ResultStatus.model_validate(e.get("result")) for e in entries if e.get("kind") == "result")
    except ValidationError as error:
        raise ReportError(f"collect's log holds a result that is none: {error}") from error
    if not all(isfinite(number) for result in found for number in _numbers(result)):
        raise ReportError("collect's log holds a result that is no number")
    return found


def _audits(entries: Iterable[dict[str, Any]]) -> tuple[AuditStatus, ...]:
    try:
        return tuple(AuditStatus.model_validate(e.get("audit")) for e in entries if e.get("kind") == "audit")
    except ValidationError as error:
        raise ReportError(f"collect's log holds an audit that is none: {error}") from error


def _kept(closing: dict[str, Any]) -> Kept:
    """Return what became of the files; not covered by the digest, and so taken only as far as it is well formed."""
    said = closing.get("artifacts")
    if not isinstance(said, dict):
        return Kept()
    digest, url, error = (said.get(key) for key in ("manifestSha256", "uploadedTo", "uploadError"))
    return Kept(
        manifest_sha256=digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else None,
        uploaded_to=url if isinstance(url, str) and _URL.fullmatch(url) else None,
        upload_error=error[:MAX_MESSAGE] if isinstance(error, str) and error else None,
    )


def _last_of_each_step(lines: Sequence[str]) -> list[str]:
    # A pair that was measured again has a second line, and anything may stand between the lines of a container's log.
    found: dict[str, str] = {}
    for line in lines:
        entry = _object(line)
        if entry.get("kind") in _KINDS:
            step = str(entry.get("step"))
            found.pop(step, None)
            found[step] = line
    return list(found.values())


def _numbers(result: ResultStatus) -> list[float]:
    # JSON as the API server speaks it has neither NaN nor infinity.
    items = [number for item in result.accuracy for number in (item.value, item.threshold) if number is not None]
    return [*items, *([result.metric.value] if result.metric is not None else [])]


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
