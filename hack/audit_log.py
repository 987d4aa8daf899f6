"""The API server's audit log, as `hack/local-cluster up --audit` has it written: one entry a request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


def entries(folder: Path, since: datetime, *mentions: str) -> Iterator[Entry]:
    """Yield what the server received since then, of the log and those that it was rotated into, in no order.

    `mentions`: only entries that have one of these texts. They are looked for before a line is parsed, as a log has
    hundreds of megabytes.
    """
    for file in folder.glob("audit*.log"):
        if file.stat().st_mtime < since.timestamp():
            continue
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if mentions and not any(text in line for text in mentions):
                    continue
                entry = parse(line)
                if entry is not None and received(entry) >= since:
                    yield entry


def parse(line: str) -> Entry | None:
    """Return the entry of a line; None for the last line of a server that was killed."""
    try:
        entry: Entry = json.loads(line)
    except ValueError:
        return None
    return entry


def received(entry: Entry) -> datetime:
    """Return when the server received the request."""
    return datetime.fromisoformat(entry["requestReceivedTimestamp"])


def resource(entry: Entry) -> str:
    """Return the resource with its subresource, as a role names it: pods/log. Empty for what is about none."""
    reference = entry.get("objectRef", {})
    return "/".join(part for part in (reference.get("resource"), reference.get("subresource")) if part)
