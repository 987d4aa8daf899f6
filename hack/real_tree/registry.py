"""Whether the tree's own ConfigRegistry takes the rendered overrides, and its main finds them by our command lines."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf_operator.gpu_config_schema import ConfigEntry
from mlperf_operator.suites import Suite
from real_tree import wanted
from real_tree.report import Report
from real_tree.workplace import TreeError

GROUP = "rendered overrides in the tree's ConfigRegistry"
_PROBE = Path(__file__).with_name("probe.py")


@dataclass(frozen=True)
class Tree:
    """The copy of the tree and its Python."""

    path: Path
    python: Path
    scratch: Path

    def ask(self, request: Mapping[str, Any], overrides: Path) -> dict[str, Any]:
        """Ask the tree's own code.

        Raises:
            TreeError: it cannot even be imported.
        """
        answer = self.scratch / "answer.json"
        answer.unlink(missing_ok=True)
        # Nothing of the user's environment: LOG_DIR, BUILD_DIR and the like change what the tree does.
        env = {"PATH": os.environ["PATH"], "HOME": str(self.scratch), "OUTSIDE_MLPINF_ENV": "1"}
        done = subprocess.run(
            [self.python, _PROBE, answer],
            cwd=self.path,
            env={**env, "MLPINF_CUSTOM_DEFINITION_PATH": str(overrides)},
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode or not answer.is_file():
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise TreeError(
                f"the tree's configuration code cannot be imported: {last}; where it misses a file of its own, the "
                "checkout is sparse"
            )
        found: dict[str, Any] = json.loads(answer.read_text())
        return found


def check(tree: Tree, report: Report) -> None:
    """Check every configuration that the operator has: benchmark, scenario, config version, power setting, system."""
    for suite in wanted.suites():
        for system, _, _, entries in wanted.configurations(suite):
            _check_together(tree, report, suite, system, entries)


def _check_together(tree: Tree, report: Report, suite: Suite, system: str, entries: list[ConfigEntry]) -> None:
    objects = wanted.objects_of(wanted.run_of(suite, system, entries), suite)
    folder = write(objects.files, tree.scratch / f"{suite.name}-{system}-{entries[0].label.replace(' ', '-')}")
    name = suite.systems[system].harness_name or system
    asked = [
        (entry, {"system": name, "arguments": arguments})
        for entry in entries
        for arguments in _command_lines(objects.plan, entry)
    ]
    answers = tree.ask({"runs": [request for _, request in asked], "facts": False}, folder)["runs"]
    for (entry, request), answer in zip(asked, answers, strict=True):
        label = f"{system} {entry.label}: {' '.join(request['arguments'])}"
        problem = _problem(entry, answer)
        report.expect(GROUP, label, holds=problem is None, found=problem)


def write(files: Mapping[str, str], folder: Path) -> Path:
    """Write files below a folder and return it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _command_lines(plan: Mapping[str, Any], entry: ConfigEntry) -> list[list[str]]:
    """Return the arguments that the plan's make calls pass to code.main for an entry, by action."""
    found = []
    for step in plan["stages"]["run"]["steps"]:
        action = step["argv"][1] if step["argv"][:1] == ["make"] else ""
        run_args = [a.removeprefix("RUN_ARGS=") for a in step["argv"] if a.startswith("RUN_ARGS=")]
        named = f"--benchmarks={entry.benchmark}", f"--scenarios={entry.scenario.value}"
        if action in ("generate_engines", "run_harness") and set(named) <= set(run_args[0].split()):
            found.append([*run_args[0].split(), f"--action={action}"])
    return found


def _problem(entry: ConfigEntry, answer: Mapping[str, Any]) -> str | None:
    if "error" in answer:
        return str(answer["error"])
    if len(answer["acted"]) != 1:
        return f"the harness would act on {len(answer['acted'])} configurations"
    [acted] = answer["acted"]
    version = entry.config_version
    setting = [acted[key] for key in ("harness", "accuracy", "power")]
    if setting != [wanted.HARNESS[version], wanted.ACCURACY[version], entry.power_setting.value]:
        return f"it is registered for {', '.join(setting)}"
    triton = {"use_triton": True} if version in wanted.TRITON else {}
    differ = [k for k, v in {**entry.values, **triton}.items() if acted["values"].get(k) != v]
    return f"other values of {', '.join(differ)}" if differ else None
