"""Why a stage cannot go on, as the reason and the exit code that the operator reads."""

from __future__ import annotations

import errno

from mlperf_operator.agent.wrapper import evidence

EXIT_CONFIG = 64
EXIT_FAILED = 65
EXIT_TERMINATED = 143
EXIT_TRANSIENT = 75
"""EX_TEMPFAIL of sysexits.h."""

MAX_TERMINATION_BYTES = 1000
"""The kubelet keeps 12 KiB of messages a pod, shared by its containers, and keeps the head of each."""

PASSING = ("DownloadFailed", "StageFailed", "PostconditionFailed")
"""Reasons that another try may mend."""

ENDING = ("StageTimeout", "EnvironmentFailed")
"""Reasons after which no other step can do better."""


class StageError(Exception):
    """The stage cannot go on; becomes the termination message."""

    def __init__(self, reason: str, message: str, *, code: int = EXIT_FAILED, command_code: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.code = code
        self.command_code = command_code
        self.step = ""
        self.telling: list[str] = []
        """Lines of the command that show why it failed."""
        self.is_advisory = False
        """Whether the stage may end well all the same."""
        self.root: StageError = self
        """The failure of an earlier step that this one follows from."""


def config_error(text: str) -> StageError:
    """Return the error of what only another configuration can mend."""
    return StageError("ConfigInvalid", text, code=EXIT_CONFIG)


def os_failure(error: OSError) -> StageError:
    """Return the error of a failed system call; a full volume has a reason of its own."""
    text = f"{error.strerror}: {error.filename}" if error.filename else str(error)[:MAX_TERMINATION_BYTES]
    # copytree gathers what went wrong in the text of one error that has no number.
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or evidence.FULL.search(str(error)):
        return StageError("ScratchFull", f"{text}; free some space or use a larger volume")
    return StageError("StageFailed", text)
