"""Whether a step left what it should have left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlperf_operator.agent.wrapper import contents
from mlperf_operator.agent.wrapper.files import matching
from mlperf_operator.agent.wrapper.state import Step


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
