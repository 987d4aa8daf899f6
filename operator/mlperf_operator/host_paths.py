"""Paths on the node by name: whether one lies under another, and which allowed one a pod mounts for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath


def lies_under(path: str, prefix: str) -> bool:
    """Say whether a path is a prefix or lies below it, by name alone; one with `..` lies nowhere."""
    parts, outer = PurePosixPath(path).parts, PurePosixPath(prefix).parts
    return ".." not in parts and parts[: len(outer)] == outer


def outermost(path: str, prefixes: Iterable[str]) -> str | None:
    """Return the outermost of the prefixes that a path lies under, or None where there is none.

    Nobody but the administrator can write outside of it, so no link of a run's leads there.
    """
    found = [prefix for prefix in prefixes if lies_under(path, prefix)]
    return min(found, key=lambda prefix: len(PurePosixPath(prefix).parts), default=None)
