"""Turns what was found into the node's report, small enough for a termination message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.facts import Facts
from mlperf_operator.agent.driver.host import redacted
from mlperf_operator.catalogue import Target
from mlperf_operator.driver_report import MAX_MESSAGE, REMEDIES, NodeReport, Reason, encode

MAX_REPORT = 4096
"""Bytes of a termination message that the kubelet keeps."""


def build(
    facts: Facts, target: Target, error: DriverError | None, *, changed: bool, managed_by: str | None
) -> NodeReport:
    """Return the report on a host: ready when there is no error.

    Args:
        facts: the host as it is now.
        target: what it shall have.
        error: what is wrong; the remedy is added by its reason.
        changed: whether the host was changed.
        managed_by: mlperf-operator, or host where its driver was there before.
    """
    reason = error.reason if error is not None else Reason.MATCHED
    report = NodeReport(
        ready=error is None,
        reason=reason.value,
        message=cut(f"{error.detail}. Next: {REMEDIES[reason]}" if error is not None else _matched(facts, target)),
        changed=changed,
        driver=facts.loaded,
        fabric_manager=facts.fabric_manager.version if facts.nvswitches else None,
        gpus=facts.gpus,
        product=cut(facts.product, 200) if facts.product is not None else None,
        managed_by=managed_by,
        users=error.users if error is not None else (),
    )
    while len(encode(report).encode()) > MAX_REPORT and report.users:
        # The first are named; the message says how many there are.
        report = report.model_copy(update={"users": report.users[:-1]})
    return report


def _matched(facts: Facts, target: Target) -> str:
    parts = [f"driver {facts.loaded}"]
    if facts.nvswitches:
        parts.append(f"fabric manager {facts.fabric_manager.version}")
    if target.toolkit is not None:
        parts.append("container toolkit")
    return f"{', '.join(parts)} and {facts.gpus} GPUs match"


def joined(found: Sequence[DriverError]) -> DriverError | None:
    """Return all findings as one error, with the reason of the first; None where there is none."""
    if not found:
        return None
    first = found[0]
    return DriverError(first.reason, "; ".join(error.detail for error in found), users=first.users)


def cut(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return a text as one line that takes at most `limit` bytes in JSON, where quotes and control characters grow.

    User and password of URLs are left out.
    """
    # A file name of the host may hold bytes that are no text.
    line = redacted(" ".join(text.encode(errors="replace").decode().split()))
    if _size(line) <= limit:
        return line
    kept, room = [], limit - _size("…")
    for character in line:
        room -= _size(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


def _size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def write(report: NodeReport, path: Path) -> None:
    """Write the report where the kubelet reads the termination message."""
    path.write_text(encode(report))
