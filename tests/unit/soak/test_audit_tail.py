"""The audit log is read once, whatever is rotated away meanwhile."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from soak.audit_tail import AuditTail

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def line(second: int, user: str = "chaos-soak-0", verb: str = "patch") -> str:
    entry = {
        "requestReceivedTimestamp": (AT + timedelta(seconds=second)).isoformat(),
        "verb": verb,
        "user": {"username": "kubernetes-admin"},
        "impersonatedUser": {"username": user},
        "objectRef": {"resource": "mlperfruns", "namespace": "n", "name": f"run-{second}"},
        "responseStatus": {"code": 200},
    }
    # As the API server writes it.
    return json.dumps(entry, separators=(",", ":")) + "\n"


def names(tail: AuditTail) -> list[str]:
    return [write.name for write in tail.new()]


def test_each_line_is_told_once(tmp_path: Path) -> None:
    log, tail = tmp_path / "audit.log", AuditTail(tmp_path, "chaos-")
    log.write_text(line(2) + line(1))
    assert names(tail) == ["run-1", "run-2"]
    with log.open("a") as more:
        more.write(line(3))
    assert names(tail) == ["run-3"]
    assert names(tail) == []


def test_a_line_that_is_being_written_is_told_when_it_is_whole(tmp_path: Path) -> None:
    log, tail = tmp_path / "audit.log", AuditTail(tmp_path, "chaos-")
    log.write_text(line(1) + line(2)[:40])
    assert names(tail) == ["run-1"]
    log.write_text(line(1) + line(2))
    assert names(tail) == ["run-2"]


def test_a_file_that_is_rotated_is_not_told_again(tmp_path: Path) -> None:
    log, tail = tmp_path / "audit.log", AuditTail(tmp_path, "chaos-")
    log.write_text(line(1))
    assert names(tail) == ["run-1"]
    with log.open("a") as more:
        more.write(line(2))
    log.rename(tmp_path / "audit-2026-01-02.log")
    log.write_text(line(3))
    assert names(tail) == ["run-2", "run-3"]


def test_reads_and_others_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "audit.log").write_text(line(1, verb="get") + line(2, user="somebody") + line(3))
    assert names(AuditTail(tmp_path, "chaos-")) == ["run-3"]


def test_a_new_file_is_read_from_its_start_whatever_its_inode_had_been(tmp_path: Path) -> None:
    log, tail = tmp_path / "audit.log", AuditTail(tmp_path, "chaos-")
    log.write_text(line(1) + line(2))
    assert names(tail) == ["run-1", "run-2"]
    log.unlink()
    assert names(tail) == []
    log.write_text(line(3))
    assert names(tail) == ["run-3"]
