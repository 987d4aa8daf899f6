"""The stage wrapper: carries out one stage of plan.json in a container of the run's pod.

One file of standard-library Python 3.10 (preflight.py beside it), because NVIDIA's image has none of our packages.
Usage: python3 stage.py STAGE. Exit codes: 0 done or skipped, 64 configuration, 65 the stage failed, 143 stopped.
A command that ends with 75, or whose recipe does, failed for a passing reason: it is tried again in here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

EXIT_CONFIG = 64
EXIT_FAILED = 65
EXIT_TERMINATED = 143
EXIT_TRANSIENT = 75
"""EX_TEMPFAIL of sysexits.h."""

MAX_TERMINATION_BYTES = 1000
"""The kubelet keeps 12 KiB of messages a pod, shared by its containers, and keeps the head of each."""

PASSING = ("DownloadFailed", "StageFailed", "PostconditionFailed")
"""Reasons that another try may mend."""

TRANSIENT_RETRIES = 3
RETRY_DELAY_SECONDS = 10
KILL_AFTER_SECONDS = 20
REMNANT_SECONDS = 2
"""How long what a command left behind may take to end, once the command itself has ended."""

DRAIN_SECONDS = 5
MAX_LINE_BYTES = 64 * 1024
LOCK_NOTICE_SECONDS = 30
TAIL_LINES = 40
FREE_BYTES_MIN = 1024 * 1024
IGNORED = frozenset({".git", "__pycache__"})
ACTIONS = ("exec", "copyTree", "preflight")
COMMIT_ID = re.compile(r"[0-9a-f]{40}")
FINDING = "[preflight] finding: "
"""How preflight.py begins a line that says what is wrong."""

FACTS = "[preflight] facts: "
"""How preflight.py begins the line that says, as JSON, which driver and GPUs it saw."""

FULL = re.compile(r"No space left on device|Disk quota exceeded")
TELLING = re.compile(FULL.pattern + r"|No registered config for|did not match any known systems|out of memory|Killed")
"""Lines in which NVIDIA's harness says why it did nothing, although it exits 0."""

MAKE_TRANSIENT = re.compile(rf"^(?:\S*/)?g?make(?:\[\d+\])?: \*\*\* .* Error {EXIT_TRANSIENT}$")
"""make itself ends with 2 whatever its recipe ended with, and tells the recipe's code in this line (GNU make).

Written out from the line's begin: with a gap in the middle, a long line of a harness would take hours to search.
"""

REMEMBERED = re.compile(
    "|".join((TELLING.pattern, MAKE_TRANSIENT.pattern, "^" + re.escape(FINDING), "^" + re.escape(FACTS)))
)

Step = dict[str, Any]
Stamp = tuple[str, int, int]
"""A file's path, size and time of its last change in seconds: copies of a volume keep no finer ones."""


class StageError(Exception):
    """The stage cannot go on; becomes the termination message."""

    def __init__(self, reason: str, message: str, *, code: int = EXIT_FAILED, command_code: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.code = code
        self.command_code = command_code
        self.step = ""


class Stage:
    """One stage of the plan, the folders it works in, and what its commands said."""

    def __init__(self, plan: dict[str, Any], name: str) -> None:
        stages = plan["stages"]
        if name not in stages:
            raise config_error(f"plan.json has no stage {name!r}; it has {', '.join(stages)}")
        self.name = name
        self.uid: str = plan["run"]["uid"]
        paths = [Path(plan["paths"][key]) for key in ("scratch", "work", "state", "results")]
        self.scratch, self.work, self.state, self.results = paths
        self.common = self.scratch / ".mlperf"
        self.steps: list[Step] = stages[name]["steps"]
        self.reads: list[str] = stages[name].get("reads", [])
        self.timeout = float(stages[name]["timeoutSeconds"])
        for step in self.steps:
            if step["action"] not in ACTIONS:
                raise config_error(f"step {step['id']} has action {step['action']!r}; there are {', '.join(ACTIONS)}")
        for path in paths:
            if not path.is_dir():
                raise config_error(f"{path} is not mounted")
        self.deadline = time.monotonic() + self.timeout
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.telling: deque[str] = deque(maxlen=TAIL_LINES)
        self.stopping = threading.Event()
        self.inherited: list[int] = []
        self.engines: dict[str, dict[str, str]] = {}
        self.facts: dict[str, Any] = {}

    def check_time(self) -> None:
        """Raise when the stage was stopped or its time is over."""
        if self.stopping.is_set():
            raise StageError("Terminated", f"stage {self.name} was stopped by SIGTERM", code=EXIT_TERMINATED)
        if time.monotonic() > self.deadline:
            raise StageError("StageTimeout", f"stage {self.name} took longer than {self.timeout:g} s")


def config_error(text: str) -> StageError:
    """Return the error of what only another configuration can mend."""
    return StageError("ConfigInvalid", text, code=EXIT_CONFIG)


def load_stage(path: Path, name: str) -> Stage:
    """Return the stage of a plan.

    Raises:
        StageError: there is no plan, no such stage in it, or a folder that it names is missing.
    """
    try:
        return Stage(json.loads(path.read_text(encoding="utf-8")), name)
    except OSError as error:
        raise config_error(f"{path} cannot be read: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise config_error(f"{path} is no plan: {error!r}") from error


def os_failure(error: OSError) -> StageError:
    """Return the error of a failed system call; a full volume has a reason of its own."""
    text = f"{error.strerror}: {error.filename}" if error.filename else str(error)[:MAX_TERMINATION_BYTES]
    # copytree gathers what went wrong in the text of one error that has no number.
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or FULL.search(str(error)):
        return StageError("ScratchFull", f"{text}; free some space or use a larger volume")
    return StageError("StageFailed", text)


def emit(data: bytes) -> None:
    """Write to the log as it is; a log that takes nothing must not stop the work."""
    # Not by sys.stdout: a thread that holds its lock when the interpreter ends would abort it.
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(1, data) :]


def say(text: str) -> None:
    """Print a line of the wrapper's own."""
    emit(f"[mlperf] {text}\n".encode(errors="replace"))


def is_shared(step: Step) -> bool:
    """Say whether a step's outcome lies on scratch for every run."""
    return step.get("scope") == "Shared"


# --- files that must never be there by half ---------------------------------------------------------------------------


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty when there is none to be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def utc_now() -> str:
    """Return the present time, RFC 3339 in UTC."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def empty(folder: Path) -> None:
    """Remove everything in a folder, which may be a mount point."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def file_digest(path: Path, kind: str = "sha256") -> str:
    """Return a file's digest in hex."""
    found = hashlib.new(kind)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def matching(pattern: str) -> list[Path]:
    """Return the files that an absolute pattern names."""
    return sorted(file for file in Path("/").glob(pattern.lstrip("/")) if file.is_file())


def tree_digest(root: Path, check: Callable[[], None]) -> str:
    """Return the sha256 of a tree: paths, executable bits, link targets and contents, without what a build leaves.

    Empty folders do not count, nor does a `build` at the top. `check` is called before each file and may raise.
    """
    found = hashlib.sha256()
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if n not in IGNORED and Path(folder, n) != root / "build")
        for name in sorted([*files, *(n for n in names if Path(folder, n).is_symlink())]):
            check()
            path = Path(folder, name)
            if path.is_symlink():
                parts = ["link", str(path.readlink())]
            else:
                parts = ["program" if path.stat().st_mode & 0o100 else "file", file_digest(path)]
            # No path holds a zero byte, so that no two trees give the same text.
            found.update(b"".join(os.fsencode(part) + b"\0" for part in (str(path.relative_to(root)), *parts)))
    return found.hexdigest()


# --- locks ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(stage: Stage, path: Path, kind: int) -> Iterator[None]:
    """Hold a lock: LOCK_EX to write what it guards, LOCK_SH to read it.

    Commands inherit it, so that it lasts as long as one that still works, even when this wrapper was killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        wait_for(stage, file, path.stem, kind)
        if kind == fcntl.LOCK_EX:
            file.truncate(0)
        if stage.uid not in holders(file):
            file.write(f"{stage.uid}\n")
            file.flush()
        stage.inherited.append(file.fileno())
        try:
            yield
            # All is well: a daemon that a command left behind must not keep it.
            fcntl.flock(file, fcntl.LOCK_UN)
        finally:
            stage.inherited.remove(file.fileno())


def wait_for(stage: Stage, file: TextIO, what: str, kind: int) -> None:
    """Take a lock as soon as it is free, saying who has it; time and SIGTERM go on counting."""
    told = -float(LOCK_NOTICE_SECONDS)
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            stage.check_time()
        except OSError as error:
            raise config_error(f"the volume of {file.name} does no file locks: {error.strerror}") from error
        else:
            return
        if time.monotonic() - told >= LOCK_NOTICE_SECONDS:
            told = time.monotonic()
            names = ["an earlier attempt of this run" if n == stage.uid else f"run {n}" for n in holders(file)]
            say(f"{what}: waiting for {', '.join(names) or 'another run'}, which writes or reads it")
        time.sleep(0.2)


def holders(file: TextIO) -> list[str]:
    """Return the runs that took a lock since it was last taken for writing, at most three."""
    file.seek(0)
    return file.read().split()[-3:]


def step_lock(stage: Stage, step: Step, digest: str, kind: int) -> contextlib.AbstractContextManager[None]:
    """Return the lock of a shared step; of the others there is only the run's own."""
    if not is_shared(step):
        return contextlib.nullcontext()
    # Built trees lie apart by digest; everything else is written where every version of the step writes.
    name = f"{step['id']}-{digest[:16]}" if step.get("publishTree") else step["id"]
    return locked(stage, stage.common / "locks" / f"{name}.lock", kind)


# --- markers and postconditions ---------------------------------------------------------------------------------------


def identity(stage: Stage, step: Step) -> str:
    """Return the digest of a step's inputs; what is shared depends on the code tree's content too."""
    if not is_shared(step):
        return str(step["digest"])
    try:
        tree = (stage.state / "tree.sha256").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise config_error(f"{step['id']} needs the code tree; run stage code first") from error
    return hashlib.sha256(f"{step['digest']} {tree}".encode()).hexdigest()


def marker_path(stage: Stage, step: Step, digest: str) -> Path:
    """Return where the marker of a step lies."""
    folder = stage.common if is_shared(step) else stage.state
    return folder / "markers" / f"{step['id']}-{digest[:16]}.json"


def broken(step: Step, *, content: bool) -> list[tuple[Path | None, str]]:
    """Return what a step should have left and did not, with the file at fault; with `content` also by checksum."""
    problems: list[tuple[Path | None, str]] = []
    for condition in step.get("postconditions", ()):
        files, wanted = matching(condition["glob"]), condition.get("minCount", 1)
        if len(files) < wanted:
            problems.append((None, f"{len(files)} of {wanted} files {condition['glob']}"))
        sizes = [(file, file.stat().st_size) for file in files]
        problems += [(file, f"{file} has {size} bytes") for file, size in sizes if size < condition.get("minBytes", 1)]
        for kind in ("md5", "sha256"):
            if content and condition.get(kind):
                wrong = [file for file in files if file_digest(file, kind) != condition[kind]]
                problems += [(file, f"{file} has another {kind}") for file in wrong]
    return problems


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


def tree_size(root: Path) -> list[int]:
    """Return how many files a tree has and their bytes: scratch cleaners and power cuts take some away."""
    sizes = [os.lstat(Path(folder, name)).st_size for folder, _, files in os.walk(root) for name in files]
    return [len(sizes), sum(sizes)]


def look_up(stage: Stage, step: Step, digest: str) -> tuple[dict[str, Any], list[str]]:
    """Return a step's marker, empty when there is none, and what of its outcome is gone or was changed since."""
    marker = read_object(marker_path(stage, step, digest))
    if marker.get("digest") != digest:
        return {}, []
    problems = [text for _, text in broken(step, content=False)]
    for name, size, changed in sorted(stamps_in(marker)):
        if not Path(name).is_file() or stamp(Path(name)) != (name, size, changed):
            problems.append(f"{name} is gone or was changed since")
    if step.get("publishTree") and tree_size(stage.common / "trees" / digest) != marker.get("tree"):
        problems.append("the built tree on scratch is gone or was changed since")
    if step["action"] == "copyTree" and not any(stage.work.iterdir()):
        problems.append(f"{stage.work} is empty")
    return marker, problems


def mark_done(stage: Stage, step: Step, digest: str, facts: dict[str, Any]) -> None:
    """Leave the marker of a step."""
    patterns = [condition["glob"] for condition in step.get("postconditions", ())]
    marker = {
        **facts,
        "step": step["id"],
        "digest": digest,
        "finishedAt": utc_now(),
        "run": stage.uid,
        "files": stamps([*patterns, *step.get("engineGlobs", ())]),
        "tree": tree_size(stage.common / "trees" / digest) if step.get("publishTree") else None,
    }
    write_atomically(marker_path(stage, step, digest), json.dumps(marker, sort_keys=True))


# --- commands ---------------------------------------------------------------------------------------------------------


def execute(stage: Stage, argv: list[str], env: dict[str, str]) -> int:
    """Run a command in the work tree, passing its output on, and return its exit code (128 + n after signal n)."""
    say(f"$ {' '.join(argv)}")
    try:
        process = subprocess.Popen(
            argv,
            cwd=stage.work,
            env={**os.environ, **env},
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
            if REMEMBERED.search(line):
                stage.telling.append(line)


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


def run_command(stage: Stage, step: Step) -> None:
    """Run a step's command, again where that can help, until its postconditions hold."""
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


def run_once(stage: Stage, step: Step) -> None:
    """Run a step's command and hold what it left against the postconditions."""
    stage.telling.clear()
    code = execute(stage, step["argv"], step.get("env", {}))
    problems = [text for _, text in broken(step, content=True)] if code == 0 else []
    if code or problems:
        raise failure(stage, step, code, problems)


def failure(stage: Stage, step: Step, code: int, problems: list[str]) -> StageError:
    """Say why a command did not do its work."""
    command = " ".join(step["argv"])
    if no_space(stage):
        text = f"{command} failed{said(stage)}; free some space on scratch or results, or use a larger volume"
        return StageError("ScratchFull", text, command_code=code)
    if code == 0:
        text = f"{command} ended with 0 but left {'; '.join(problems)}"
        return StageError("PostconditionFailed", text, command_code=code)
    transient = code == EXIT_TRANSIENT or any(map(MAKE_TRANSIENT.search, list(stage.telling)))
    reason = "DownloadFailed" if transient else "StageFailed"
    return StageError(reason, f"{command} ended with {code}{said(stage)}", command_code=code)


def said(stage: Stage) -> str:
    """Return the last telling line of a command, to be put behind a sentence."""
    lines = [line for line in list(stage.telling) if TELLING.search(line)]
    return f": {lines[-1][-300:]}" if lines else ""


def no_space(stage: Stage) -> bool:
    """Say whether a volume is full, by what the command said or by the file system itself."""
    if any(map(FULL.search, list(stage.telling))):
        return True
    found = [os.statvfs(folder) for folder in (stage.scratch, stage.work, stage.results)]
    return any(space.f_blocks and space.f_bavail * space.f_frsize < FREE_BYTES_MIN for space in found)


# --- what a failed command left ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def attempts(stage: Stage, step: Step) -> Iterator[set[Stamp]]:
    """Give what lay where a step writes before its first try; what a killed try left is removed first.

    The note of it is gone when the tries have ended: whoever puts files there from then on keeps them.
    """
    path = marker_path(stage, step, "attempt")
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


# --- what a step does -------------------------------------------------------------------------------------------------


def copy_code(stage: Stage, step: Step) -> None:
    """Make the run's own copy of the code tree in /work and remember its content's digest."""
    source = step["source"]
    # What other steps did in the tree goes with it.
    shutil.rmtree(stage.state / "markers", ignore_errors=True)
    clear_work(stage)
    if source["type"] == "Path":
        origin = Path(source["path"])
        if not origin.is_dir():
            raise config_error(f"the image has no code tree at {origin}")
        copy_tree(stage, origin, stage.work)
    else:
        copy_from_git(stage, step)
    for origin_name, target in step.get("files", {}).items():
        shutil.copyfile(origin_name, stage.work / target)
    digest = tree_digest(stage.work, stage.check_time)
    write_atomically(stage.state / "tree.sha256", digest)
    say(f"code tree {digest}")


def clear_work(stage: Stage) -> None:
    """Empty /work, which is then no longer known to hold a built tree."""
    (stage.state / "tree.built").unlink(missing_ok=True)
    empty(stage.work)


def copy_tree(stage: Stage, origin: Path, target: Path) -> None:
    """Copy what is in a tree, with its links, modes and times, into a folder that may belong to somebody else."""

    def copy(source: str, destination: str) -> None:
        stage.check_time()
        shutil.copy(source, destination, follow_symlinks=False)
        status = os.lstat(source)
        os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)

    for entry in origin.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, target / entry.name, symlinks=True, copy_function=copy)
        else:
            copy(str(entry), str(target / entry.name))


def copy_from_git(stage: Stage, step: Step) -> None:
    """Copy a folder of exactly one commit of a repository, fetching no file beyond that folder where the server can."""
    source = step["source"]
    url, commit, folder = source["url"], source["commit"], source.get("subPath", "")
    if not COMMIT_ID.fullmatch(commit):
        raise config_error(f"{commit!r} is no full commit id")
    checkout = stage.state / "checkout"
    shutil.rmtree(checkout, ignore_errors=True)
    checkout.mkdir(parents=True)
    for retries, arguments in (
        (0, ["init", "-q"]),
        (0, ["remote", "add", "--", "origin", url]),
        (0, ["sparse-checkout", "set", folder] if folder else ["sparse-checkout", "disable"]),
        (TRANSIENT_RETRIES, ["fetch", "-q", "--depth", "1", "--filter=blob:none", "origin", commit]),
        (TRANSIENT_RETRIES, ["checkout", "-q", commit]),
    ):
        argv = ["git", "-C", str(checkout), *arguments]
        run_command(stage, {**step, "argv": argv, "env": {"GIT_TERMINAL_PROMPT": "0"}, "retries": retries})
    if not (checkout / folder).is_dir():
        raise config_error(f"commit {commit} has no folder {folder}")
    copy_tree(stage, checkout / folder, stage.work)
    shutil.rmtree(checkout)
    shutil.rmtree(stage.work / ".git", ignore_errors=True)


def run_preflight(stage: Stage, step: Step) -> None:
    """Look at everything before anything is downloaded, and tell every finding at once.

    In a process of its own: a driver that hangs or crashes must not take the wrapper with it.
    """
    program = Path(__file__).with_name("preflight.py")
    stage.telling.clear()
    code = execute(stage, [sys.executable, str(program), json.dumps(step["checks"])], {})
    for line in list(stage.telling):
        if line.startswith(FACTS):
            stage.facts = json.loads(line.removeprefix(FACTS))
    findings = [line.removeprefix(FINDING) for line in list(stage.telling) if line.startswith(FINDING)]
    if findings:
        stage.tail.clear()  # It says the same, and the message needs the room.
        raise StageError("PreflightFailed", "; ".join(findings), code=EXIT_CONFIG)
    if code:
        raise StageError("StageFailed", f"preflight ended with {code}", command_code=code)


def run_step(stage: Stage, step: Step) -> bool:
    """Carry out a step unless it is done already; return whether it was skipped."""
    if step["action"] == "preflight":
        run_preflight(stage, step)
        return False
    if step.get("result") is not None:
        return run_harness(stage, step)
    digest = identity(stage, step)
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
        run_command(stage, step)
    if step.get("publishTree"):
        publish_tree(stage, digest)
    stage.engines[step["id"]] = engines = engine_digests(stage, step)
    mark_done(stage, step, digest, {"durationSeconds": round(time.monotonic() - started, 3), "engines": engines})


def engine_digests(stage: Stage, step: Step) -> dict[str, str]:
    """Return the digests of the engines that a step made, for the records of the results that they give."""
    files = [file for pattern in step.get("engineGlobs", ()) for file in matching(pattern)]
    if step.get("engineGlobs") and not files and said(stage):
        text = f"{' '.join(step['argv'])} ended with 0 but made no engine{said(stage)}"
        raise StageError("NoEngine", text, command_code=0)
    return {str(file.relative_to(stage.work)): file_digest(file) for file in files}


def publish_tree(stage: Stage, digest: str) -> None:
    """Keep the built tree on scratch, whole or not at all; its lock keeps away whoever reads the one before."""
    target = stage.common / "trees" / digest
    temporary, old = target.with_name(f".{digest}.tmp"), target.with_name(f".{digest}.old")
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    copy_tree(stage, stage.work, temporary)
    if target.exists():
        target.replace(old)
    temporary.replace(target)
    shutil.rmtree(old, ignore_errors=True)
    write_atomically(stage.state / "tree.built", digest)


def restore_tree(stage: Stage, digest: str) -> None:
    """Put the built tree that an earlier run kept into /work, unless this run had got so far: engines lie in it."""
    note = stage.state / "tree.built"
    if note.is_file() and note.read_text(encoding="utf-8") == digest:
        return
    clear_work(stage)
    copy_tree(stage, stage.common / "trees" / digest, stage.work)
    write_atomically(note, digest)


# --- results ----------------------------------------------------------------------------------------------------------


def record_path(stage: Stage, step: Step) -> Path:
    """Return where the record of a harness step lies."""
    return stage.results / "steps" / f"{step['id']}.json"


def measured(stage: Stage, step: Step) -> dict[str, Any]:
    """Return the record of a harness step of this very run that has its result; empty when there is none."""
    record = read_object(record_path(stage, step))
    own = record.get("uid") == stage.uid and record.get("reason") == "Completed"
    return record if own and has_result(step) else {}


def engines_of(stage: Stage, step: Step) -> dict[str, str]:
    """Return the engines that a harness step uses, with their digests."""
    used = [stage.engines.get(need, {}) for need in step.get("requires", ())]
    return {name: digest for engines in used for name, digest in engines.items()}


def run_harness(stage: Stage, step: Step) -> bool:
    """Run the harness for one pair and mode into an empty log folder, and leave a record of how it went."""
    old = measured(stage, step)
    if old and old.get("engines") == engines_of(stage, step):
        say(f"{step['id']}: skipped, has its result from {old.get('finishedAt')}")
        return True
    if old:
        say(f"{step['id']}: has its result, but of another engine; measuring again")
    record_path(stage, step).unlink(missing_ok=True)
    log_dir = Path(step["result"]["logDir"])
    log_dir.mkdir(parents=True, exist_ok=True)
    empty(log_dir)
    started = utc_now()
    try:
        run_command(stage, step)
        require_result(stage, step)
    except StageError as error:
        if error.code != EXIT_TERMINATED:
            write_record(stage, step, started, error)
        raise
    write_record(stage, step, started, None)
    return False


def has_result(step: Step) -> bool:
    """Say whether a log folder holds what can be read as a result of the step's mode."""
    log_dir = Path(step["result"]["logDir"])
    names = ("metadata.json", "accuracy.txt" if step["result"]["mode"] == "AccuracyOnly" else "mlperf_log_summary.txt")
    return any(any(log_dir.rglob(name)) for name in names)


def require_result(stage: Stage, step: Step) -> None:
    """Raise when the harness left no result: it exits 0 also when it had nothing to do."""
    if has_result(step):
        return
    command = " ".join(step["argv"])
    if any(Path(step["result"]["logDir"]).rglob("mlperf_log_accuracy.json")):
        text = f"{command} measured, but its accuracy script left no accuracy{said(stage)}"
        raise StageError("AccuracyScriptFailed", text, command_code=0)
    raise StageError("NoResult", f"{command} ended with 0 but wrote no result{said(stage)}", command_code=0)


def write_record(stage: Stage, step: Step, started: str, error: StageError | None) -> None:
    """Leave what `collect` reads: which result, where, and how it went."""
    record = {
        **step["result"],
        "uid": stage.uid,
        "step": step["id"],
        "reason": error.reason if error else "Completed",
        "message": error.message if error else "",
        "exitCode": error.command_code if error else 0,
        "startedAt": started,
        "finishedAt": utc_now(),
        "engines": engines_of(stage, step),
    }
    write_atomically(record_path(stage, step), json.dumps(record, sort_keys=True))


# --- the stage --------------------------------------------------------------------------------------------------------


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
        failed: dict[str, StageError] = {}
        skipped = [step["id"] for step in stage.steps if try_step(stage, step, failed)]
        if failed:
            raise summary_of(failed)
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
        if needed and measured(stage, step):
            say(f"{step['id']}: keeps its result, though {needed[0]} failed now")
            return True
        if needed:
            why = f"not run, because {needed[0]} failed: {failed[needed[0]].message}"
            error = StageError("PreviousStepFailed", why)
            write_record(stage, step, utc_now(), error)
            raise error
        return run_step(stage, step)
    except (StageError, OSError) as caught:
        error = caught if isinstance(caught, StageError) else os_failure(caught)
        error.step = step["id"]
        if not step.get("continueOnFailure") or error.code == EXIT_TERMINATED or error.reason == "StageTimeout":
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
    fields: dict[str, Any] = {"stage": stage_name[:63], "reason": reason, "message": error.message if error else ""}
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
        stage = load_stage(Path(os.environ.get("MLPERF_PLAN", "/agent/plan.json")), name)
        stage.stopping = stopping
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
