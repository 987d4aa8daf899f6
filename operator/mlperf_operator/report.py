"""Reading what `collect` reported: pure, from its termination message and its log."""

from __future__ import annotations

import hashlib
import json
from math import isfinite
from typing import Any

from pydantic import ValidationError

from mlperf_operator.api.v1alpha1 import ResultStatus
from mlperf_operator.observed import ContainerRecord, Report


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
    try:
        results = tuple(ResultStatus.model_validate(entry.get("result")) for entry in entries)
    except ValidationError as error:
        raise ReportError(f"collect's log holds a result that is none: {error}") from error
    if not all(isfinite(number) for result in results for number in _numbers(result)):
        raise ReportError("collect's log holds a result that is no number")
    return Report(results=results)


def _last_of_each_step(lines: list[str]) -> list[str]:
    # A pair that was measured again has a second line, and anything may stand between the lines of a container's log.
    found: dict[str, str] = {}
    for line in lines:
        entry = _object(line)
        if entry.get("kind") == "result":
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
