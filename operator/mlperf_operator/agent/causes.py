"""Why a result is missing: from what the stage wrapper recorded of a step to one word and a sentence, pure.

Exit codes prove little: the harness ends with 0 also when it had nothing to do, and make with 2 for everything. So the
command's own telling lines decide (evidence.py), which come out of the user's image and may be anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mlperf_operator.agent.wrapper.evidence import COMPLAINT, PATTERNS
from mlperf_operator.api.v1alpha1 import MAX_MESSAGE, Cause

_MAX_LINE = 300
_MAX_LINES = 64
_CONTEXT = 100
KILLED_CODES = (137, 143)
"""128 + the number of SIGKILL and SIGTERM."""


@dataclass(frozen=True)
class Explained:
    """Why a result is missing."""

    cause: Cause
    sentence: str
    """What happened, and what to do next."""


_BY_REASON: Final = {
    "AccuracyScriptFailed": Cause.ACCURACY_SCRIPT_FAILED,
    "OtherEngine": Cause.OTHER_ENGINE,
    "PartialLogs": Cause.PARTIAL_LOGS,
    "ScratchFull": Cause.SCRATCH_FULL,
    "StageTimeout": Cause.TIMED_OUT,
    "StaleLogs": Cause.STALE_LOGS,
}
"""Reasons of the stage wrapper that leave nothing open."""

_HAPPENED: Final = {
    Cause.NO_REGISTERED_CONFIG: "the harness has no configuration for this pair",
    Cause.SYSTEM_NOT_MATCHED: "the harness does not know the node's hardware",
    Cause.ENGINE_BUILD_FAILED: "its engine could not be built",
    Cause.OUT_OF_MEMORY: "memory ran out",
    Cause.KILLED: "a process of the harness was killed",
    Cause.TIMED_OUT: "its time was over",
    Cause.FABRIC_MANAGER: "CUDA cannot start because NVSwitch is not set up (error 802)",
    Cause.DRIVER: "the driver and the image's CUDA do not work together",
    Cause.SCRATCH_FULL: "a volume is full",
    Cause.ACCURACY_SCRIPT_FAILED: "the answers were logged, but the script that judges them failed",
    Cause.PARTIAL_LOGS: "its logs are not whole",
    Cause.STALE_LOGS: "the logs that lie there are older than this run",
    Cause.OTHER_ENGINE: "it was measured with another engine than the performance",
    Cause.HARNESS_FAILED: "the harness failed",
    Cause.NO_RESULT: "the harness ended well but wrote no result",
    Cause.NOT_MEASURED: "the run ended before this was measured",
}

NEXT_STEPS: Final = {
    Cause.NO_REGISTERED_CONFIG: "give values for it in spec.gpuConfig; config/ of the artifacts holds those that were "
    "used",
    Cause.SYSTEM_NOT_MATCHED: "compare GPU name, number, maximum power limit and MIG mode of the node with spec.system",
    Cause.ENGINE_BUILD_FAILED: "read stages/run.log of the artifacts; a changed batch size or precision, or a build of "
    "another CUDA, is the usual reason",
    Cause.OUT_OF_MEMORY: "lower gpu_batch_size or the number of streams where the GPU is meant, else raise "
    "spec.resources or free the node's memory",
    Cause.KILLED: "look at the node's events and kernel log for who killed it; lack of memory is the usual reason",
    Cause.TIMED_OUT: "raise spec.runTimeoutSeconds, or look in the stage's log for what hangs",
    Cause.FABRIC_MANAGER: "start nvidia-fabricmanager on the node, in exactly the driver's version",
    Cause.DRIVER: "check the node's driver by nvidia-smi; see docs/driver.md",
    Cause.SCRATCH_FULL: "free some space on scratch or results, or use a larger volume",
    Cause.ACCURACY_SCRIPT_FAILED: "read stages/run.log of the artifacts; a Python module or file that the script needs "
    "is missing",
    Cause.PARTIAL_LOGS: "the harness crashed or was stopped while it measured: read stages/run.log of the artifacts",
    Cause.STALE_LOGS: "the harness did nothing and something put an earlier run's files there: look at the code tree",
    Cause.OTHER_ENGINE: "create the run anew",
    Cause.HARNESS_FAILED: "read stages/run.log of the artifacts",
    Cause.NO_RESULT: "read stages/run.log of the artifacts for what the harness did instead",
    Cause.NOT_MEASURED: "condition Succeeded says how the run ended",
}
"""What to do about each cause; docs/verdicts.md says it at more length."""


def explain(record: Mapping[str, Any]) -> Explained:
    """Return why a step has no result.

    Args:
        record: What the wrapper left of the step: `reason`, `message`, `exitCode`, `telling` (lines that show why),
            `oomKills` (processes that the kernel killed for memory), and of a failed step that it follows from its
            reason, `because`, and kind, `during`. Empty when there is none.
    """
    if not record:
        return because(Cause.NOT_MEASURED)
    lines = _lines(record)
    reason = str(record.get("because") or record.get("reason"))
    cause = _BY_REASON.get(reason) or _by_lines(record, lines) or _by_failure(record, reason, lines)
    return because(cause, evidence(cause, lines) or _message(record))


def because(cause: Cause, detail: str = "") -> Explained:
    """Return a cause with what happened, the detail that shows it, and what to do next."""
    told = " ".join(detail.split())
    room = MAX_MESSAGE - len(_HAPPENED[cause]) - len(NEXT_STEPS[cause]) - len(": ; ")
    middle = f": {told[:room]}" if told else ""
    return Explained(cause, f"{_HAPPENED[cause]}{middle}; {NEXT_STEPS[cause]}")


def _lines(record: Mapping[str, Any]) -> list[str]:
    told = record.get("telling")
    found = [str(line) for line in told[-_MAX_LINES:]] if isinstance(told, list) else []
    return [*found, str(record.get("message") or "")]


def _by_lines(record: Mapping[str, Any], lines: Sequence[str]) -> Cause | None:
    kills = record.get("oomKills")
    if isinstance(kills, int) and kills > 0:
        return Cause.OUT_OF_MEMORY
    said = next((cause for cause, words in PATTERNS.items() if any(words.search(line) for line in lines)), None)
    if said is not None:
        return Cause(said)
    return Cause.KILLED if record.get("exitCode") in KILLED_CODES else None


def _by_failure(record: Mapping[str, Any], reason: str, lines: Sequence[str]) -> Cause:
    if reason in ("NoResult", "Completed"):
        return Cause.NO_RESULT
    if reason == "NoEngine" and not any(COMPLAINT.search(line) for line in lines):
        # It ended with 0 and says nothing, as for a pair that it passes over.
        return Cause.NO_RESULT
    return Cause.ENGINE_BUILD_FAILED if record.get("during") == "engines" else Cause.HARNESS_FAILED


def evidence(cause: Cause, lines: Iterable[str]) -> str:
    """Return the words of the first line that shows a cause, empty when none does."""
    pattern = PATTERNS.get(cause.value, COMPLAINT)
    found = next((match for line in lines if (match := pattern.search(line)) is not None), None)
    if found is None:
        return ""
    start = max(0, found.start() - _CONTEXT)
    return found.string[start : start + _MAX_LINE]


def _message(record: Mapping[str, Any]) -> str:
    return str(record.get("message") or record.get("reason") or "")[: 2 * _MAX_LINE]
