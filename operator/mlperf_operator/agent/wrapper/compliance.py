"""An audit step: one compliance test of one benchmark and scenario."""

from __future__ import annotations

import shutil
from pathlib import Path

from mlperf_operator.agent.wrapper import evidence
from mlperf_operator.agent.wrapper.errors import EXIT_TERMINATED, StageError
from mlperf_operator.agent.wrapper.files import utc_now
from mlperf_operator.agent.wrapper.records import (
    begin_anew,
    keeps_its_result,
    require_same_engines,
    verifications,
    was_verified,
    write_record,
)
from mlperf_operator.agent.wrapper.state import Stage, Step
from mlperf_operator.agent.wrapper.telling import said
from mlperf_operator.agent.wrapper.trees import copy_tree
from mlperf_operator.agent.wrapper.tries import run_command


def run_audit(stage: Stage, step: Step) -> bool:
    """Run one compliance test of one pair and move what it left to its log folder; `collect` judges it.

    Its exit code says little: a verification that found a difference ends with 2, an exempted test with 0.
    """
    if keeps_its_result(stage, step):
        return True
    log_dir, origin = Path(step["audit"]["logDir"]), Path(step["audit"]["from"])
    begin_anew(stage, step, log_dir)
    # Every pair and every earlier run of it writes to the same folder of the tree.
    if origin.is_symlink():
        origin.unlink()
    elif origin.exists():
        shutil.rmtree(origin)
    started, began = utc_now(), evidence.now_by(stage.work)
    try:
        failure_of(stage, step, origin, log_dir)
        require_own_verification(stage, step, began)
    except StageError as error:
        if error.code != EXIT_TERMINATED:
            write_record(stage, step, started, error)
        raise
    write_record(stage, step, started, None)
    return False


def failure_of(stage: Stage, step: Step, origin: Path, log_dir: Path) -> None:
    """Run an audit's command and keep what it left; raise when nothing was verified."""
    failed: StageError | None = None
    try:
        run_command(stage, step)
    except StageError as error:
        failed = error
    if origin.is_dir():
        copy_tree(stage, origin, log_dir)
        shutil.rmtree(origin)
    if was_verified(step):
        return
    command = " ".join(step["argv"])
    text = f"{command} ended with 0 but verified nothing{said(stage)}"
    raise failed or StageError("NoResult", text, command_code=0)


def require_own_verification(stage: Stage, step: Step, began: float) -> None:
    """Raise when a verification is older than the audit, or of another engine than the results that it verifies."""
    old = evidence.older(verifications(step), began)
    if old:
        text = f"{' '.join(step['argv'])} left {old[0]}, which is older than this step{said(stage)}"
        raise StageError("StaleLogs", text, command_code=0)
    require_same_engines(stage, step)
