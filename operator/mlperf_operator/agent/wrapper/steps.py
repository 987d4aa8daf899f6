"""What each kind of step does, unless it is done already."""

from __future__ import annotations

import fcntl
import json
import sys
import time
from pathlib import Path

from mlperf_operator.agent.wrapper import contents, keep
from mlperf_operator.agent.wrapper.code_tree import copy_code
from mlperf_operator.agent.wrapper.compliance import run_audit
from mlperf_operator.agent.wrapper.environment import run_snapshot
from mlperf_operator.agent.wrapper.errors import EXIT_CONFIG, StageError
from mlperf_operator.agent.wrapper.files import matching, write_atomically
from mlperf_operator.agent.wrapper.harness import run_harness
from mlperf_operator.agent.wrapper.locks import step_lock
from mlperf_operator.agent.wrapper.markers import identity, look_up, mark_done
from mlperf_operator.agent.wrapper.output import kept, say
from mlperf_operator.agent.wrapper.processes import execute
from mlperf_operator.agent.wrapper.state import Stage, Step
from mlperf_operator.agent.wrapper.telling import FACTS, FINDING, said
from mlperf_operator.agent.wrapper.trees import is_built, publish_tree, restore_tree
from mlperf_operator.agent.wrapper.tries import run_command


def run_preflight(stage: Stage, step: Step) -> None:
    """Look at everything before anything is downloaded, and tell every finding at once.

    In a process of its own: a driver that hangs or crashes must not take the wrapper with it.
    """
    program = Path(__file__).with_name("preflight.py")
    stage.telling.clear()
    code = execute(stage, [sys.executable, str(program), json.dumps(step["checks"])], {})
    kept("what is known of the node", lambda: note_node(stage, step))
    for line in list(stage.telling):
        if line.startswith(FACTS):
            stage.facts = json.loads(line.removeprefix(FACTS))
    findings = [line.removeprefix(FINDING) for line in list(stage.telling) if line.startswith(FINDING)]
    if findings:
        stage.tail.clear()  # It says the same, and the message needs the room.
        raise StageError("PreflightFailed", "; ".join(findings), code=EXIT_CONFIG)
    if code:
        raise StageError("StageFailed", f"preflight ended with {code}", command_code=code)


def note_node(stage: Stage, step: Step) -> None:
    """Leave what this container shows of its node, for whoever reads the results."""
    facts = keep.node_facts(gpus=step["checks"].get("gpu") is not None, storage=[stage.scratch, stage.results])
    path = stage.results / "node.json"
    write_atomically(path, keep.node_text(path, facts))


def run_step(stage: Stage, step: Step) -> bool:
    """Carry out a step unless it is done already; return whether it was skipped."""
    if step["action"] == "preflight":
        run_preflight(stage, step)
        return False
    if step["action"] == "snapshot":
        return run_snapshot(stage, step)
    if step.get("result") is not None:
        return run_harness(stage, step)
    if step.get("audit") is not None:
        return run_audit(stage, step)
    return run_unless_done(stage, step)


def run_unless_done(stage: Stage, step: Step) -> bool:
    """Carry out a step unless its marker says that it is done; return whether it was skipped."""
    digest = identity(stage, step)
    if step.get("always"):
        carry_out(stage, step, digest)
        return False
    # First as a reader: whoever only uses what is there need not wait for the others who do.
    for kind in (fcntl.LOCK_SH, fcntl.LOCK_EX):
        with step_lock(stage, step, digest, kind):
            marker, problems = look_up(stage, step, digest)
            if marker and not problems:
                say(f"{step['id']}: skipped, done {marker.get('finishedAt')} by run {marker.get('run')}")
                if step.get("publishTree"):
                    restore_tree(stage, digest)
                stage.engines[step["id"]] = dict(marker.get("engines") or {})
                return True
            if marker and step.get("publishTree") and is_built(stage, digest):
                # Engines and logs of this run lie in it by now: it is this run's alone, and the next one builds anew.
                say(f"{step['id']}: {'; '.join(problems[:3])}; this run goes on with its own")
                return True
            if kind == fcntl.LOCK_EX:
                if problems:
                    say(f"{step['id']}: was done before, but {'; '.join(problems[:3])}; doing it again")
                carry_out(stage, step, digest)
    return False


def carry_out(stage: Stage, step: Step, digest: str) -> None:
    """Do what a step is for, then leave its marker."""
    started = time.monotonic()
    if step["action"] == "copyTree":
        copy_code(stage, step)
    else:
        remove_engines(step)
        run_command(stage, step)
    if step.get("publishTree"):
        publish_tree(stage, digest)
    stage.engines[step["id"]] = made = engine_digests(stage, step)
    mark_done(stage, step, digest, {"durationSeconds": round(time.monotonic() - started, 3), "engines": made})


def engines(step: Step) -> list[Path]:
    """Return the engines that lie where a step makes its own."""
    return [file for pattern in step.get("engineGlobs", ()) for file in matching(pattern)]


def remove_engines(step: Step) -> None:
    """Remove the engines that lie where a step makes its own: their names do not say of which configuration."""
    for file in engines(step):
        say(f"{step['id']}: removing {file}, which this run did not make now")
        file.unlink()


def engine_digests(stage: Stage, step: Step) -> dict[str, str]:
    """Return the digests of the engines that a step made, for the records of the results that they give."""
    files = engines(step)
    if step.get("engineGlobs") and not files:
        text = f"{' '.join(step['argv'])} ended with 0 but made no engine{said(stage)}"
        raise StageError("NoEngine", text, command_code=0)
    return {str(file.relative_to(stage.work)): contents.digest(file) for file in files}
