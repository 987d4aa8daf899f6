"""Locks on what several runs, or two pods of one run, write and read."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from mlperf_operator.agent.wrapper.errors import config_error
from mlperf_operator.agent.wrapper.output import say
from mlperf_operator.agent.wrapper.state import Stage, Step, is_shared

LOCK_NOTICE_SECONDS = 30


@contextlib.contextmanager
def locked(stage: Stage, path: Path, kind: int) -> Iterator[None]:
    """Hold a lock: LOCK_EX to write what it guards, LOCK_SH to read it.

    Commands inherit it, so that it lasts as long as one that still works, even when this wrapper was killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        wait_for(stage, file, path.stem, kind)
        if kind == fcntl.LOCK_EX:
            file.truncate(0)
        if stage.uid not in holders(file):
            file.write(f"{stage.uid}\n")
            file.flush()
        stage.inherited.append(file.fileno())
        try:
            yield
            # All is well: a daemon that a command left behind must not keep it.
            fcntl.flock(file, fcntl.LOCK_UN)
        finally:
            stage.inherited.remove(file.fileno())


def wait_for(stage: Stage, file: TextIO, what: str, kind: int) -> None:
    """Take a lock as soon as it is free, saying who has it; time and SIGTERM go on counting."""
    told = -float(LOCK_NOTICE_SECONDS)
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            stage.check_time()
        except OSError as error:
            raise config_error(f"the volume of {file.name} does no file locks: {error.strerror}") from error
        else:
            return
        if time.monotonic() - told >= LOCK_NOTICE_SECONDS:
            told = time.monotonic()
            names = ["an earlier attempt of this run" if n == stage.uid else f"run {n}" for n in holders(file)]
            say(f"{what}: waiting for {', '.join(names) or 'another run'}, which writes or reads it")
        time.sleep(0.2)


def holders(file: TextIO) -> list[str]:
    """Return the runs that took a lock since it was last taken for writing, at most three."""
    file.seek(0)
    return file.read().split()[-3:]


def step_lock(stage: Stage, step: Step, digest: str, kind: int) -> contextlib.AbstractContextManager[None]:
    """Return the lock of a shared step; of the others there is only the run's own."""
    if not is_shared(step):
        return contextlib.nullcontext()
    # Built trees lie apart by digest; everything else is written where every version of the step writes.
    name = f"{step['id']}-{digest[:16]}" if step.get("publishTree") else step["id"]
    return locked(stage, stage.common / "locks" / f"{name}.lock", kind)
