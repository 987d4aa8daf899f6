"""The writes in the API server's audit log: whose, of what, when, and with which answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import audit_log
from audit_log import Entry

VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Write:
    """A write, as the API server logged it."""

    at: datetime
    """When the server received it."""
    user: str
    verb: str
    resource: str
    """With its subresource, as in mlperfruns/status."""
    namespace: str
    name: str
    code: int

    @property
    def done(self) -> bool:
        """Whether the server did it."""
        return self.code < 300


def writes(folder: Path, since: datetime) -> list[Write]:
    """Return the writes since then in the audit logs of a folder, by the time when they were received."""
    found = [_write(entry) for entry in audit_log.entries(folder, since) if _is_write(entry)]
    return sorted(found, key=lambda write: write.at)


def parse(line: str) -> Write | None:
    """Return what a line of the log says; None where it is no write, or the last line of a server that was killed."""
    entry = audit_log.parse(line)
    return _write(entry) if entry is not None and _is_write(entry) else None


def _is_write(entry: Entry) -> bool:
    return entry["verb"] in VERBS and "objectRef" in entry and "responseStatus" in entry


def _write(entry: Entry) -> Write:
    reference = entry["objectRef"]
    who = entry.get("impersonatedUser") or entry["user"]
    return Write(
        at=audit_log.received(entry),
        user=who["username"],
        verb=entry["verb"],
        resource=audit_log.resource(entry),
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        code=int(entry["responseStatus"].get("code", 0)),
    )
