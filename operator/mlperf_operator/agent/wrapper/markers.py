"""Markers: which steps are done, of which inputs, and whether what they left is still there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlperf_operator.agent.wrapper import contents, roots
from mlperf_operator.agent.wrapper.environment import environment_note
from mlperf_operator.agent.wrapper.errors import StageError, config_error
from mlperf_operator.agent.wrapper.files import matching, read_object, utc_now, write_atomically
from mlperf_operator.agent.wrapper.postconditions import broken, each_condition
from mlperf_operator.agent.wrapper.state import Stage, Step, is_shared
from mlperf_operator.agent.wrapper.trees import tree_size

Stamp = tuple[str, int, int]
"""A file's path, size and time of its last change in seconds: copies of a volume keep no finer ones."""


def identity(stage: Stage, step: Step) -> str:
    """Return the digest of a step's inputs; what is shared depends on the code tree's content too."""
    if not is_shared(step):
        return str(step["digest"])
    try:
        tree = (stage.state / "tree.sha256").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise config_error(f"{step['id']} needs the code tree; run stage code first") from error
    environment = read_object(environment_note(stage)).get("digest", "") if stage.needs_environment else ""
    if step.get("publishTree") and not stage.needs_environment:
        # What is built fits the image that it was built in, and an image's name may be given to another one.
        environment = roots.base_of(stage.root)
    return hashlib.sha256(f"{step['digest']} {tree} {environment}".strip().encode()).hexdigest()


def marker_path(stage: Stage, step: Step, digest: str) -> Path:
    """Return where the marker of a step lies."""
    folder = stage.common if is_shared(step) else stage.state
    return folder / "markers" / f"{step['id']}-{digest[:16]}.json"


def stamp(file: Path) -> Stamp:
    """Return what tells whether a file was changed since."""
    status = file.stat()
    return str(file), status.st_size, int(status.st_mtime)


def stamps(patterns: Iterable[str]) -> list[Stamp]:
    """Return the stamps of the files that absolute patterns name."""
    return sorted({stamp(file) for pattern in patterns for file in matching(pattern)})


def stamps_in(note: dict[str, Any]) -> set[Stamp]:
    """Return the stamps that a marker holds."""
    files = note.get("files")
    return {(str(f[0]), int(f[1]), int(f[2])) for f in files} if isinstance(files, list) else set()


def look_up(stage: Stage, step: Step, digest: str) -> tuple[dict[str, Any], list[str]]:
    """Return a step's marker, empty when there is none, and what of its outcome is gone or was changed since."""
    marker = read_object(marker_path(stage, step, digest))
    if marker.get("digest") != digest:
        return {}, []
    # What a publishing step leaves comes back into /work with the kept tree only.
    problems = [] if step.get("publishTree") else [text for _, text in broken(step, content=False)]
    problems += [f"{name} is gone or was changed since" for name in changed_files(stage, marker)]
    if step.get("publishTree") and tree_size(stage.common / "trees" / digest) != marker.get("tree"):
        problems.append("the built tree on scratch is gone or was changed since")
    if step["action"] == "copyTree" and not any(stage.work.iterdir()):
        problems.append(f"{stage.work} is empty")
    return marker, problems


def changed_files(stage: Stage, marker: dict[str, Any]) -> list[str]:
    """Return the files that are not what they were when a step was done.

    One that was written again is looked into: a run with another code tree or image makes the same data anew.
    """
    known, found = marker.get("sha256") or {}, []
    for name, size, changed in sorted(stamps_in(marker)):
        path = Path(name)
        if path.is_file() and stamp(path) == (name, size, changed):
            continue
        stage.check_time()
        if not path.is_file() or path.stat().st_size != size or contents.digest(path) != known.get(name):
            found.append(name)
    return found


def require_inputs(stage: Stage) -> None:
    """Raise when what the stage reads is no longer what this run's own steps left or found good.

    Between two stages nobody holds the locks: a run with another code tree may have made the same files anew.
    """
    for step in stage.inputs:
        marker, problems = look_up(stage, step, identity(stage, step))
        if not marker or problems:
            why = problems[0] if problems else "its marker is gone"
            text = f"{step['id']}: {why}, by another run or by hand; start the run again"
            raise StageError("InputsChanged", text)


def mark_done(stage: Stage, step: Step, digest: str, facts: dict[str, Any]) -> None:
    """Leave the marker of a step."""
    patterns = [] if step.get("publishTree") else [condition["glob"] for condition in each_condition(step)]
    files = stamps([*patterns, *step.get("engineGlobs", ())])
    marker = {
        **facts,
        "step": step["id"],
        "digest": digest,
        "finishedAt": utc_now(),
        "run": stage.uid,
        "files": files,
        "sha256": {name: contents.digest(Path(name)) for name, *_ in files} if is_shared(step) else {},
        "tree": tree_size(stage.common / "trees" / digest) if step.get("publishTree") else None,
    }
    write_atomically(marker_path(stage, step, digest), json.dumps(marker, sort_keys=True))
