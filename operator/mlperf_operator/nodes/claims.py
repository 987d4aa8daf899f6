"""Who uses a node's driver: the unfinished runs that want one version of it, kept in an annotation of the node.

A node has one driver. Runs of the same version share it; one of another version waits until they have ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mlperf_operator import naming

MAX_RUNS = 100
"""How many runs may claim a node. All annotations of an object share 256 KiB, and others need theirs, too."""


@dataclass(frozen=True)
class Claim:
    """A version, and the runs that want it: namespace/name by uid."""

    version: str = ""
    runs: Mapping[str, str] = field(default_factory=dict)

    def pruned(self, is_alive: Callable[[str, str], bool]) -> Claim:
        """Return the claim without the runs, by key and uid, that have finished or are gone."""
        return Claim(self.version, {uid: key for uid, key in self.runs.items() if is_alive(key, uid)})

    @property
    def is_full(self) -> bool:
        """Whether no further run may claim the node."""
        return len(self.runs) >= MAX_RUNS

    def joined(self, uid: str, key: str, version: str) -> Claim:
        """Return the claim with one more run."""
        return Claim(version, {**self.runs, uid: key})


def read(annotations: Mapping[str, str]) -> Claim:
    """Return the claim that a node's annotations hold; what nobody can read is none."""
    text = annotations.get(naming.DRIVER_CLAIM_ANNOTATION)
    if text is None:
        # Of a large fleet, nearly every node; they are all asked for each run that changes.
        return Claim()
    try:
        document = json.loads(text)
        return Claim(str(document["version"]), {str(uid): str(key) for uid, key in document["runs"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return Claim()


def write(claim: Claim) -> str | None:
    """Return the annotation's value, or None when nobody claims."""
    if not claim.runs:
        return None
    return json.dumps({"version": claim.version, "runs": dict(claim.runs)}, sort_keys=True)
