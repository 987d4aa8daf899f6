"""A step's command again where that can help, after removing what a failed try left."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from mlperf_operator.agent.wrapper.commands import run_once
from mlperf_operator.agent.wrapper.environment import lay_environment
from mlperf_operator.agent.wrapper.errors import PASSING, StageError
from mlperf_operator.agent.wrapper.files import matching, read_object, write_atomically
from mlperf_operator.agent.wrapper.markers import Stamp, marker_path, stamp, stamps, stamps_in
from mlperf_operator.agent.wrapper.output import say
from mlperf_operator.agent.wrapper.postconditions import broken
from mlperf_operator.agent.wrapper.state import Stage, Step

TRANSIENT_RETRIES = 3
RETRY_DELAY_SECONDS = 10


def run_command(stage: Stage, step: Step) -> None:
    """Run a step's command, again where that can help, until its postconditions hold."""
    lay_environment(stage)
    retries, attempt = int(step.get("retries", 0)), 0
    with attempts(stage, step) as before:
        while True:
            attempt += 1
            try:
                run_once(stage, step)
            except StageError as error:
                remove_leftovers(stage, step, before)
                allowed = max(retries, TRANSIENT_RETRIES) if error.reason == "DownloadFailed" else retries
                if attempt > allowed or error.reason not in PASSING:
                    raise
                pause = float(step.get("retryDelaySeconds", RETRY_DELAY_SECONDS))
                say(f"{step['id']}: {error.message}; try {attempt + 1} of {allowed + 1} in {pause:g} s")
                stage.stopping.wait(pause)
                stage.check_time()
            else:
                return


@contextlib.contextmanager
def attempts(stage: Stage, step: Step) -> Iterator[set[Stamp]]:
    """Give what lay where a step writes before its first try; what a killed try left is removed first.

    The note of it is gone when the tries have ended: whoever puts files there from then on keeps them.
    """
    # What a publishing step leaves lies in the run's own /work, and several runs build at a time.
    path = marker_path(stage, {**step, "scope": "Private"} if step.get("publishTree") else step, "attempt")
    if not step.get("removeOnFailure"):
        yield set()
        return
    if path.exists():
        remove_leftovers(stage, step, stamps_in(read_object(path)))
    before = stamps(step["removeOnFailure"])
    write_atomically(path, json.dumps({"files": before}))
    try:
        yield set(before)
    finally:
        path.unlink(missing_ok=True)


def remove_leftovers(stage: Stage, step: Step, before: set[Stamp]) -> None:
    """Remove what a failed command left: a later try would take it for done.

    What was there before and holds the step's conditions stays (a user may have put it there), and so does what
    another step finished.
    """
    kept, foreign = set(before), set[Stamp]()
    for path in (stage.common / "markers").glob("*.json"):
        marker = read_object(path)
        (kept if marker.get("step") in (None, step["id"]) else foreign).update(stamps_in(marker))
    bad = {file for file, _ in broken(step, content=True)}
    for pattern in step.get("removeOnFailure", ()):
        for file in matching(pattern):
            found = stamp(file)
            if found not in foreign and (found not in kept or file in bad):
                say(f"{step['id']}: removing {file}, which a failed try left")
                file.unlink()
