"""The environment that prebuild makes: what it changed on a container's root, kept and laid over other containers.

Standard-library Python 3.10. stage.py runs it between the locks that it needs.
Usage: python3 snapshot.py identify|check|before|keep|lay ARGUMENTS, the arguments of the function of that name as JSON;
prints what it does, then a line with what it found. Ends with 1 after a line that says why it could not.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:
    # In the run's pod.
    import as_package  # type: ignore[import-not-found]  # noqa: F401

from mlperf_operator.agent.wrapper import contents
from mlperf_operator.agent.wrapper.delta import Root, SnapshotError, write_archive
from mlperf_operator.agent.wrapper.files import read_object, utc_now, write_atomically
from mlperf_operator.agent.wrapper.roots import (
    EXCLUDED,
    FORMAT,
    MARK,
    base_of,
    difference,
    mounted,
    read_manifest,
    scan,
    write_manifest,
)
from mlperf_operator.agent.wrapper.telling import ENVIRONMENT_FACTS, ENVIRONMENT_FINDING

ARCHIVE, NOTE, MANIFEST = "environment.tar", "environment.json", "before.jsonl"
"""Files of an environment's folder. The note comes last and names the archive's checksum: without it there is none."""

_DIRTY = (
    "this container's root is no longer as its image has it: prebuild or another environment has changed it. That is "
    "not done twice in one container; start the run again, which gives it fresh ones"
)


def write_note(path: Path, content: dict[str, Any]) -> None:
    """Write the note of an environment, or the mark on a root."""
    write_atomically(path, json.dumps(content, sort_keys=True))


def problem_of(folder: Path) -> str | None:
    """Return what is wrong with a kept environment; None: it is whole, by checksum."""
    note = read_object(folder / NOTE)
    if not note:
        return f"{folder / NOTE} is not there"
    try:
        if (folder / ARCHIVE).stat().st_size != note.get("bytes"):
            return f"{folder / ARCHIVE} is cut or was changed"
        if contents.digest(folder / ARCHIVE) != note.get("sha256"):
            return f"{folder / ARCHIVE} is damaged: it has another sha256 than when it was kept"
    except FileNotFoundError:
        return f"{folder / ARCHIVE} is not there"
    return None


def say(text: str) -> None:
    """Print a line of the log."""
    print(f"[environment] {text}", flush=True)


def identify(root: str) -> dict[str, Any]:
    """Return the fingerprint of a root's base."""
    return {"base": base_of(Path(root))}


def check(folder: str) -> dict[str, Any]:
    """Return what is wrong with a kept environment, its note, and its numbers in words."""
    problem, note = problem_of(Path(folder)), read_object(Path(folder) / NOTE)
    return {"problem": problem, "note": note, "said": counts(note) if problem is None else ""}


def before(root: str, folder: str, digest: str) -> dict[str, Any]:
    """Take the manifest that `keep` compares with; what an earlier try left in the folder goes first.

    Raises:
        SnapshotError: this root is not as its image has it.
    """
    started, place = time.monotonic(), Path(folder)
    if read_object(Path(root) / MARK):
        raise SnapshotError(_DIRTY)
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    mounts = mounted(Path(root))
    manifest = scan(Path(root), EXCLUDED | mounts)
    write_manifest(place / MANIFEST, {"mounts": sorted(mounts), "at": time.time()}, manifest)
    write_note(Path(root) / MARK, {"state": "making", "digest": digest})
    say(f"{len(manifest)} paths before prebuild, in {time.monotonic() - started:.1f} s")
    return {"paths": len(manifest)}


def keep(root: str, folder: str, digest: str, base: str, run: str) -> dict[str, Any]:
    """Keep what changed since `before`, whole or not at all, and return its note."""
    began, place = time.time(), Path(folder)
    header, old = read_manifest(place / MANIFEST)
    left_out = EXCLUDED | set(header["mounts"]) | mounted(Path(root))
    new = scan(Path(root), left_out)
    change = difference({path: entry for path, entry in old.items() if path not in left_out}, new)
    scanned = time.time()
    temporary = place / f".{ARCHIVE}.tmp"
    sha256, size = write_archive(Path(root), new, change, temporary)
    temporary.replace(place / ARCHIVE)
    (place / MANIFEST).unlink()
    note = {
        "format": FORMAT,
        "digest": digest,
        "base": base,
        "sha256": sha256,
        "bytes": size,
        "files": sum(new[path].kind != "folder" for path in change.changed),
        "folders": sum(new[path].kind == "folder" for path in change.changed),
        "deleted": len(change.deleted),
        "prebuildSeconds": round(began - header["at"], 1),
        "manifestSeconds": round(scanned - began, 1),
        "archiveSeconds": round(time.time() - scanned, 1),
        "run": run,
        "finishedAt": utc_now(),
    }
    write_note(place / NOTE, note)
    write_note(Path(root) / MARK, {"state": "laid", "digest": digest})
    seconds = note["manifestSeconds"] + note["archiveSeconds"]
    said = f"kept {counts(note)}; prebuild took {note['prebuildSeconds']} s and keeping what it changed {seconds:.1f} s"
    say(f"{said}; sha256 {sha256}")
    return {**note, "said": said}


def counts(note: dict[str, Any]) -> str:
    """Return how much an environment is, in words."""
    parts = f"{note['files']} files, {note['folders']} folders and {note['deleted']} deletions"
    return f"{parts}, {note['bytes'] / 1e6:.1f} MB"


def lay(root: str, folder: str, digest: str, sha256: str) -> dict[str, Any]:
    """Lay a kept environment over a root, unless that was done, and return what it took.

    Raises:
        SnapshotError: it is damaged, or of another base, or this root has something else already; nothing was changed.
    """
    started, top, place = time.monotonic(), Path(root), Path(folder)
    mark, note = read_object(top / MARK), read_object(place / NOTE)
    if mark == {"state": "laid", "digest": digest}:
        say("is there already in this container")
        return {"said": "is there already in this container"}
    if mark and mark != {"state": "laying", "digest": digest}:
        raise SnapshotError(_DIRTY)
    problem = problem_of(place)
    if problem is None and (note.get("digest"), note.get("sha256")) != (digest, sha256):
        problem = f"{place} holds another environment than when this run began"
    if problem:
        raise SnapshotError(f"{problem}; start the run again: its prebuild makes the environment anew where it must")
    verified = time.monotonic()
    if not mark and base_of(top) != note.get("base"):
        text = "the environment was made in another base image than this container's: its packages or programs differ"
        raise SnapshotError(f"{text}; give every container of the run the same image, by digest rather than by tag")
    write_note(top / MARK, {"state": "laying", "digest": digest})
    target = Root(top, mounted(top))
    left = target.lay(place / ARCHIVE)
    refresh_libraries(top)
    write_note(top / MARK, {"state": "laid", "digest": digest})
    seconds = round(time.monotonic() - started, 1)
    if left:
        say(f"left {left} paths as they are, because they are mounted in this container")
    if target.unset:
        say(f"this container may not set {', '.join(sorted(target.unset))}; programs that need it will say so")
    said = f"laid over {counts(note)} in {seconds} s, of which its checksum took {verified - started:.1f} s"
    say(said)
    return {"said": said}


def refresh_libraries(root: Path) -> None:
    """Write the cache of libraries anew: the driver's differ from container to container.

    Raises:
        SnapshotError: ldconfig failed.
    """
    program = next((f"/{name}" for name in ("sbin/ldconfig", "usr/sbin/ldconfig") if (root / name).exists()), None)
    if program is None:
        return
    argv = [program] if root == Path("/") else ["chroot", str(root), program]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SnapshotError(f"ldconfig ended with {done.returncode}: {done.stderr.strip()[-300:]}")


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "identify": identify,
    "check": check,
    "before": before,
    "keep": keep,
    "lay": lay,
}


def main(argv: list[str]) -> int:
    """Carry out the command that the command line names and return the exit code."""
    try:
        found = COMMANDS[argv[0]](**json.loads(argv[1]))
    except (SnapshotError, OSError, tarfile.TarError) as error:
        text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else str(error)
        print(f"{ENVIRONMENT_FINDING}{text}", flush=True)
        return 1
    print(ENVIRONMENT_FACTS + json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
