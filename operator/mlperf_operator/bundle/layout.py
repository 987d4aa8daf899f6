"""The files of a submission, as MLCommons' rules and checker of v4.1 lay them out.

Rules: mlcommons/policies, submission_rules.adoc, "Inference"; checker: mlcommons/inference, tools/submission.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mlperf_operator.bundle.runs import DETAIL, BundleError, Pair

SUMMARY, ACCURACY_LOG, ACCURACY = "mlperf_log_summary.txt", "mlperf_log_accuracy.json", "accuracy.txt"
MEASUREMENTS = "config/measurements/PerformanceOnly"
MAX_FILE_BYTES = 50 * 1024**2
"""Largest file of a submission."""

TESTS = ("TEST01", "TEST05")
"""Compliance tests that a closed submission of bert or 3d-unet needs (submission_checker.py, v4.1)."""

_VIEWABLE_BYTES, _WHOLE_BYTES = 4096, 10 * 1024
"""Of a longer accuracy log only both ends are kept, as tools/submission/truncate_accuracy_log.py does."""

_CUT = b"\n\n...\n\n"
_SAFE = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.+]*")


class Submission:
    """A submission's folder while it is filled."""

    def __init__(self, root: Path, division: str, submitter: str) -> None:
        self.root = root / division / submitter
        self.is_closed = division == "closed"
        self.lacks: list[str] = []
        """What a submission still needs, one sentence each."""

    def add(self, pair: Pair) -> None:
        """Lay out one pair.

        Raises:
            BundleError: it is there already, its name is no name of a folder, or a file can no longer be read.
        """
        place = f"{pair.system}/{pair.variant}/{pair.scenario}"
        if not all(_SAFE.fullmatch(part) for part in (pair.system, pair.variant, pair.scenario)):
            raise BundleError(f"{pair.title}: {place!r} cannot name a folder of a submission")
        if (self.root / "results" / place).exists():
            raise BundleError(f"{pair.title}: another run has {place} too; leave one of them out")
        try:
            self._results(pair, self.root / "results" / place)
            self._measurements(pair, self.root / "measurements" / place)
            self._compliance(pair, self.root / "compliance" / place)
            self._code(pair)
        except OSError as error:
            raise BundleError(f"{pair.title}: {error.filename or ''} {error.strerror}".replace("  ", " ")) from error

    def _results(self, pair: Pair, target: Path) -> None:
        for folder, name, files in (
            (pair.performance, "performance/run_1", (SUMMARY, DETAIL)),
            (pair.accuracy, "accuracy", (SUMMARY, DETAIL)),
        ):
            for file in files:
                self._copy(pair, folder and f"{folder}/{file}", target / name / file)
        if pair.accuracy:
            self._accuracy(pair, pair.accuracy, target / "accuracy")

    def _accuracy(self, pair: Pair, source: str, target: Path) -> None:
        """Lay out scores and log of an accuracy run: the log cut to its ends, with the whole one's digest in scores."""
        digest = self._cut(pair, f"{source}/{ACCURACY_LOG}", target / ACCURACY_LOG)
        if self._copy(pair, f"{source}/{ACCURACY}", target / ACCURACY) and digest:
            _note_digest(target / ACCURACY, digest)

    def _cut(self, pair: Pair, source: str, target: Path) -> str:
        """Copy an accuracy log, of a long one its ends, and return the whole one's sha256; empty without one."""
        entry = pair.run.files.get(source)
        if entry is None:
            self.lacks.append(f"{pair.title}: {source} is not among the run's artifacts")
            return ""
        digest, head, tail = hashlib.sha256(), b"", b""
        for block in pair.run.blocks(source):
            digest.update(block)
            head = (head + block)[:_WHOLE_BYTES]
            tail = (tail + block)[-_VIEWABLE_BYTES:]
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = entry.size < _WHOLE_BYTES
        target.write_bytes(head if whole else head[:_VIEWABLE_BYTES] + _CUT + tail)
        return digest.hexdigest()

    def _measurements(self, pair: Pair, target: Path) -> None:
        source = f"{MEASUREMENTS}/{pair.system}/{pair.variant}/{pair.scenario}"
        names = {path.rpartition("/")[2]: path for path in pair.run.below(source)}
        for name in sorted({*names, "mlperf.conf", "user.conf"} - {"README.md"}):
            self._copy(pair, names.get(name, f"{source}/{name}"), target / name)
        if not any(name.startswith(pair.system) and name.endswith(".json") for name in names):
            self.lacks.append(
                f"{pair.title}: measurements need {pair.system}_{pair.scenario}.json (input_data_types, retraining, "
                "starting_weights_filename, weight_data_types, weight_transformations)"
            )
        target.mkdir(parents=True, exist_ok=True)
        (target / "README.md").write_text(_how(pair))

    def _compliance(self, pair: Pair, target: Path) -> None:
        for test in TESTS:
            base = f"audits/{pair.benchmark}/{pair.scenario}/{test}"
            inner = f"/{pair.system}/{pair.variant}/{pair.scenario}/{test}/"
            files = [path for path in pair.run.below(base) if inner in path]
            for path in files:
                name = path.partition(inner)[2]
                if name == f"accuracy/{ACCURACY_LOG}":
                    digest = self._cut(pair, path, target / test / name)
                    _note_digest(target / test / "accuracy" / ACCURACY, digest)
                elif name != f"accuracy/{ACCURACY}":
                    self._copy(pair, path, target / test / name)
            audit = next(
                (a for a in pair.run.audits if (a.test, a.variant, a.scenario) == (test, pair.variant, pair.scenario)),
                None,
            )
            if self.is_closed and (not files or audit is None or not audit.passed):
                why = "it was not run" if audit is None else audit.message or "it has not passed"
                self.lacks.append(f"{pair.title}: compliance test {test}: {why}")

    def _code(self, pair: Pair) -> None:
        """Say where the code is: the rules want the code itself, which the run took from elsewhere."""
        target = self.root / "code" / pair.variant / "README.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"# Code of {pair.variant}\n\n{_source(pair)}\n")
        for path in pair.run.below("config/overrides"):
            name = path.removeprefix("config/overrides/")
            if "__pycache__" not in name and not any(part.startswith(".") for part in name.split("/")):
                self._copy(pair, path, target.parent / "overrides" / name)

    def _copy(self, pair: Pair, source: str | None, target: Path) -> bool:
        """Copy a file of the run and return whether it was there; one that is not is noted."""
        found = pair.run.files.get(source) if source else None
        if found is None:
            self.lacks.append(f"{pair.title}: {target.relative_to(self.root)} is not among the run's artifacts")
            return False
        if found.size > MAX_FILE_BYTES:
            self.lacks.append(f"{pair.title}: {target.relative_to(self.root)} is larger than 50 MB")
        digest = hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for block in pair.run.blocks(found.path):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != found.sha256:
            raise BundleError(f"{pair.title}: {found.path} was changed while it was copied")
        return True


def _note_digest(scores: Path, digest: str) -> None:
    text = scores.read_text(encoding="utf-8", errors="replace") if scores.exists() else ""
    if re.search(r"^hash=\w+$", text, re.MULTILINE):
        return
    with scores.open("a", encoding="utf-8") as file:
        file.write(f"{'' if not text or text.endswith(chr(10)) else chr(10)}hash={digest}\n")


def _how(pair: Pair) -> str:
    """Return the measurement's README.md: how to measure this again."""
    lines = [
        f"# {pair.variant} {pair.scenario} on {pair.system}",
        "",
        _source(pair),
        "",
        "Commands, in this order:",
        "",
    ]
    lines += [f"    {command}" for command in _commands(pair)]
    lines += ["", f"Measured by mlperf-operator, run {pair.run.name} ({pair.run.manifest.run['uid']});"]
    lines += [f"its manifest.json has the sha256 {pair.run.manifest.sha256}.", ""]
    return "\n".join(lines)


def _commands(pair: Pair) -> Iterator[str]:
    for stage in pair.run.plan.get("stages", {}):
        for step in pair.run.steps(stage):
            argv = [str(argument) for argument in step.get("argv", ())]
            named = re.findall(r"--benchmarks=(\S+)|BENCHMARKS=(\S+)|--scenarios=(\S+)", " ".join(argv))
            if argv and all(value in (pair.benchmark, pair.scenario) for value in _values(named)):
                yield " ".join(_quoted(argument) for argument in argv)


def _values(found: Iterable[tuple[str, ...]]) -> list[str]:
    return [value for groups in found for value in groups if value]


def _quoted(argument: str) -> str:
    name, separator, value = argument.partition("=")
    return f'{name}{separator}"{value}"' if " " in value else argument


def _source(pair: Pair) -> str:
    source: dict[str, Any] = next(iter(pair.run.steps("code")), {}).get("source", {})
    if source.get("type") == "Git":
        where = f"{source['url']}, commit {source['commit']}, folder {source.get('subPath') or '.'}"
        return f"The code is that of {where}, with the overrides that lie in code/{pair.variant}/overrides."
    return f"The code is that of {json.dumps(source, sort_keys=True)}."
