"""One stage of plan.json while it is carried out: its steps, its folders, its time, and what its commands said."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from mlperf_operator.agent.wrapper.errors import EXIT_TERMINATED, StageError, config_error

TAIL_LINES = 40
ACTIONS = ("exec", "copyTree", "preflight", "snapshot")
Step = dict[str, Any]


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
        self.inputs = [step for other in stages.values() for step in other["steps"] if step["id"] in self.reads]
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


def is_shared(step: Step) -> bool:
    """Say whether a step's outcome lies on scratch for every run."""
    return step.get("scope") == "Shared"
