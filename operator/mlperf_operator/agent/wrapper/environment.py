"""The environment that prebuild makes: once for all runs, then laid over every later container."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from mlperf_operator.agent.wrapper import contents, evidence
from mlperf_operator.agent.wrapper.commands import run_once
from mlperf_operator.agent.wrapper.errors import StageError, config_error
from mlperf_operator.agent.wrapper.files import matching, read_object, write_atomically
from mlperf_operator.agent.wrapper.locks import locked
from mlperf_operator.agent.wrapper.output import say
from mlperf_operator.agent.wrapper.processes import execute
from mlperf_operator.agent.wrapper.state import Stage, Step
from mlperf_operator.agent.wrapper.telling import ENVIRONMENT_FACTS, ENVIRONMENT_FINDING


def snapshot(stage: Stage, command: str, **arguments: str) -> dict[str, Any]:
    """Let snapshot.py do something and return what it found.

    In a process of its own, which time and SIGTERM can end, and whose manifests go with it.

    Raises:
        StageError: it could not; reason EnvironmentFailed, which ends the stage.
    """
    program = Path(__file__).with_name("snapshot.py")
    stage.telling.clear()
    code = execute(stage, [sys.executable, str(program), command, json.dumps(arguments)], {})
    for line in list(stage.telling):
        if line.startswith(ENVIRONMENT_FINDING):
            text = line.removeprefix(ENVIRONMENT_FINDING)
            stage.tail.clear()  # It says the same, and the message needs the room.
            reason = "ScratchFull" if evidence.FULL.search(text) else "EnvironmentFailed"
            raise StageError(reason, f"environment: {text}", command_code=code)
        if line.startswith(ENVIRONMENT_FACTS) and code == 0:
            found: dict[str, Any] = json.loads(line.removeprefix(ENVIRONMENT_FACTS))
            return found
    raise StageError("EnvironmentFailed", f"environment: snapshot.py {command} ended with {code}", command_code=code)


def environment_note(stage: Stage) -> Path:
    """Return where it is noted which environment this run has."""
    return stage.state / "environment.json"


def environment_lock(stage: Stage, digest: str) -> Path:
    """Return the lock of an environment: held for writing while it is made, for reading while it is laid over."""
    return stage.common / "locks" / f"environment-{digest[:16]}.lock"


def environment_digest(stage: Stage, step: Step, base: str) -> str:
    """Return what an environment is known by: its step, the files that it is made from, and the base image's root."""
    found = hashlib.sha256(f"{step['digest']} {base}".encode())
    for pattern in step["inputs"]:
        files = matching(pattern)
        if not files:
            raise config_error(f"the code tree has no {pattern}, from which prebuild makes the environment")
        for file in files:
            name = file.relative_to(stage.work) if file.is_relative_to(stage.work) else file
            found.update(os.fsencode(name) + b"\0" + contents.digest(file).encode())
    return found.hexdigest()


def run_snapshot(stage: Stage, step: Step) -> bool:
    """See to it that the environment is kept on scratch, made once for all runs; return whether it was there."""
    seen = snapshot(stage, "identify", root=str(stage.root))
    digest = environment_digest(stage, step, seen["base"])
    folder = Path(step["store"]) / digest
    for kind in (fcntl.LOCK_SH, fcntl.LOCK_EX):
        with locked(stage, environment_lock(stage, digest), kind):
            there = snapshot(stage, "check", folder=str(folder))
            note = there["note"]
            if there["problem"] is None:
                stage.remark = f"environment: skipped, done {note['finishedAt']} by run {note['run']}; {there['said']}"
                say(stage.remark)
                remember_environment(stage, folder, note)
                return True
            if kind == fcntl.LOCK_EX:
                if note:
                    say(f"environment: was made before, but {there['problem']}; making it again")
                remember_environment(stage, folder, make_environment(stage, step, folder, seen["base"]))
    return False


def make_environment(stage: Stage, step: Step, folder: Path, base: str) -> dict[str, Any]:
    """Run prebuild between two manifests, once: what a failed one left in the container is nowhere known."""
    remove_unfinished(stage, folder.parent)
    place = {"root": str(stage.root), "folder": str(folder), "digest": folder.name}
    snapshot(stage, "before", **place)
    try:
        run_once(stage, step)
        made = snapshot(stage, "keep", **place, base=base, run=stage.uid)
    except StageError as error:
        shutil.rmtree(folder, ignore_errors=True)
        error.message += "; another try needs a fresh container: start the run again"
        raise
    stage.remark = f"environment: {made['said']}"
    return made


def remember_environment(stage: Stage, folder: Path, note: dict[str, Any]) -> None:
    """Note which environment the later stages of this run lay over their roots."""
    content = {"digest": folder.name, "folder": str(folder), "sha256": note["sha256"]}
    write_atomically(environment_note(stage), json.dumps(content))


def remove_unfinished(stage: Stage, store: Path) -> None:
    """Remove what killed prebuilds left of environments; whoever makes one holds its lock."""
    for folder in store.glob("*"):
        if (folder / "environment.json").exists():
            continue
        lock = environment_lock(stage, folder.name)
        with lock.open("a+", encoding="utf-8") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            say(f"environment: removing {folder}, which a prebuild that was killed left")
            shutil.rmtree(folder)


def lay_environment(stage: Stage) -> None:
    """Lay the run's environment over the root of this container, before the first command of a stage that needs it."""
    if stage.has_environment or not stage.needs_environment:
        return
    note = read_object(environment_note(stage))
    if not note:
        raise config_error("this stage needs the environment that prebuild makes; run stage prebuild first")
    with locked(stage, environment_lock(stage, note["digest"]), fcntl.LOCK_SH):
        found = snapshot(stage, "lay", root=str(stage.root), **note)
    stage.remark = f"environment: {found['said']}"
    stage.has_environment = True
