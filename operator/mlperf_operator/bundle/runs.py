"""One run's folder, verified, as a submission is made from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlperf_operator.agent.artifacts import ArtifactsError, Entry, Folder, Manifest, verify
from mlperf_operator.api.v1alpha1 import AuditStatus, ResultStatus, TestMode, Validity
from mlperf_operator.report import ReportError, parse_log

MAX_JSON_BYTES = 64 * 1024**2
DETAIL = "mlperf_log_detail.txt"


class BundleError(Exception):
    """There is nothing to make a submission of; the message says why and what to do."""


@dataclass(frozen=True)
class RunFolder:
    """What a run left: its verified files, its plan, its report, and the node's facts (empty where there are none)."""

    folder: Folder
    manifest: Manifest
    plan: dict[str, Any]
    results: tuple[ResultStatus, ...]
    audits: tuple[AuditStatus, ...]
    node: dict[str, Any]

    @property
    def name(self) -> str:
        """The run, for messages."""
        return f"{self.manifest.run['namespace']}/{self.manifest.run['name']}"

    @property
    def is_test_run(self) -> bool:
        """Whether the harness was asked for its short run."""
        return any("--test_run" in argument for step in self.steps("run") for argument in step.get("argv", ()))

    def steps(self, stage: str) -> list[dict[str, Any]]:
        """Return the steps of one of the plan's stages."""
        return list(self.plan.get("stages", {}).get(stage, {}).get("steps", ()))

    @cached_property
    def files(self) -> Mapping[str, Entry]:
        """The files by path."""
        return {entry.path: entry for entry in self.manifest.files}

    def below(self, prefix: str) -> list[str]:
        """Return the paths of the files below a folder."""
        return [path for path in self.files if path.startswith(f"{prefix}/")]

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield a file's content.

        Raises:
            OSError: it can no longer be read.
        """
        with self.folder.open(path) as file:
            while block := file.read(1 << 20):
                yield block

    def json(self, path: str) -> dict[str, Any]:
        """Return the JSON object in a file, empty where there is none that can be read."""
        entry = self.files.get(path)
        if entry is None or entry.size > MAX_JSON_BYTES:
            return {}
        try:
            value = json.loads(b"".join(self.blocks(path)))
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Pair:
    """One benchmark and scenario of a run.

    Attributes:
        system: The harness's id of the system, the name of the folder in its logs.
        performance: Folder of the performance logs, None where there is none.
        accuracy: Folder of the accuracy logs, None where there is none.
        problems: Why it cannot be submitted, one clause each.
    """

    run: RunFolder
    system: str
    benchmark: str
    variant: str
    scenario: str
    performance: str | None
    accuracy: str | None
    problems: tuple[str, ...]

    @property
    def title(self) -> str:
        """The pair, for messages."""
        return f"{self.run.name}: {self.variant} {self.scenario}"


def load_run(path: Path) -> RunFolder:
    """Return a run's folder.

    Raises:
        BundleError: it is none, or does not hold against its manifest.
    """
    folder = Folder(path)
    try:
        manifest, problems = verify(folder)
    except ArtifactsError as error:
        raise BundleError(f"{path} is no complete run's folder: {error}") from error
    if problems:
        raise BundleError(f"{path} is not as its manifest says: {'; '.join(problems[:5])}")
    bare = RunFolder(folder, manifest, {}, (), (), {})
    report = bare.json("report.json")
    lines = [str(line) for line in report.pop("lines", ())]
    try:
        read = parse_log("".join([*lines, json.dumps(report)]), manifest.run["uid"], str(report.get("sha256")))
    except ReportError as error:
        raise BundleError(f"{path / 'report.json'} is no report: {error}") from error
    plan, node = bare.json("config/plan.json"), bare.json("node.json")
    return RunFolder(folder, manifest, plan, read.results, read.audits, node)


def pairs_of(run: RunFolder) -> list[Pair]:
    """Return a run's pairs in the order of its report."""
    found: dict[tuple[str, str, str], dict[TestMode, ResultStatus]] = {}
    for result in run.results:
        found.setdefault((result.benchmark, result.variant, result.scenario), {})[result.mode] = result
    return [_pair(run, key, modes) for key, modes in found.items()]


def _pair(run: RunFolder, key: tuple[str, str, str], modes: Mapping[TestMode, ResultStatus]) -> Pair:
    performance, accuracy = modes.get(TestMode.PERFORMANCE), modes.get(TestMode.ACCURACY)
    problems = ["it is a short run (testRun)"] if run.is_test_run else []
    problems += [*_performance_problems(performance), *_accuracy_problems(accuracy)]
    engines = {result.engine_digest for result in modes.values() if not result.missing}
    if len(engines) > 1:
        problems.append("performance and accuracy were measured with different engines")
    folders = (_logs(run, performance), _logs(run, accuracy))
    systems = {folder.split("/")[-3] for folder in folders if folder}
    if len(systems) > 1:
        problems.append("performance and accuracy are of different systems")
    benchmark, variant, scenario = key
    return Pair(run, min(systems, default=""), benchmark, variant, scenario, *folders, problems=tuple(problems))


def _performance_problems(result: ResultStatus | None) -> list[str]:
    if result is None or result.missing:
        return [f"it has no performance result{f': {result.missing}' if result else ''}"]
    problems = []
    if result.validity is not Validity.VALID:
        problems.append(f"its performance result is {result.validity or 'of unknown validity'}")
    if not result.min_duration_met:
        problems.append("its performance was not measured for ten minutes")
    if result.metric is None:
        problems.append("its performance result has no value")
    return problems


def _accuracy_problems(result: ResultStatus | None) -> list[str]:
    if result is None or result.missing:
        return [f"it has no accuracy result{f': {result.missing}' if result else ''}"]
    if not result.accuracy:
        return ["its accuracy result has no value"]
    missed = [item for item in result.accuracy if not item.passed]
    return [f"its accuracy {item.name} {item.value:.6g} does not reach {item.threshold}" for item in missed]


def _logs(run: RunFolder, result: ResultStatus | None) -> str | None:
    """Return the folder with a result's logs: <system>/<variant>/<scenario> below the one that the report names."""
    if result is None or not result.logs:
        return None
    found = {path.rpartition("/")[0] for path in run.below(result.logs) if path.endswith(f"/{DETAIL}")}
    fitting = [path for path in sorted(found) if path.split("/")[-2:] == [result.variant, result.scenario]]
    return fitting[0] if len(fitting) == 1 and len(fitting[0].split("/")) > 3 else None
