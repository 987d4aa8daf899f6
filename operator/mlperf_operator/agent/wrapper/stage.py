"""The stage wrapper: carries out one stage of plan.json in a container of the run's pod.

Usage: python3 stage.py STAGE. Exit codes: 0 done or skipped, 64 configuration, 65 the stage failed, 143 stopped.
A command that ends with 75, or whose recipe does, failed for a passing reason: it is tried again in here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

if not __package__:
    # In the run's pod.
    import as_package  # type: ignore[import-not-found]  # noqa: F401

from mlperf_operator.agent.wrapper import keep
from mlperf_operator.agent.wrapper.errors import ENDING, EXIT_TERMINATED, MAX_TERMINATION_BYTES, StageError, os_failure
from mlperf_operator.agent.wrapper.files import utc_now, write_atomically
from mlperf_operator.agent.wrapper.locks import locked
from mlperf_operator.agent.wrapper.markers import require_inputs
from mlperf_operator.agent.wrapper.output import LOG, kept, say
from mlperf_operator.agent.wrapper.records import measured, write_record
from mlperf_operator.agent.wrapper.state import Stage, Step, load_stage
from mlperf_operator.agent.wrapper.steps import run_step
from mlperf_operator.agent.wrapper.telling import telling_of
from mlperf_operator.agent.wrapper.trees import clear_work

OVERRIDES = Path("/overrides")
"""Where the rendered overrides are mounted (resources/stage_plan.py)."""


def run_stage(stage: Stage) -> str:
    """Carry out a stage's steps and return Completed or Skipped; raises StageError when one failed."""
    with contextlib.ExitStack() as locks:
        # Two pods of one run may overlap for a while, when a node is lost.
        locks.enter_context(locked(stage, stage.state / "run.lock", fcntl.LOCK_EX))
        for name in stage.reads:
            locks.enter_context(locked(stage, stage.common / "locks" / f"{name}.lock", fcntl.LOCK_SH))
        finished = stage.state / f"{stage.name}.finished"
        if finished.exists():
            say(f"stage {stage.name}: was finished before")
            return "Skipped"
        require_inputs(stage)
        failed: dict[str, StageError] = {}
        skipped = [step["id"] for step in stage.steps if try_step(stage, step, failed)]
        counted = {name: error for name, error in failed.items() if not error.root.is_advisory}
        if counted:
            raise summary_of(counted)
        if stage.name == "run":
            # Engines and tree are no longer needed, and are not to be made again if the pod is lost from here on.
            write_atomically(finished, utc_now())
            clear_work(stage)
    return "Skipped" if skipped and len(skipped) == len(stage.steps) else "Completed"


def try_step(stage: Stage, step: Step, failed: dict[str, StageError]) -> bool:
    """Carry out a step and return whether it was skipped; one that others do not depend on may fail."""
    stage.check_time()
    needed = [need for need in step.get("requires", ()) if need in failed]
    try:
        reports = "result" in step or "audit" in step
        if needed and reports and measured(stage, step):
            say(f"{step['id']}: keeps its result, though {needed[0]} failed now")
            return True
        if needed:
            why = f"not run, because {needed[0]} failed: {failed[needed[0]].message}"
            error = StageError("PreviousStepFailed", why)
            error.root = failed[needed[0]].root
            if reports:
                write_record(stage, step, utc_now(), error)
            raise error
        return run_step(stage, step)
    except (StageError, OSError) as caught:
        error = caught if isinstance(caught, StageError) else os_failure(caught)
        error.step = step["id"]
        error.is_advisory = bool(step.get("advisory"))
        error.telling = telling_of(stage) if error.root is error else []
        if not step.get("continueOnFailure") or error.code == EXIT_TERMINATED or error.reason in ENDING:
            raise error from caught
        say(f"{step['id']}: {error.message}; going on with the rest")
        failed[step["id"]] = error
        return False


def summary_of(failed: dict[str, StageError]) -> StageError:
    """Return the first real failure, with how many there were."""
    causes = [error for error in failed.values() if error.reason != "PreviousStepFailed"]
    first = causes[0]
    if len(causes) > 1:
        first.message += f" (and {len(causes) - 1} more: {', '.join(error.step for error in causes[1:])})"
    return first


def termination_message(fields: dict[str, Any], tail: list[str]) -> bytes:
    """Return the termination message: JSON of at most MAX_TERMINATION_BYTES, with the newest lines of the tail."""
    lines, message = "\n".join(tail), str(fields["message"])
    while True:
        encoded = json.dumps({**fields, "message": message, "tail": lines}, ensure_ascii=False).encode(errors="replace")
        if len(encoded) <= MAX_TERMINATION_BYTES or not (lines or message):
            return encoded
        if len(lines) >= len(message):
            lines = lines[len(lines) // 16 + 1 :]
        else:
            message = message[: -(len(message) // 16 + 1)]


def tell(stage_name: str, reason: str, error: StageError | None, stage: Stage | None) -> None:
    """Write the termination message; the kubelet brings it into the pod's status."""
    remark = stage.remark if stage is not None else ""
    fields: dict[str, Any] = {"stage": stage_name[:63], "reason": reason, "message": error.message if error else remark}
    if error is not None:
        fields |= {"step": error.step, "exitCode": error.command_code}
    if stage is not None and stage.facts:
        # A field of its own: a long message is cut, and this is not.
        fields["facts"] = stage.facts
    tail = list(stage.tail) if stage is not None and error is not None else []
    path = Path(os.environ.get("MLPERF_TERMINATION_LOG", "/dev/termination-log"))
    try:
        path.write_bytes(termination_message(fields, tail))
    except OSError as failed:
        say(f"{path} cannot be written: {failed.strerror}")


def main(argv: list[str]) -> int:
    """Carry out the stage that the command line names and return the exit code."""
    name = argv[0] if argv else ""
    # Before anything else: the kernel drops a signal that the first process of a container does not handle.
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    stage: Stage | None = None
    try:
        plan = Path(os.environ.get("MLPERF_PLAN", "/agent/plan.json"))
        stage = load_stage(plan, name)
        stage.stopping = stopping
        LOG.open(stage.results / "stages", name)
        say(f"stage {name}: begins {utc_now()} on {socket.gethostname()}")
        kept("the configuration", lambda: keep.copy_config(stage.results, plan, OVERRIDES))
        reason = run_stage(stage)
    except (StageError, OSError) as caught:
        error = caught if isinstance(caught, StageError) else os_failure(caught)
        say(f"stage {name}: {error.reason}: {error.message}")
        tell(name, error.reason, error, stage)
        return error.code
    say(f"stage {name}: {reason.lower()}")
    tell(name, reason, None, stage)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
