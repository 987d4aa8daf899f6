"""What the API server's audit log says: requests by who made them, and when each object was created."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import audit_log

UNCOUNTED = ("events", "leases")
"""Events are told beside; the Lease is renewed by the clock and not for a run."""

Key = tuple[str, str]
"""Verb, and resource with its subresource."""


@dataclass
class Requests:
    """Of a user since a moment."""

    made: Counter[Key] = field(default_factory=Counter)
    created: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """By resource and name: when the API server answered the creation, whoever asked for it."""

    def counted(self) -> int:
        """Return how many there were, but for UNCOUNTED."""
        return sum(count for (_, resource), count in self.made.items() if resource not in UNCOUNTED)

    def writes(self) -> Counter[Key]:
        """Return those that change something, but for the Lease."""
        reads = ("get", "list", "watch")
        return Counter({k: n for k, n in self.made.items() if k[0] not in reads and k[1] != "leases"})

    def latencies(self, namespace: str) -> list[float]:
        """Return the seconds from each run's creation to its Job's, shortest first."""
        runs = {name: at for (kind, name), at in self.created.items() if kind == "mlperfruns"}
        jobs = {name: at for (kind, name), at in self.created.items() if kind == "jobs"}
        own = [name for name in runs if name in jobs and name.startswith(f"{namespace}/")]
        return sorted((jobs[name] - runs[name]).total_seconds() for name in own)


def requests_since(folder: Path, user: str, since: datetime) -> Requests:
    """Read the audit logs in a folder, the rotated ones included."""
    found = Requests()
    for entry in audit_log.entries(folder, since, user, '"resource":"jobs"', '"resource":"mlperfruns"'):
        # A log or a watch is told when its answer begins, too.
        if entry["stage"] != "ResponseComplete":
            continue
        reference, resource = entry.get("objectRef", {}), audit_log.resource(entry)
        if entry["user"]["username"] == user:
            found.made[entry["verb"], resource] += 1
        if entry["verb"] == "create" and resource in ("mlperfruns", "jobs"):
            name = f"{reference.get('namespace')}/{reference.get('name')}"
            found.created[resource, name] = datetime.fromisoformat(entry["stageTimestamp"])
    return found
