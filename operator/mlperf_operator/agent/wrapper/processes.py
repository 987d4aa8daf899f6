"""A command as a process: its output, its time, and the end of all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from mlperf_operator.agent.wrapper import evidence
from mlperf_operator.agent.wrapper.errors import MAX_TERMINATION_BYTES, config_error
from mlperf_operator.agent.wrapper.output import emit, say
from mlperf_operator.agent.wrapper.state import Stage
from mlperf_operator.agent.wrapper.telling import is_remembered

KILL_AFTER_SECONDS = 20
REMNANT_SECONDS = 2
"""How long what a command left behind may take to end, once the command itself has ended."""

DRAIN_SECONDS = 5
MAX_LINE_BYTES = 64 * 1024


def execute(stage: Stage, argv: list[str], env: dict[str, str]) -> int:
    """Run a command in the work tree, passing its output on, and return its exit code (128 + n after signal n)."""
    say(f"$ {' '.join(argv)}")
    try:
        process = subprocess.Popen(
            argv,
            cwd=stage.work,
            env={**os.environ, **stage.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=stage.inherited,
        )
    except FileNotFoundError as error:
        raise config_error(f"the image has no {error.filename}") from error
    except OSError as error:
        raise config_error(f"{argv[0]} cannot be started: {error.strerror}") from error
    reader = threading.Thread(target=pass_on, args=(stage, process), daemon=True)
    reader.start()
    try:
        while process.poll() is None:
            stage.check_time()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
    finally:
        end_group(process)
        # A grandchild that left the group may hold the pipe; it must not hold the stage.
        reader.join(DRAIN_SECONDS)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def pass_on(stage: Stage, process: subprocess.Popen[bytes]) -> None:
    """Print a command's output as it comes and remember its end and its telling lines."""
    if process.stdout is None:
        return
    with process.stdout as output:
        # In pieces, so that memory stays flat on a line without end.
        for raw in iter(lambda: output.readline(MAX_LINE_BYTES), b""):
            emit(raw)
            # Of a progress bar only the last state.
            line = raw.decode(errors="replace").strip().rpartition("\r")[2]
            stage.tail.append(line[-MAX_TERMINATION_BYTES:])
            if is_remembered(line):
                stage.telling.append(line)
            elif evidence.COMPLAINT.search(line):
                stage.complaints.append(line)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a command and everything that it started in its process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        patience = REMNANT_SECONDS if process.poll() is not None else KILL_AFTER_SECONDS
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        until = time.monotonic() + patience
        while (process.poll() is None or group_lives(process.pid)) and time.monotonic() < until:
            time.sleep(0.02)
    # No longer: a process that a driver holds cannot be ended at all.
    process.poll()


def group_lives(group: int) -> bool:
    """Say whether a process group has a process that has not ended; a zombie has, and may be nobody's to reap."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            state, _, found = path.read_text(errors="replace").rpartition(") ")[2].split()[:3]
            if int(found) == group and state not in "ZX":
                return True
    return False
