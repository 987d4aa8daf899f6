"""What the wrapper prints, and its copy on the results volume."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from mlperf_operator.agent.wrapper import keep
from mlperf_operator.agent.wrapper.errors import MAX_TERMINATION_BYTES


def emit(data: bytes) -> None:
    """Write to the log as it is, and to its copy; a log that takes nothing must not stop the work."""
    LOG.write(data)
    to_stdout(data)


def to_stdout(data: bytes) -> None:
    """Write to the container's log."""
    # Not by sys.stdout: a thread that holds its lock when the interpreter ends would abort it.
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(1, data) :]


def say(text: str) -> None:
    """Print a line of the wrapper's own."""
    emit(f"[mlperf] {text}\n".encode(errors="replace"))


LOG = keep.StageLog(lambda text: to_stdout(f"[mlperf] {text}\n".encode(errors="replace")))
"""The copy of what a stage prints, on the results volume."""


def kept(what: str, act: Callable[[], object]) -> None:
    """Leave something on the results volume that the work itself does not need."""
    try:
        act()
    except OSError as error:
        # copytree gathers its failures in the text of one error.
        say(f"{what} cannot be kept on the results volume: {error.strerror or str(error)[:MAX_TERMINATION_BYTES]}")
