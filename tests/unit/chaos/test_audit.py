"""The audit log as the API server writes it, the last line of a killed one included."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from chaos.audit import Write, writes

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def entry(second: int, verb: str = "patch", *, impersonated: str | None = None, **reference: str) -> dict[str, Any]:
    who = {"impersonatedUser": {"username": impersonated}} if impersonated else {}
    return {
        "requestReceivedTimestamp": (AT + timedelta(seconds=second)).isoformat(),
        "verb": verb,
        "user": {"username": "kubernetes-admin"},
        "objectRef": {"resource": "mlperfruns", "namespace": "n", "name": "demo", **reference},
        "responseStatus": {"code": 200},
        **who,
    }


def log(file: Path, *entries: dict[str, Any], rest: str = "") -> None:
    file.write_text("".join(json.dumps(each) + "\n" for each in entries) + rest)


def test_writes_are_told_in_the_order_of_their_arrival_by_who_was_impersonated(tmp_path: Path) -> None:
    log(tmp_path / "audit.log", entry(2, impersonated="a", subresource="status"), entry(3, "get"), rest='{"verb": "pa')
    log(tmp_path / "audit-2026-01-02.log", entry(1, "delete"))
    first, second = writes(tmp_path, AT)
    assert (first.user, first.verb, first.resource) == ("kubernetes-admin", "delete", "mlperfruns")
    assert second == Write(AT + timedelta(seconds=2), "a", "patch", "mlperfruns/status", "n", "demo", 200)
    assert second.done


def test_only_what_came_since_a_moment_is_told(tmp_path: Path) -> None:
    log(tmp_path / "audit.log", entry(1), entry(2))
    assert [write.at for write in writes(tmp_path, AT + timedelta(seconds=2))] == [AT + timedelta(seconds=2)]
