"""The API server's audit log: who wrote what, when, and with which answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

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


def writes(folder: Path, since: datetime | None = None) -> list[Write]:
    """Return the writes of all audit logs in a folder, rotated ones included, by the time when they were received."""
    found = [write for file in folder.glob("audit*.log") for write in _of(file)]
    return sorted((w for w in found if since is None or w.at >= since), key=lambda write: write.at)


def _of(file: Path) -> Iterator[Write]:
    with file.open() as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                # The last line of a server that was killed.
                continue
            if entry["verb"] in VERBS and "objectRef" in entry and "responseStatus" in entry:
                yield _write(entry)


def _write(entry: dict[str, Any]) -> Write:
    reference = entry["objectRef"]
    parts = (reference.get("resource", ""), reference.get("subresource", ""))
    who = entry.get("impersonatedUser") or entry["user"]
    return Write(
        at=datetime.fromisoformat(entry["requestReceivedTimestamp"]),
        user=who["username"],
        verb=entry["verb"],
        resource="/".join(part for part in parts if part),
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        code=int(entry["responseStatus"].get("code", 0)),
    )
