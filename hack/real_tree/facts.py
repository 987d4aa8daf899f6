"""Whether what our suite says about the tree is so: systems, fields, audits, prebuild, and where files come to lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from mlperf_operator.api.v1alpha1 import PowerSetting, Scenario
from mlperf_operator.gpu_config import Wanted, render_overrides
from mlperf_operator.gpu_config_schema import load_built_in
from mlperf_operator.gpu_config_values import Place
from mlperf_operator.suites import NVIDIA_V4_1, ConfigRule, FieldType, Postcondition, Prebuild, Suite
from real_tree.registry import Tree, write
from real_tree.report import Report

_TYPES: Mapping[FieldType, str] = {"Integer": "int", "Number": "float", "Boolean": "bool", "Word": "str", "Map": "Dict"}
_TEXTS = (".sh", ".py", ".txt", ".cu", ".cpp", ".json", ".md")
_CLONED = ("INFERENCE_URL", "POWER_DEV_URL")
"""Makefile variables of what `make build` clones on A100."""

_MOUNTS = ("/scratch/data/", "/scratch/models/", "/scratch/preprocessed_data/", "/work/")


def check(tree: Tree, suite: Suite, report: Report) -> None:
    """Check the suite's words one by one."""
    # The list of custom systems, without which the tree's own cannot be imported; no configuration.
    overrides = render_overrides(NVIDIA_V4_1, load_built_in()[next(iter(NVIDIA_V4_1.systems))], Wanted([]))
    request = {"runs": [], "facts": True, "benchmarks": list(suite.benchmarks), "fields": list(suite.config_fields)}
    found = tree.ask(request, write(overrides, tree.scratch / "facts"))
    _systems(suite, found["systems"], report)
    _fields(suite, found["fields"], report)
    _audits(suite, found["exempt"], report)
    if suite.prebuild is not None:
        _prebuild(tree.path, suite.prebuild, report)
    _scenarios(tree.path, suite, report)
    _files(tree.path, suite, report)
    _repositories(tree.path, suite, report)


def _systems(suite: Suite, known: Mapping[str, Any], report: Report) -> None:
    for name, system in suite.systems.items():
        own = known.get(system.harness_name or name)
        report.expect("systems", f"{name} is known as {system.harness_name or name}", holds=own is not None)
        if own is None:
            continue
        report.expect(
            "systems", f"{name} has {system.gpu_count} GPUs", holds=own["count"] == system.gpu_count, found=own
        )
        # The harness knows a GPU by its name as nvidia-smi prints it.
        product_name = f"NVIDIA {system.gpu_product}"
        report.expect("systems", f"{name} has {product_name}", holds=product_name in own["names"], found=own["names"])


def _fields(suite: Suite, known: Mapping[str, Any], report: Report) -> None:
    for name, kind in suite.config_fields.items():
        own = known.get(name)
        report.expect("config fields", f"{name} is a field", holds=own is not None)
        if own is None:
            continue
        fits = _TYPES[kind] in own["type"]
        report.expect("config fields", f"{name} is of type {kind}", holds=fits, found=own["type"])
        rule = suite.config_rules.get(name, ConfigRule())
        everywhere = set(_places(suite, ConfigRule()))
        ours, theirs = set(_places(suite, rule)), {tuple(place) for place in own["places"]} & everywhere
        differ = sorted(" ".join(place) for place in ours ^ theirs)
        report.expect("config fields", f"{name} stands where we say", holds=not differ, found=differ)


def _places(suite: Suite, rule: ConfigRule) -> Iterator[tuple[str, str, str]]:
    """Yield the benchmarks, scenarios and power settings of a suite where a field of that rule stands."""
    for (name, benchmark), power in product(suite.benchmarks.items(), PowerSetting):
        for scenario in benchmark.scenarios:
            if Place(name, scenario, power).has(rule):
                yield name, scenario.value, power.value


def _audits(suite: Suite, exempt: Mapping[str, list[str]], report: Report) -> None:
    for name, benchmark in suite.benchmarks.items():
        ours = [audit.value for audit in benchmark.audits]
        idle = [audit for audit in ours if audit in exempt[name]]
        report.expect("audits", f"{name} has {', '.join(ours)}", holds=not idle, found=f"{idle} do nothing")


def _scenarios(tree: Path, suite: Suite, report: Report) -> None:
    for name, benchmark in suite.benchmarks.items():
        for scenario in Scenario:
            there = (tree / "configs" / name / scenario.value / "__init__.py").is_file()
            ours = scenario in benchmark.scenarios
            report.expect("scenarios", f"{name} {scenario.value}: {ours}", holds=there == ours, found=there)


def _prebuild(tree: Path, prebuild: Prebuild, report: Report) -> None:
    group, folder = "prebuild", tree / prebuild.folder
    recipe = _read(tree / "docker" / "release" / "Dockerfile")
    where = [recipe.find(f"bash {name}") for name in prebuild.scripts]
    for name in prebuild.scripts:
        report.expect(group, f"{prebuild.folder}/{name} is there", holds=(folder / name).is_file())
    report.expect(
        group, "the Dockerfile runs our scripts in our order", holds=min(where) > -1 and where == sorted(where)
    )
    others = set(re.findall(r"bash (\S+\.sh)", recipe)) - set(prebuild.scripts)
    report.expect(group, "the Dockerfile runs no other script", holds=not others, found=others)
    for pattern in prebuild.files:
        report.expect(group, f"{prebuild.folder}/{pattern} is there", holds=any(folder.glob(pattern)))
    text = "\n".join(_read(folder / name) for name in prebuild.scripts)
    for function in prebuild.leave_out:
        made = re.search(rf"^{function}\s*\(\)", text, re.MULTILINE)
        called = re.search(rf"^[ \t]*{function}[ \t]*$", text, re.MULTILINE)
        report.expect(group, f"{function} is defined, and called on a line of its own", holds=bool(made and called))
    for command in prebuild.commands:
        report.expect(group, f"the Dockerfile has {' '.join(command)}", holds=f"RUN {' '.join(command)}" in recipe)


def _files(tree: Path, suite: Suite, report: Report) -> None:
    for stage in suite.stages:
        for step in stage.steps:
            for benchmark, conditions in step.postconditions.items():
                texts = _texts(tree, suite.benchmarks if benchmark == "*" else [benchmark])
                for condition in conditions:
                    absent = [part for part in _parts(suite, condition) if part not in texts]
                    what = f"{step.target} {benchmark} leaves {condition.glob}"
                    report.expect("postconditions", what, holds=not absent, found=f"the tree never says {absent}")


def _parts(suite: Suite, condition: Postcondition) -> list[str]:
    """Return the names in a path, as far as it has them, that the tree's own files must say somewhere."""
    path = condition.glob
    for mount in _MOUNTS:
        path = path.removeprefix(mount)
    pieces = path.split("/")
    # What lies in a clone within a clone is that repository's own matter.
    clones = [i for i, piece in enumerate(pieces) if f"{piece}.git" in suite.offline_git.values()]
    pieces = pieces[: clones[1] + 1] if len(clones) > 1 else pieces
    parts = [part for piece in pieces for part in re.split(r"\*+|\{\}", piece)]
    return [re.sub(r"^(lib|\.)|\.(so|a|npy|gz)$", "", part) for part in parts if re.search(r"[A-Za-z0-9]{3}", part)]


def _texts(tree: Path, benchmarks: Iterable[str]) -> str:
    folders = [tree / "code" / name for name in benchmarks]
    folders += [tree / "code" / "common", tree / "code" / "harness", tree / "code" / "plugin"]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in _TEXTS]
    return "\n".join(_read(path) for path in (*files, *sorted(tree.glob("Makefile*"))))


def _repositories(tree: Path, suite: Suite, report: Report) -> None:
    """Check that what the Makefiles' build clones for us is among what can be had offline."""
    text = "\n".join(_read(tree / name) for name in ("Makefile.build", "Makefile.power"))
    ours = {url.removesuffix(".git") for url in suite.offline_git}
    for name in _CLONED:
        urls = re.findall(rf"^\s*{name}\s*[:?]?=\s*(https://\S+?)(?:\.git)?\s*$", text, re.MULTILINE)
        holds = bool(urls) and set(urls) <= ours
        report.expect("repositories", f"{name} can be had offline", holds=holds, found=urls)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
