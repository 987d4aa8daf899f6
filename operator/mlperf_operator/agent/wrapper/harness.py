"""A harness step: one benchmark, scenario and mode measured, and whether it measured at all."""

from __future__ import annotations

from pathlib import Path

from mlperf_operator.agent.wrapper import evidence, keep
from mlperf_operator.agent.wrapper.errors import EXIT_TERMINATED, StageError
from mlperf_operator.agent.wrapper.files import utc_now
from mlperf_operator.agent.wrapper.output import kept
from mlperf_operator.agent.wrapper.power import restore_power
from mlperf_operator.agent.wrapper.records import (
    begin_anew,
    keeps_its_result,
    require_same_engines,
    result_files,
    write_record,
)
from mlperf_operator.agent.wrapper.state import Stage, Step
from mlperf_operator.agent.wrapper.telling import said
from mlperf_operator.agent.wrapper.tries import run_command

AUDIT_CONFIG = "audit.config"
"""Settings of a compliance test (code/common/auditing.py), which win over those of a measurement."""


def run_harness(stage: Stage, step: Step) -> bool:
    """Run the harness for one pair and mode into an empty log folder, and leave a record of how it went."""
    if keeps_its_result(stage, step):
        return True
    log_dir = Path(step["result"]["logDir"])
    begin_anew(stage, step, log_dir)
    # LoadGen takes it from the working folder, and an audit that was killed leaves it there.
    (stage.work / AUDIT_CONFIG).unlink(missing_ok=True)
    started, began = utc_now(), evidence.now_by(log_dir)
    try:
        run_command(stage, step)
        require_result(stage, step, began)
        require_same_engines(stage, step)
    except StageError as caught:
        error = judged_by_logs(step, caught)
        if error.code != EXIT_TERMINATED:
            write_record(stage, step, started, error)
        raise error from caught
    finally:
        if "powerSetting" in step["result"]:
            restore_power()
        kept("LoadGen's settings", lambda: keep.copy_measurements(stage.results, stage.work, step["result"]))
    write_record(stage, step, started, None)
    return False


def require_result(stage: Stage, step: Step, began: float) -> None:
    """Raise when the harness left no result of its own: it exits 0 also when it had nothing to do."""
    files, command = result_files(step), " ".join(step["argv"])
    old = evidence.older(files, began)
    if old:
        text = f"{command} left {old[0]}, which is older than this step{said(stage)}"
        raise StageError("StaleLogs", text, command_code=0)
    if files:
        return
    if logged_answers(step):
        text = f"{command} measured, but its accuracy script left no accuracy{said(stage)}"
        raise StageError("AccuracyScriptFailed", text, command_code=0)
    begun = next(Path(step["result"]["logDir"]).rglob("mlperf_log_*"), None)
    if begun is not None:
        raise StageError("PartialLogs", f"{command} left {begun}, and no result{said(stage)}", command_code=0)
    raise StageError("NoResult", f"{command} ended with 0 but wrote no result{said(stage)}", command_code=0)


def logged_answers(step: Step) -> bool:
    """Say whether LoadGen logged the answers of an accuracy run to their end."""
    logs = Path(step["result"]["logDir"]).rglob("mlperf_log_accuracy.json")
    return step["result"]["mode"] == "AccuracyOnly" and any(evidence.is_closed(log) for log in logs)


def judged_by_logs(step: Step, error: StageError) -> StageError:
    """Return a failed harness's error by what it left: answers without a verdict are the accuracy script's failure.

    A script that prints no score leaves accuracy.txt, over which the harness then stumbles before metadata.json.
    """
    judged = any(Path(step["result"]["logDir"]).rglob("metadata.json"))
    if error.reason == "StageFailed" and not judged and logged_answers(step):
        text = f"all answers were logged, but not judged: {error.message}"
        return StageError("AccuracyScriptFailed", text, command_code=error.command_code)
    return error
