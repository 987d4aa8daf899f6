"""A run's pod without a pod: folders, a plan, and the stage wrapper, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlperf_operator.agent.wrapper import stage

STAGE_PY = Path(stage.__file__)
Step = dict[str, Any]
STARTED: list[subprocess.Popen[str]] = []
"""Wrappers in processes of their own, ended with the test at the latest."""


def step(name: str, script: str = "true", /, **more: Any) -> Step:
    """Return a step of the run alone that runs a shell script and does not wait between tries."""
    argv = ["sh", "-c", script]
    base = {"id": name, "action": "exec", "argv": argv, "scope": "Private", "digest": f"{name}-1"}
    return {**base, "retryDelaySeconds": 0, **more}


def shared(name: str, script: str, pattern: str | Path | None = None, /, **more: Any) -> Step:
    """Return a step that runs share, with a pattern of the files that it must leave and that failed tries may not."""
    patterns = [str(pattern)] if pattern else []
    conditions = [{"glob": item} for item in patterns]
    return step(name, script, **{"scope": "Shared", "postconditions": conditions, "removeOnFailure": patterns, **more})


class Bench:
    """The folders of one run; two of them in one place share their scratch."""

    def __init__(self, root: Path, uid: str = "uid-1") -> None:
        self.uid, self.home = uid, root / uid
        self.scratch = root / "scratch"
        self.work, self.state, self.results = (self.home / name for name in ("work", "state", "results"))
        for folder in (self.scratch, self.work, self.state, self.results):
            folder.mkdir(parents=True, exist_ok=True)
        self.root = self.home / "root"
        """What plays the root of the container; there is none unless a test makes one."""
        (self.state / "tree.sha256").write_text("tree")
        self.plan_file, self.termination = self.home / "plan.json", self.home / "termination-log"

    @property
    def environment(self) -> dict[str, str]:
        """Where the wrapper finds its plan and writes its termination message."""
        return {"MLPERF_PLAN": str(self.plan_file), "MLPERF_TERMINATION_LOG": str(self.termination)}

    def plan(self, *steps: Step, name: str = "prepare", timeout: float = 60, **more: Any) -> dict[str, Any]:
        """Write a plan of one stage and return it."""
        paths = {key: str(getattr(self, key)) for key in ("scratch", "work", "state", "results", "root")}
        stages = {name: {"timeoutSeconds": timeout, "steps": list(steps), **more}}
        expected = [{**s["result"], "step": s["id"]} for s in steps if s.get("result")]
        content = {"run": {"uid": self.uid}, "paths": paths, "stages": stages, "expected": expected}
        self.plan_file.write_text(json.dumps(content))
        return content

    def run(self, *steps: Step, name: str = "prepare", timeout: float = 60, **more: Any) -> int:
        """Run a stage in this process and return its exit code."""
        self.plan(*steps, name=name, timeout=timeout, **more)
        os.environ.update(self.environment)
        return stage.main([name])

    def start(self, *steps: Step, name: str = "prepare", timeout: float = 60, **more: Any) -> subprocess.Popen[str]:
        """Run a stage in a process of its own."""
        self.plan(*steps, name=name, timeout=timeout, **more)
        process = subprocess.Popen(
            [sys.executable, str(STAGE_PY), name],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        STARTED.append(process)
        return process

    @property
    def told(self) -> dict[str, Any]:
        """The termination message."""
        found = json.loads(self.termination.read_bytes())
        assert isinstance(found, dict)
        return found

    def record(self, name: str) -> dict[str, Any]:
        """Return the record of a harness step."""
        found = json.loads((self.results / "steps" / f"{name}.json").read_text())
        assert isinstance(found, dict)
        return found

    def harness(self, mode: str = "PerformanceOnly", script: str | None = None, /, **more: Any) -> Step:
        """Return a harness step whose command leaves a result of its mode."""
        log_dir = self.results / "logs" / mode
        write = f"mkdir -p {log_dir}/system && echo '{{}}' > {log_dir}/system/metadata.json"
        result = {
            "benchmark": "bert",
            "variant": "bert-99",
            "scenario": "Offline",
            "mode": mode,
            "logDir": str(log_dir),
        }
        fields = {"result": result, "continueOnFailure": True, "requires": [], **more}
        return step(f"harness-{mode}", write if script is None else script, **fields)

    def engines(self, script: str = "mkdir -p engines && echo one > engines/a.plan") -> Step:
        """Return a step that makes an engine in the work tree."""
        return step("engines", script, engineGlobs=[f"{self.work}/engines/*"], continueOnFailure=True)


def until(what: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def line_with(process: subprocess.Popen[str], text: str) -> str:
    """Return the next line of a wrapper that has a text; fail when it ends without."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"it ended and never said {text!r}")


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file, none when it is not there."""
    return path.read_text().splitlines() if path.exists() else []


def make_tree(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files by their names."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Run git and return what it says."""
    own: Sequence[str] = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main")
    return subprocess.check_output(["git", *own, "-C", str(folder), *arguments], text=True).strip()
