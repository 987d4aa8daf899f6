"""One try of a step's command, held against the step's postconditions; if it failed, why."""

from __future__ import annotations

import os

from mlperf_operator.agent.wrapper import evidence
from mlperf_operator.agent.wrapper.errors import EXIT_TRANSIENT, StageError
from mlperf_operator.agent.wrapper.postconditions import broken
from mlperf_operator.agent.wrapper.processes import execute
from mlperf_operator.agent.wrapper.state import Stage, Step
from mlperf_operator.agent.wrapper.telling import MAKE_TRANSIENT, said

FREE_BYTES_MIN = 1024 * 1024


def run_once(stage: Stage, step: Step) -> None:
    """Run a step's command and hold what it left against the postconditions."""
    stage.telling.clear()
    stage.complaints.clear()
    stage.oom_kills = evidence.oom_kills()
    # A step without a command only looks: what it wants must be there already.
    code = execute(stage, step["argv"], step.get("env", {})) if step["argv"] else 0
    problems = [text for _, text in broken(step, content=True)] if code == 0 else []
    if code or problems:
        raise failure(stage, step, code, problems)


def failure(stage: Stage, step: Step, code: int, problems: list[str]) -> StageError:
    """Say why a command did not do its work."""
    command = " ".join(step["argv"])
    if no_space(stage):
        text = f"{command} failed{said(stage)}; free some space on scratch or results, or use a larger volume"
        return StageError("ScratchFull", text, command_code=code)
    if not step["argv"]:
        text = f"{step['id']}: nothing is fetched offline, and scratch has {'; '.join(problems)}"
        return StageError("PostconditionFailed", text)
    if code == 0:
        text = f"{command} ended with 0 but left {'; '.join(problems)}"
        return StageError("PostconditionFailed", text, command_code=code)
    transient = code == EXIT_TRANSIENT or any(map(MAKE_TRANSIENT.search, list(stage.telling)))
    reason = "DownloadFailed" if transient else "StageFailed"
    return StageError(reason, f"{command} ended with {code}{said(stage)}", command_code=code)


def no_space(stage: Stage) -> bool:
    """Say whether a volume is full, by what the command said or by the file system itself."""
    if any(map(evidence.FULL.search, list(stage.telling))):
        return True
    found = [os.statvfs(folder) for folder in (stage.scratch, stage.work, stage.results)]
    return any(space.f_blocks and space.f_bavail * space.f_frsize < FREE_BYTES_MIN for space in found)
