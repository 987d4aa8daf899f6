"""The stage wrapper: carries out one stage of plan.json in a container of the run's pod.

Standard-library Python 3.10 in a few files of one folder, because NVIDIA's image has none of our packages.
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
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

if __package__:
    from mlperf_operator.agent import contents, evidence, keep
else:
    # In the run's pod these files lie in one folder, and the package is not there.
    import contents  # type: ignore[import-not-found,no-redef]
    import evidence  # type: ignore[import-not-found,no-redef]
    import keep  # type: ignore[import-not-found,no-redef]

EXIT_CONFIG = 64
EXIT_FAILED = 65
EXIT_TERMINATED = 143
EXIT_TRANSIENT = 75
"""EX_TEMPFAIL of sysexits.h."""

MAX_TERMINATION_BYTES = 1000
"""The kubelet keeps 12 KiB of messages a pod, shared by its containers, and keeps the head of each."""

PASSING = ("DownloadFailed", "StageFailed", "PostconditionFailed")
"""Reasons that another try may mend."""

ENDING = ("StageTimeout", "EnvironmentFailed")
"""Reasons after which no other step can do better."""

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
ACTIONS = ("exec", "copyTree", "preflight", "snapshot")
COMMIT_ID = re.compile(r"[0-9a-f]{40}")
FINDING = "[preflight] finding: "
"""How preflight.py begins a line that says what is wrong."""

FACTS = "[preflight] facts: "
"""How preflight.py begins the line that says, as JSON, which driver and GPUs it saw."""

MAKE_TRANSIENT = re.compile(rf"^(?:\S*/)?g?make(?:\[\d+\])?: \*\*\* .* Error {EXIT_TRANSIENT}$")
"""make itself ends with 2 whatever its recipe ended with, and tells the recipe's code in this line (GNU make).

Written out from the line's begin: with a gap in the middle, a long line of a harness would take hours to search.
"""

ENVIRONMENT_FINDING, ENVIRONMENT_FACTS = "[environment] finding: ", "[environment] facts: "
"""How snapshot.py begins the line that says why it could not, and the one with what it found."""

_OWN = (FINDING, FACTS, ENVIRONMENT_FINDING, ENVIRONMENT_FACTS)
STATED = re.compile("|".join((MAKE_TRANSIENT.pattern, *map(re.escape, _OWN))))
"""How lines begin that are remembered beside those that tell (evidence.py); searched for in one, both take long."""


def is_remembered(line: str) -> bool:
    """Say whether a line of a command is kept until the command has ended."""
    return STATED.match(line) is not None or evidence.TELLING.search(line) is not None


OVERRIDES = Path("/overrides")
"""Where the rendered overrides are mounted (resources/stage_plan.py)."""

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
        self.telling: list[str] = []
        """Lines of the command that show why it failed."""
        self.is_advisory = False
        """Whether the stage may end well all the same."""
        self.root: StageError = self
        """The failure of an earlier step that this one follows from."""


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
        self.env: dict[str, str] = stages[name].get("env", {})
        self.timeout = float(stages[name]["timeoutSeconds"])
        self.root = Path(plan["paths"].get("root", "/"))
        self.needs_environment = bool(stages[name].get("environment"))
        self.has_environment = False
        self.remark = ""
        for step in self.steps:
            if step["action"] not in ACTIONS:
                raise config_error(f"step {step['id']} has action {step['action']!r}; there are {', '.join(ACTIONS)}")
        for path in paths:
            if not path.is_dir():
                raise config_error(f"{path} is not mounted")
        self.deadline = time.monotonic() + self.timeout
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.telling: deque[str] = deque(maxlen=TAIL_LINES)
        self.complaints: deque[str] = deque(maxlen=TAIL_LINES)
        self.oom_kills = 0
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
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or evidence.FULL.search(str(error)):
        return StageError("ScratchFull", f"{text}; free some space or use a larger volume")
    return StageError("StageFailed", text)


def emit(data: bytes) -> None:
    """Write to the log as it is, and to its copy; a log that takes nothing must not stop the work."""
    LOG.write(data)
    to_stdout(data)


def to_stdout(data: bytes) -> None:
    """Write to the container's log."""
    # Not by sys.stdout: a thread that holds its lock when the interpreter ends would abort it.
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(1, data) :]


def say(text: str) -> None:
    """Print a line of the wrapper's own."""
    emit(f"[mlperf] {text}\n".encode(errors="replace"))


LOG = keep.StageLog(lambda text: to_stdout(f"[mlperf] {text}\n".encode(errors="replace")))
"""The copy of what a stage prints, on the results volume."""


def kept(what: str, act: Callable[[], object]) -> None:
    """Leave something on the results volume that the work itself does not need."""
    try:
        act()
    except OSError as error:
        # copytree gathers its failures in the text of one error.
        say(f"{what} cannot be kept on the results volume: {error.strerror or str(error)[:MAX_TERMINATION_BYTES]}")


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
    except (OSError, ValueError, RecursionError):
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
                parts = ["program" if path.stat().st_mode & 0o100 else "file", contents.digest(path)]
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
    environment = read_object(environment_note(stage)).get("digest", "") if stage.needs_environment else ""
    return hashlib.sha256(f"{step['digest']} {tree} {environment}".strip().encode()).hexdigest()


def marker_path(stage: Stage, step: Step, digest: str) -> Path:
    """Return where the marker of a step lies."""
    folder = stage.common if is_shared(step) else stage.state
    return folder / "markers" / f"{step['id']}-{digest[:16]}.json"


def each_condition(step: Step) -> Iterator[dict[str, Any]]:
    """Yield a step's postconditions; one with `casesFrom`, a JSON list of names, stands for one of each name."""
    for condition in step.get("postconditions", ()):
        names = condition.get("casesFrom")
        if names is None:
            yield condition
            continue
        try:
            cases = json.loads(Path(names).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            cases = ()  # A condition about the list itself says what is wrong with it.
        for case in cases if isinstance(cases, list) else ():
            yield {**condition, "glob": condition["glob"].replace("{}", str(case))}


def broken(step: Step, *, content: bool) -> list[tuple[Path | None, str]]:
    """Return what a step should have left and did not, with the file at fault; with `content` also by reading them."""
    problems: list[tuple[Path | None, str]] = []
    for condition in each_condition(step):
        files, wanted = matching(condition["glob"]), condition.get("minCount", 1)
        if len(files) < wanted:
            problems.append((None, f"{len(files)} of {wanted} files {condition['glob']}"))
        sizes = [(file, file.stat().st_size) for file in files]
        problems += [(file, f"{file} has {size} bytes") for file, size in sizes if size < condition.get("minBytes", 1)]
        if content:
            problems += [(file, text) for file in files for text in contents.problems(file, condition)]
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
    # What a publishing step leaves comes back into /work with the kept tree only.
    problems = [] if step.get("publishTree") else [text for _, text in broken(step, content=False)]
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
    patterns = [] if step.get("publishTree") else [condition["glob"] for condition in each_condition(step)]
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


def run_once(stage: Stage, step: Step) -> None:
    """Run a step's command and hold what it left against the postconditions."""
    stage.telling.clear()
    stage.complaints.clear()
    stage.oom_kills = evidence.oom_kills()
    # A step without a command only looks: what it wants must be there already.
    code = execute(stage, step["argv"], step.get("env", {})) if step["argv"] else 0
    problems = [text for _, text in broken(step, content=True)] if code == 0 else []
    if code or problems:
        raise failure(stage, step, code, problems)


def failure(stage: Stage, step: Step, code: int, problems: list[str]) -> StageError:
    """Say why a command did not do its work."""
    command = " ".join(step["argv"])
    if no_space(stage):
        text = f"{command} failed{said(stage)}; free some space on scratch or results, or use a larger volume"
        return StageError("ScratchFull", text, command_code=code)
    if not step["argv"]:
        text = f"{step['id']}: nothing is fetched offline, and scratch has {'; '.join(problems)}"
        return StageError("PostconditionFailed", text)
    if code == 0:
        text = f"{command} ended with 0 but left {'; '.join(problems)}"
        return StageError("PostconditionFailed", text, command_code=code)
    transient = code == EXIT_TRANSIENT or any(map(MAKE_TRANSIENT.search, list(stage.telling)))
    reason = "DownloadFailed" if transient else "StageFailed"
    return StageError(reason, f"{command} ended with {code}{said(stage)}", command_code=code)


def telling_of(stage: Stage) -> list[str]:
    """Return the lines of the last command that show why it did not do its work."""
    return evidence.most_telling([*stage.telling, *stage.complaints])


def said(stage: Stage) -> str:
    """Return the last telling line of a command, to be put behind a sentence."""
    lines = telling_of(stage)
    return f": {lines[-1]}" if lines else ""


def no_space(stage: Stage) -> bool:
    """Say whether a volume is full, by what the command said or by the file system itself."""
    if any(map(evidence.FULL.search, list(stage.telling))):
        return True
    found = [os.statvfs(folder) for folder in (stage.scratch, stage.work, stage.results)]
    return any(space.f_blocks and space.f_bavail * space.f_frsize < FREE_BYTES_MIN for space in found)


# --- what a failed command left ---------------------------------------------------------------------------------------


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


# --- what a step does -------------------------------------------------------------------------------------------------


def copy_code(stage: Stage, step: Step) -> None:
    """Make the run's own copy of the code tree in /work and remember its content's digest."""
    source = step["source"]
    # What other steps did in the tree goes with it.
    shutil.rmtree(stage.state / "markers", ignore_errors=True)
    clear_work(stage)
    if source["type"] == "Path":
        copy_tree(stage, code_origin(source), stage.work)
    else:
        copy_from_git(stage, step)
    for origin_name, target in step.get("files", {}).items():
        shutil.copyfile(origin_name, stage.work / target)
    digest = tree_digest(stage.work, stage.check_time)
    write_atomically(stage.state / "tree.sha256", digest)
    say(f"code tree {digest}")


def code_origin(source: dict[str, Any]) -> Path:
    """Return the folder of the code tree: the named one, or the folder of a checkout that the suite says."""
    named, folder = Path(source["path"]), source.get("subPath", "")
    tried = [named / folder, named] if folder else [named]
    for origin in tried:
        if (origin / "Makefile").is_file():
            return origin
    where = " nor ".join(map(str, tried))
    raise config_error(f"there is no code tree: no Makefile in {where}; name its folder, or a checkout's, in code.path")


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
    write_atomically(path, keep.write_node(path, facts))


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
    return {str(file.relative_to(stage.work)): contents.digest(file) for file in files}


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


# --- the environment that prebuild makes ------------------------------------------------------------------------------


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


# --- results ----------------------------------------------------------------------------------------------------------


def record_path(stage: Stage, step: Step) -> Path:
    """Return where the record of a harness step lies."""
    return stage.results / "steps" / f"{step['id']}.json"


def measured(stage: Stage, step: Step) -> dict[str, Any]:
    """Return the record of a harness or audit step of this very run that has its result; empty when there is none."""
    record = read_object(record_path(stage, step))
    own = record.get("uid") == stage.uid and record.get("reason") == "Completed"
    return record if own and (has_result(step) if "result" in step else was_verified(step)) else {}


def keeps_its_result(stage: Stage, step: Step) -> bool:
    """Say whether a step has its result from an earlier attempt, of the engines that there are now."""
    old = measured(stage, step)
    if old and old.get("engines") == engines_of(stage, step):
        say(f"{step['id']}: skipped, has its result from {old.get('finishedAt')}")
        return True
    if old:
        say(f"{step['id']}: has its result, but of another engine; measuring again")
    return False


def engines_of(stage: Stage, step: Step) -> dict[str, str]:
    """Return the engines that a harness step uses, with their digests."""
    used = [stage.engines.get(need, {}) for need in step.get("requires", ())]
    return {name: digest for engines in used for name, digest in engines.items()}


def run_harness(stage: Stage, step: Step) -> bool:
    """Run the harness for one pair and mode into an empty log folder, and leave a record of how it went."""
    if keeps_its_result(stage, step):
        return True
    record_path(stage, step).unlink(missing_ok=True)
    log_dir = Path(step["result"]["logDir"])
    log_dir.mkdir(parents=True, exist_ok=True)
    empty(log_dir)
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
        settings = "LoadGen's settings"
        kept(settings, lambda: keep.copy_measurements(stage.results, stage.work, step["result"]))
    write_record(stage, step, started, None)
    return False


def result_files(step: Step) -> list[Path]:
    """Return the files in a log folder that can be read as a result of the step's mode."""
    log_dir = Path(step["result"]["logDir"])
    names = ("metadata.json", "accuracy.txt" if step["result"]["mode"] == "AccuracyOnly" else "mlperf_log_summary.txt")
    return [file for name in names for file in log_dir.rglob(name)]


def has_result(step: Step) -> bool:
    """Say whether a log folder holds what can be read as a result of the step's mode."""
    return bool(result_files(step))


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


def require_same_engines(stage: Stage, step: Step) -> None:
    """Raise when an engine is not the one from before the command: a harness that builds anew measures another."""
    for name, digest in engines_of(stage, step).items():
        path = stage.work / name
        if not path.is_file() or contents.digest(path) != digest:
            text = f"{' '.join(step['argv'])} measured with another engine: it built {name} anew"
            raise StageError("OtherEngine", text, command_code=0)


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


def write_record(stage: Stage, step: Step, started: str, error: StageError | None) -> None:
    """Leave what `collect` reads: which result, where, and how it went."""
    root = error.root if error else None
    record = {
        **(step.get("result") or step["audit"]),
        "uid": stage.uid,
        "step": step["id"],
        "reason": error.reason if error else "Completed",
        "message": error.message if error else "",
        "exitCode": error.command_code if error else 0,
        "startedAt": started,
        "finishedAt": utc_now(),
        "engines": engines_of(stage, step),
        "telling": telling_of(stage) if root is error else root.telling if root else [],
        "because": root.reason if root else "",
        "during": during(stage, root.step if root else ""),
        "oomKills": evidence.oom_kills() - stage.oom_kills if root is error else 0,
    }
    write_atomically(record_path(stage, step), json.dumps(record, sort_keys=True))


def during(stage: Stage, failed: str) -> str:
    """Say in a word what kind of step it was that failed, empty where it was the measuring itself."""
    return "engines" if any(step["id"] == failed and step.get("engineGlobs") for step in stage.steps) else ""


# --- audits -----------------------------------------------------------------------------------------------------------

VERIFIED = ("verify_performance.txt", "verify_accuracy.txt")
"""What MLCommons' run_verification.py writes about a compliance test (mlcommons/inference, compliance/nvidia)."""


def run_audit(stage: Stage, step: Step) -> bool:
    """Run one compliance test of one pair and move what it left to its log folder; `collect` judges it.

    Its exit code says little: a verification that found a difference ends with 2, an exempted test with 0.
    """
    if keeps_its_result(stage, step):
        return True
    record_path(stage, step).unlink(missing_ok=True)
    log_dir, origin = Path(step["audit"]["logDir"]), Path(step["audit"]["from"])
    log_dir.mkdir(parents=True, exist_ok=True)
    empty(log_dir)
    # Every pair and every earlier run of it writes to the same folder of the tree.
    shutil.rmtree(origin, ignore_errors=True)
    started = utc_now()
    try:
        failure_of(stage, step, origin, log_dir)
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


def was_verified(step: Step) -> bool:
    """Say whether an audit's log folder holds a verification, whatever it says."""
    log_dir = Path(step["audit"]["logDir"])
    return any(any(log_dir.rglob(name)) for name in VERIFIED)


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
