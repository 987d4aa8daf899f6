"""The records of harness and audit steps, which `collect` reads, and whether their results are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlperf_operator.agent.wrapper import contents, evidence, keep
from mlperf_operator.agent.wrapper.errors import StageError
from mlperf_operator.agent.wrapper.files import empty, read_object, utc_now, write_atomically
from mlperf_operator.agent.wrapper.output import say
from mlperf_operator.agent.wrapper.state import Stage, Step
from mlperf_operator.agent.wrapper.telling import telling_of


def record_path(stage: Stage, step: Step) -> Path:
    """Return where the record of a harness step lies."""
    return stage.results / "steps" / f"{step['id']}.json"


def begin_anew(stage: Stage, step: Step, log_dir: Path) -> None:
    """Take back what an earlier attempt of a step said, and give it an empty log folder."""
    record_path(stage, step).unlink(missing_ok=True)
    log_dir.mkdir(parents=True, exist_ok=True)
    empty(log_dir)


def measured(stage: Stage, step: Step) -> dict[str, Any]:
    """Return the record of a harness or audit step of this very run that has its result; empty when there is none."""
    record = read_object(record_path(stage, step))
    own = record.get("uid") == stage.uid and record.get("reason") == "Completed"
    return record if own and (has_result(step) if "result" in step else was_verified(step)) else {}


def keeps_its_result(stage: Stage, step: Step) -> bool:
    """Say whether a step has its result from an earlier attempt, of this node and of the engines that there are now."""
    old = measured(stage, step)
    if old and old.get("bootId") != keep.boot_id():
        say(f"{step['id']}: has its result, but of another node or from before a restart of it; measuring again")
        return False
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


def require_same_engines(stage: Stage, step: Step) -> None:
    """Raise when an engine is not the one from before the command: a harness that builds anew measures another."""
    for name, digest in engines_of(stage, step).items():
        path = stage.work / name
        if not path.is_file() or contents.digest(path) != digest:
            text = f"{' '.join(step['argv'])} measured with another engine: it built {name} anew"
            raise StageError("OtherEngine", text, command_code=0)


def result_files(step: Step) -> list[Path]:
    """Return the files in a log folder that can be read as a result of the step's mode."""
    log_dir = Path(step["result"]["logDir"])
    names = ("metadata.json", "accuracy.txt" if step["result"]["mode"] == "AccuracyOnly" else "mlperf_log_summary.txt")
    return [file for name in names for file in log_dir.rglob(name)]


def has_result(step: Step) -> bool:
    """Say whether a log folder holds what can be read as a result of the step's mode."""
    return bool(result_files(step))


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
        "bootId": keep.boot_id(),
        "telling": telling_of(stage) if root is error else root.telling if root else [],
        "because": root.reason if root else "",
        "during": during(stage, root.step if root else ""),
        "oomKills": evidence.oom_kills() - stage.oom_kills if root is error else 0,
    }
    write_atomically(record_path(stage, step), json.dumps(record, sort_keys=True))


def during(stage: Stage, failed: str) -> str:
    """Say in a word what kind of step it was that failed, empty where it was the measuring itself."""
    return "engines" if any(step["id"] == failed and step.get("engineGlobs") for step in stage.steps) else ""


VERIFIED = ("verify_performance.txt", "verify_accuracy.txt")
"""What MLCommons' run_verification.py writes about a compliance test (mlcommons/inference, compliance/nvidia)."""


def was_verified(step: Step) -> bool:
    """Say whether an audit's log folder holds a verification, whatever it says."""
    return bool(verifications(step))


def verifications(step: Step) -> list[Path]:
    """Return the verifications in an audit's log folder."""
    log_dir = Path(step["audit"]["logDir"])
    return [file for name in VERIFIED for file in log_dir.rglob(name)]
