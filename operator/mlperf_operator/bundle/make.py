"""Making a submission of several runs' folders."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf_operator.bundle.layout import Submission
from mlperf_operator.bundle.runs import BundleError, Pair, load_run, pairs_of
from mlperf_operator.bundle.system import describe

_DATACENTER, _EDGE = "datacenter", "edge"
REQUIRED: dict[str, dict[str, tuple[str, ...]]] = {
    "bert-99": {_DATACENTER: ("Offline", "Server"), _EDGE: ("Offline", "SingleStream")},
    "bert-99.9": {_DATACENTER: ("Offline", "Server")},
    "3d-unet-99": {_DATACENTER: ("Offline",), _EDGE: ("Offline", "SingleStream")},
    "3d-unet-99.9": {_DATACENTER: ("Offline",), _EDGE: ("Offline", "SingleStream")},
}
"""Scenarios that a closed submission needs, by system type (submission_checker.py, v4.1)."""

TODO = "TODO.md"


@dataclass(frozen=True)
class Made:
    """What became of a bundle.

    Attributes:
        refused: Why pairs are not of a submission's quality, one sentence each.
        lacks: What the submission still needs, one sentence each.
    """

    pairs: tuple[Pair, ...]
    refused: tuple[str, ...]
    lacks: tuple[str, ...]


def make_bundle(
    folders: Sequence[Path], output: Path, given: Mapping[str, Any], *, allow_incomplete: bool = False
) -> Made:
    """Lay runs out below `output`, which must not be there yet; nothing is left of it when that fails.

    Args:
        folders: Folders of runs, each with its manifest.json.
        output: Root of the submission.
        given: The system's description as far as the submitter gives it, with division and submitter.
        allow_incomplete: Lay out also what could not be submitted.

    Raises:
        BundleError: there is nothing to lay out, or pairs are refused; the message names each with its reason.
    """
    pairs = [pair for folder in folders for pair in pairs_of(load_run(folder))]
    refused = tuple(f"{pair.title}: {problem}" for pair in pairs for problem in pair.problems)
    if refused and not allow_incomplete:
        raise BundleError("\n".join([*refused, "leave these runs out, or use --allow-incomplete"]))
    usable = tuple(pair for pair in pairs if pair.system)
    if not usable:
        raise BundleError("the runs hold no logs of LoadGen")
    if output.exists():
        raise BundleError(f"{output} is there already; name a folder that is not")
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        submission = Submission(fresh, str(given["division"]), str(given["submitter"]))
        for pair in usable:
            submission.add(pair)
        lacks = [*submission.lacks, *_systems(submission, usable, given)]
        if submission.is_closed:
            lacks += _scenarios(usable, str(given["system_type"]))
        (fresh / TODO).write_text(_todo(refused, lacks))
        fresh.chmod(0o755)
        fresh.rename(output)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Made(usable, refused, tuple(lacks))


def _systems(submission: Submission, pairs: Sequence[Pair], given: Mapping[str, Any]) -> list[str]:
    lacks = []
    for system in sorted({pair.system for pair in pairs}):
        own = [pair for pair in pairs if pair.system == system]
        first = own[0]
        metadata = first.run.json(f"{first.performance or first.accuracy}/metadata.json")
        fields, missing = describe(first.run.node, metadata, {"system_name": system, **given})
        file = submission.root / "systems" / f"{system}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(fields, indent=4) + "\n")
        where = file.relative_to(submission.root)
        lacks += [f"{where}: {field} must say something; give it with --system-json" for field in missing]
        nodes = {str(pair.run.node.get("product")) + str(pair.run.node.get("gpus")) for pair in own}
        if len(nodes) > 1:
            lacks.append(f"{where}: the runs are from nodes whose facts differ; it describes that of {first.run.name}")
    return lacks


def _scenarios(pairs: Sequence[Pair], system_type: str) -> list[str]:
    lacks = []
    for system, variant in sorted({(pair.system, pair.variant) for pair in pairs}):
        present = {pair.scenario for pair in pairs if (pair.system, pair.variant) == (system, variant)}
        for kind in system_type.split(","):
            wanted = REQUIRED.get(variant, {}).get(kind)
            if wanted is None:
                lacks.append(f"{system} {variant}: it is no benchmark of a closed {kind} submission")
            absent = sorted(set(wanted or ()) - present)
            lacks += [f"{system} {variant}: a closed {kind} submission needs scenario {name} too" for name in absent]
    return lacks


def _todo(refused: Sequence[str], lacks: Sequence[str]) -> str:
    lines = ["# What this submission still needs", ""]
    lines += [f"- NOT SUBMITTABLE: {text}" for text in refused]
    lines += [f"- {text}" for text in lacks]
    lines += [
        "- the code itself below `code/`: the rules ask for it, and only where it comes from is said there",
        "- the whole accuracy logs, kept elsewhere: MLCommons may ask for them; only their ends are here, with digests",
        "- MLCommons' own submission checker, run over this folder",
    ]
    return "\n".join(lines) + "\n"
