"""Locks between callers on one machine."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from local_cluster.layout import cache_dir
from local_cluster.progress import say


@contextmanager
def locked(name: str, waiting_for: str) -> Iterator[None]:
    """Hold the lock `name`; say what we wait for when another caller holds it."""
    path = cache_dir() / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another caller to finish: {waiting_for}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
