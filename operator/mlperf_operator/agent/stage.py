"""The stage wrapper: carries out one stage of plan.json in a container of the run's pod.

One file of standard-library Python 3.10 (preflight.py beside it), because NVIDIA's image has none of our packages.
Usage: python3 stage.py STAGE. Exit codes: 0 done or skipped, 64 configuration, 65 the stage failed, 143 stopped.
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
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

EXIT_CONFIG = 64
EXIT_FAILED = 65
EXIT_TERMINATED = 143
EXIT_TRANSIENT = 75
"""A command that ends with EX_TEMPFAIL (sysexits.h) is tried again."""

MAX_TERMINATION_BYTES = 1000
"""The kubelet keeps 12 KiB of messages a pod, shared by its containers, and keeps the head of each."""

TRANSIENT_RETRIES = 3
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

FULL = re.compile(r"No space left on device|Disk quota exceeded")
TELLING = re.compile(FULL.pattern + r"|No registered config for|did not match any known systems|out of memory|Killed")
"""Lines in which NVIDIA's harness says why it did nothing, although it exits 0."""

MAKE_TRANSIENT = re.compile(rf"make.*\*\*\* .* Error {EXIT_TRANSIENT}$")
"""make itself ends with 2 whatever its recipe ended with, and tells the recipe's code in this line (GNU make)."""

Step = dict[str, Any]


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
        self.steps: list[Step] = stages[name]["steps"]
        self.shared: list[Step] = [s for other in stages.values() for s in other["steps"] if is_shared(s)]
        self.timeout = float(stages[name]["timeoutSeconds"])
        for step in self.steps:
            if step["action"] not in ACTIONS:
                raise config_error(f"step {step['id']} has action {step['action']!r}; there are {', '.join(ACTIONS)}")
        for path in paths:
            if not path.is_dir():
                raise config_error(f"{path} is not mounted")
        self.keep_work = bool(plan.get("keepWork"))
        self.deadline = time.monotonic() + self.timeout
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.telling: deque[str] = deque(maxlen=TAIL_LINES)
        self.stopping = threading.Event()
        self.inherited: tuple[int, ...] = ()
        self.engines: dict[str, dict[str, str]] = {}

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


def say(text: str) -> None:
    """Print a line of the wrapper's own."""
    print(f"[mlperf] {text}", flush=True)


def is_shared(step: Step) -> bool:
    """Say whether a step's outcome lies on scratch for every run."""
    return step.get("scope") == "Shared"


# --- files that must never be there by half ---------------------------------------------------------------------------


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
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


# --- markers, locks, postconditions -----------------------------------------------------------------------------------


def identity(stage: Stage, step: Step) -> str:
    """Return the digest of a step's inputs; what is shared depends on the code tree's content too."""
    if step.get("scope") != "Shared":
        return str(step["digest"])
    tree = (stage.state / "tree.sha256").read_text(encoding="utf-8")
    return hashlib.sha256(f"{step['digest']} {tree}".encode()).hexdigest()


def marker_path(stage: Stage, step: Step, digest: str) -> Path:
    """Return where the marker of a step lies."""
    folder = stage.scratch / ".mlperf" if step.get("scope") == "Shared" else stage.state
    return folder / "markers" / f"{step['id']}-{digest[:16]}.json"


def tree_path(stage: Stage, digest: str) -> Path:
    """Return where a built tree is kept for later runs."""
    return stage.scratch / ".mlperf" / "trees" / digest


@contextlib.contextmanager
def locked(stage: Stage, step: Step, digest: str) -> Iterator[None]:
    """Hold the lock of a shared step, saying who is waited for; the kernel drops it when its holder dies."""
    if step.get("scope") != "Shared":
        yield
        return
    path = stage.scratch / ".mlperf" / "locks" / f"{step['id']}-{digest[:16]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        told = -float(LOCK_NOTICE_SECONDS)
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                stage.check_time()
                if time.monotonic() - told >= LOCK_NOTICE_SECONDS:
                    told = time.monotonic()
                    file.seek(0)
                    say(f"{step['id']}: waiting for run {file.read() or 'unknown'}, which prepares the same")
                time.sleep(0.2)
        file.truncate(0)
        file.write(stage.uid)
        file.flush()
        yield


def broken_postconditions(step: Step, *, content: bool) -> list[str]:
    """Return what a step should have left and did not; with `content` also by checksum."""
    problems = []
    for condition in step.get("postconditions", ()):
        pattern = condition["glob"]
        files = matching(pattern)
        if len(files) < condition.get("minCount", 1):
            problems.append(f"{len(files)} of {condition.get('minCount', 1)} files {pattern}")
        small = [file for file in files if file.stat().st_size < condition.get("minBytes", 1)]
        problems += [f"{file} has {file.stat().st_size} bytes" for file in small]
        for kind in ("md5", "sha256"):
            if content and condition.get(kind):
                wrong = [file for file in files if file_digest(file, kind) != condition[kind]]
                problems += [f"{file} has another {kind}" for file in wrong]
    return problems


def is_done(stage: Stage, step: Step, digest: str) -> bool:
    """Say whether a step's marker is there and its outcome still is."""
    marker = read_object(marker_path(stage, step, digest))
    if marker.get("digest") != digest:
        return False
    problems = broken_postconditions(step, content=False)
    if step.get("publishTree") and not tree_path(stage, digest).is_dir():
        problems.append("the built tree is gone from scratch")
    if problems:
        say(f"{step['id']}: was done before, but {'; '.join(problems)}; doing it again")
        return False
    say(f"{step['id']}: skipped, done {marker.get('finishedAt')} by run {marker.get('run')}")
    return True


def mark_done(stage: Stage, step: Step, digest: str, started: float) -> None:
    """Leave the marker of a step."""
    marker = {
        "step": step["id"],
        "digest": digest,
        "finishedAt": utc_now(),
        "durationSeconds": round(time.monotonic() - started, 3),
        "run": stage.uid,
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
        )
    except FileNotFoundError as error:
        raise StageError("ConfigInvalid", f"the image has no {error.filename}", code=EXIT_CONFIG) from error
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
    for raw in process.stdout:
        line = raw.decode(errors="replace")
        sys.stdout.write(line)
        sys.stdout.flush()
        stage.tail.append(line.rstrip())
        if TELLING.search(line):
            stage.telling.append(line.strip())


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a command and everything that it started in its process group."""
    for number, patience in ((signal.SIGTERM, KILL_AFTER_SECONDS), (signal.SIGKILL, KILL_AFTER_SECONDS)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience if process.poll() is None else 0)
        if process.poll() is not None and number == signal.SIGTERM:
            time.sleep(0.05)
    process.wait()


def run_command(stage: Stage, step: Step) -> None:
    """Run a step's command, again where that can help, until its postconditions hold."""
    retries = int(step.get("retries", 0))
    attempt = 0
    while True:
        stage.telling.clear()
        code = execute(stage, step["argv"], step.get("env", {}))
        problems = broken_postconditions(step, content=True) if code == 0 else []
        if code == 0 and not problems:
            return
        error = failure(stage, step, code, problems)
        for pattern in step.get("removeOnFailure", ()):
            for file in matching(pattern):
                file.unlink(missing_ok=True)
        attempt += 1
        allowed = max(retries, TRANSIENT_RETRIES) if code == EXIT_TRANSIENT else retries
        if attempt > allowed or error.reason == "ScratchFull":
            raise error
        pause = float(step.get("retryDelaySeconds", 10))
        say(f"{step['id']}: {error.message}; try {attempt + 1} of {allowed + 1} in {pause:g} s")
        if stage.stopping.wait(pause):
            stage.check_time()


def failure(stage: Stage, step: Step, code: int, problems: list[str]) -> StageError:
    """Say why a command did not do its work."""
    command = " ".join(step["argv"])
    if no_space(stage):
        text = f"{command} failed: no space left on scratch or results; free some or use a larger volume"
        return StageError("ScratchFull", text, command_code=code)
    if code == 0:
        text = f"{command} ended with 0 but left {'; '.join(problems)}"
        return StageError("PostconditionFailed", text, command_code=code)
    reason = "DownloadFailed" if code == EXIT_TRANSIENT else "StageFailed"
    return StageError(reason, f"{command} ended with {code}", command_code=code)


def no_space(stage: Stage) -> bool:
    """Say whether a volume is full, by what the command said or by the file system itself."""
    if any("No space left on device" in line for line in stage.telling):
        return True
    for folder in (stage.scratch, stage.work, stage.results):
        found = os.statvfs(folder)
        if found.f_blocks and found.f_bavail * found.f_frsize < FREE_BYTES_MIN:
            return True
    return False


# --- what a step does -------------------------------------------------------------------------------------------------


def copy_code(stage: Stage, step: Step) -> None:
    """Make the run's own copy of the code tree in /work and remember its content's digest."""
    source = step["source"]
    empty(stage.work)
    if source["type"] == "Path":
        origin = Path(source["path"])
        if not origin.is_dir():
            raise StageError("ConfigInvalid", f"the image has no code tree at {origin}", code=EXIT_CONFIG)
        copy_tree(origin, stage.work)
    else:
        copy_from_git(stage, source)
    for origin_name, target in step.get("files", {}).items():
        shutil.copyfile(origin_name, stage.work / target)
    digest = tree_digest(stage.work, stage.check_time)
    write_atomically(stage.state / "tree.sha256", digest)
    say(f"code tree {digest}")


def copy_tree(origin: Path, target: Path) -> None:
    """Copy what is in a tree, with its links and modes, into a folder that is there and may belong to somebody else."""
    for entry in origin.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, target / entry.name, symlinks=True, copy_function=shutil.copy)
        else:
            shutil.copy(entry, target / entry.name, follow_symlinks=False)


def copy_from_git(stage: Stage, source: dict[str, str]) -> None:
    """Copy a folder of exactly one commit of a repository."""
    checkout = stage.state / "checkout"
    shutil.rmtree(checkout, ignore_errors=True)
    checkout.mkdir(parents=True)
    commit = source["commit"]
    git = ["git", "-C", str(checkout)]
    for arguments in (
        ["init", "-q"],
        ["fetch", "-q", "--depth", "1", source["url"], commit],
        ["checkout", "-q", commit],
    ):
        code = execute(stage, [*git, *arguments], {"GIT_TERMINAL_PROMPT": "0"})
        if code:
            text = f"git {arguments[0]} of {source['url']} at {commit} ended with {code}"
            raise StageError("DownloadFailed", text, command_code=code)
    origin = checkout / source.get("subPath", "")
    if not origin.is_dir():
        raise StageError("ConfigInvalid", f"commit {commit} has no folder {source['subPath']}", code=EXIT_CONFIG)
    copy_tree(origin, stage.work)
    shutil.rmtree(checkout)
    shutil.rmtree(stage.work / ".git", ignore_errors=True)


def run_preflight(_stage: Stage, step: Step) -> None:
    """Look at everything before anything is downloaded, and tell every finding at once."""
    sys.path.insert(0, str(Path(__file__).parent))
    import preflight  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - it lies beside this file only in the pod

    findings = preflight.findings(step["checks"])
    if findings:
        raise StageError("PreflightFailed", "; ".join(findings), code=EXIT_CONFIG)


def run_step(stage: Stage, step: Step) -> bool:
    """Carry out a step unless it is done already; return whether it was skipped."""
    if step["action"] == "preflight":
        run_preflight(stage, step)
        return False
    if step.get("result") is not None:
        return run_harness(stage, step)
    digest = identity(stage, step)
    with locked(stage, step, digest):
        if is_done(stage, step, digest):
            if step.get("publishTree"):
                restore_tree(stage, digest)
            return True
        started = time.monotonic()
        if step["action"] == "copyTree":
            copy_code(stage, step)
        else:
            run_command(stage, step)
        if step.get("publishTree"):
            publish_tree(stage, digest)
        mark_done(stage, step, digest, started)
    return False


def publish_tree(stage: Stage, digest: str) -> None:
    """Keep the built tree on scratch, whole or not at all."""
    target = tree_path(stage, digest)
    temporary = target.with_name(f".{digest}.{stage.uid}.tmp")
    for leftover in (temporary, target):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    copy_tree(stage.work, temporary)
    temporary.replace(target)


def restore_tree(stage: Stage, digest: str) -> None:
    """Put the built tree that an earlier run kept into /work."""
    empty(stage.work)
    copy_tree(tree_path(stage, digest), stage.work)


def remember_engines(stage: Stage, step: Step) -> None:
    """Note the digests of the engines that a step made, for the records of the results that they give."""
    path = stage.state / "engines" / f"{step['id']}.json"
    files = [file for pattern in step["engineGlobs"] for file in matching(pattern)]
    found = {str(file.relative_to(stage.work)): file_digest(file) for file in files}
    if found:
        write_atomically(path, json.dumps(found, sort_keys=True))
    stage.engines[step["id"]] = found or {k: str(v) for k, v in read_object(path).items()}


# --- results ----------------------------------------------------------------------------------------------------------


def record_path(stage: Stage, step: Step) -> Path:
    """Return where the record of a harness step lies."""
    return stage.results / "steps" / f"{step['id']}.json"


def run_harness(stage: Stage, step: Step) -> bool:
    """Run the harness for one pair and mode into an empty log folder, and leave a record of how it went."""
    old = read_object(record_path(stage, step))
    if old.get("uid") == stage.uid and old.get("reason") == "Completed":
        say(f"{step['id']}: skipped, has its result from {old.get('finishedAt')}")
        return True
    log_dir = Path(step["result"]["logDir"])
    log_dir.mkdir(parents=True, exist_ok=True)
    empty(log_dir)
    started = utc_now()
    try:
        run_command(stage, step)
        require_result(stage, step, log_dir)
    except StageError as error:
        if error.code != EXIT_TERMINATED:
            write_record(stage, step, started, error)
        raise
    write_record(stage, step, started, None)
    return False


def require_result(stage: Stage, step: Step, log_dir: Path) -> None:
    """Raise when the harness left no result: it exits 0 also when it had nothing to do."""
    if not any((*log_dir.rglob("metadata.json"), *log_dir.rglob("mlperf_log_summary.txt"))):
        said = f": {stage.telling[-1]}" if stage.telling else ""
        text = f"{' '.join(step['argv'])} ended with 0 but wrote no result{said}"
        raise StageError("NoResult", text, command_code=0)


def write_record(stage: Stage, step: Step, started: str, error: StageError | None) -> None:
    """Leave what `collect` reads: which result, where, and how it went."""
    engines = {
        name: digest for need in step.get("requires", ()) for name, digest in stage.engines.get(need, {}).items()
    }
    record = {
        **step["result"],
        "uid": stage.uid,
        "step": step["id"],
        "reason": error.reason if error else "Completed",
        "message": error.message if error else "",
        "exitCode": error.command_code if error else 0,
        "startedAt": started,
        "finishedAt": utc_now(),
        "engines": engines,
    }
    write_atomically(record_path(stage, step), json.dumps(record, sort_keys=True))


# --- the stage --------------------------------------------------------------------------------------------------------


def run_stage(stage: Stage) -> str:
    """Carry out a stage's steps and return Completed or Skipped; raises StageError when one failed."""
    failed: dict[str, StageError] = {}
    skipped = []
    for step in stage.steps:
        stage.check_time()
        needed = [need for need in step.get("requires", ()) if need in failed]
        try:
            if needed:
                error = StageError("PreviousStepFailed", f"not run, because {needed[0]} failed")
                write_record(stage, step, utc_now(), error)
                raise error
            if run_step(stage, step):
                skipped.append(step["id"])
            if step.get("engineGlobs"):
                remember_engines(stage, step)
        except StageError as error:
            error.step = step["id"]
            if not step.get("continueOnFailure") or error.code == EXIT_TERMINATED or error.reason == "StageTimeout":
                raise
            say(f"{step['id']}: {error.message}; going on with the rest")
            failed[step["id"]] = error
    if failed:
        raise summary_of(failed)
    if stage.name == "run" and not stage.keep_work:
        empty(stage.work)
    return "Skipped" if skipped and len(skipped) == len(stage.steps) else "Completed"


def summary_of(failed: dict[str, StageError]) -> StageError:
    """Return the first real failure, with how many there were."""
    causes = [error for error in failed.values() if error.reason != "PreviousStepFailed"]
    first = causes[0]
    if len(causes) > 1:
        first.message += f" (and {len(causes) - 1} more: {', '.join(error.step for error in causes[1:])})"
    return first


def termination_message(fields: dict[str, Any], tail: list[str]) -> bytes:
    """Return the termination message: JSON of at most MAX_TERMINATION_BYTES, the tail cut at its front to fit."""
    lines, message = "\n".join(tail), str(fields["message"])
    while True:
        encoded = json.dumps({**fields, "message": message, "tail": lines}, ensure_ascii=False).encode(errors="replace")
        over = len(encoded) - MAX_TERMINATION_BYTES
        if over <= 0:
            return encoded
        cut = max(1, over // 4)
        if len(lines) > 200 or not message:
            lines = lines[cut:]
        elif len(message) > 300 or not lines:
            message = message[: -max(1, cut)]
        else:
            lines = lines[cut:]


def tell(stage_name: str, reason: str, message: str, error: StageError | None, tail: list[str]) -> None:
    """Write the termination message; the kubelet brings it into the pod's status."""
    fields: dict[str, Any] = {"stage": stage_name, "reason": reason, "message": message}
    if error is not None:
        fields |= {"step": error.step, "exitCode": error.command_code}
    path = Path(os.environ.get("MLPERF_TERMINATION_LOG", "/dev/termination-log"))
    path.write_bytes(termination_message(fields, tail))


def main(argv: list[str]) -> int:
    """Carry out the stage that the command line names and return the exit code."""
    name = argv[0] if argv else ""
    stage: Stage | None = None
    try:
        path = Path(os.environ.get("MLPERF_PLAN", "/agent/plan.json"))
        stage = load_stage(path, name)
        stopping = stage.stopping
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        reason = run_stage(stage)
    except StageError as error:
        return give_up(name, error, stage)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        text = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        return give_up(name, StageError("ScratchFull" if full else "StageFailed", text), stage)
    say(f"stage {name}: {reason.lower()}")
    tell(name, reason, "", None, [])
    return 0


def give_up(name: str, error: StageError, stage: Stage | None) -> int:
    """Tell why the stage failed and return its exit code."""
    say(f"stage {name}: {error.reason}: {error.message}")
    tell(name, error.reason, error.message, error, list(stage.tail) if stage is not None else [])
    return error.code


def _entry() -> NoReturn:
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    _entry()
