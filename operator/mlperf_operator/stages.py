"""The stages of a run: pure reading of its pod's containers, and of what the stage wrapper said at their end."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlperf_operator.api.v1alpha1 import StageState, StageStatus
from mlperf_operator.observed import ContainerRecord, PodRecord, format_time
from mlperf_operator.resources.containers import COLLECT, PREPARE_STAGES, RUN

MAX_MESSAGE = 1200
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,127}")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+){1,3}")
_MAX_FACT = 128
"""Longest text of a fact, in characters."""


@dataclass(frozen=True)
class Seen:
    """What preflight saw of the node in the run's pod; None where it could not tell."""

    driver: str | None = None
    """Version of the GPU driver."""
    product: str | None = None
    """Name of the GPUs, as nvidia-smi prints it."""
    count: int | None = None
    """GPUs in the container."""
    gpu_findings: int | None = None
    """How many findings are about driver and GPUs."""


def stage_statuses(pod: PodRecord | None) -> list[StageStatus]:
    """Return the stages of the run's latest pod, in order."""
    stages = [_stage(pod, name) for name in (*PREPARE_STAGES, RUN)]
    if pod is not None and pod.ended:
        # The pod of a lost node has ended without its kubelet saying so of the containers.
        return [interrupted(stage, pod.changed_at) for stage in stages]
    return stages


def _stage(pod: PodRecord | None, name: str) -> StageStatus:
    container = pod.container(name) if pod is not None else None
    if container is None or container.state == "Waiting":
        waiting = f"{container.reason}: {container.message}" if container and container.message else ""
        return StageStatus(name=name, state=StageState.PENDING, message=waiting[:MAX_MESSAGE])
    if container.state == "Running":
        return StageStatus(name=name, state=StageState.RUNNING, started_at=_text(container.started_at))
    said = termination(container)
    if container.exit_code == 0:
        state = StageState.SKIPPED if said.get("reason") == "Skipped" else StageState.COMPLETED
    else:
        state = StageState.FAILED
    return StageStatus(
        name=name,
        state=state,
        started_at=_text(container.started_at),
        finished_at=_text(container.finished_at),
        exit_code=container.exit_code,
        message=sentence(container),
    )


def _text(moment: datetime | None) -> str | None:
    return format_time(moment) if moment is not None else None


def interrupted(stage: StageStatus, at: datetime) -> StageStatus:
    """Return a stage as it stands when its pod went away: a running one is to be done again."""
    if stage.state is not StageState.RUNNING:
        return stage
    message = "was interrupted; the next pod goes on with it"
    changes = {"state": StageState.PENDING, "finished_at": format_time(at), "message": message}
    return stage.model_copy(update=changes)


def termination(container: ContainerRecord) -> dict[str, Any]:
    """Return the wrapper's termination message; empty when the wrapper could not write one."""
    try:
        said = json.loads(container.message)
    except (ValueError, RecursionError):
        # The message comes out of the user's image and may be anything.
        return {}
    return said if isinstance(said, dict) else {}


def seen(pod: PodRecord | None) -> Seen:
    """Return what preflight saw in a pod, whether it found something wrong or not; nothing before it has ended."""
    container = pod.container("preflight") if pod is not None else None
    facts = termination(container).get("facts") if container is not None and container.state == "Terminated" else None
    if not isinstance(facts, dict):
        return Seen()
    # As with the message: this comes out of the user's image, and what is no such fact is left out.
    driver, product, count, findings = (facts.get(key) for key in ("driver", "product", "count", "gpuFindings"))
    is_version = isinstance(driver, str) and len(driver) <= _MAX_FACT and _VERSION.fullmatch(driver)
    is_name = isinstance(product, str) and 0 < len(product) <= _MAX_FACT and product.isprintable()
    return Seen(driver if is_version else None, product if is_name else None, _number(count), _number(findings))


def _number(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1000 else None


def reason_of(container: ContainerRecord) -> str:
    """Return in one word why a container ended badly."""
    if container.reason == "OOMKilled":
        return "OutOfMemory"
    said = str(termination(container).get("reason") or "")
    return said if _WORD.fullmatch(said) else "StageCrashed"


def sentence(container: ContainerRecord) -> str:
    """Return what an ended container said, with its last lines if it failed."""
    said = termination(container)
    text = str(said.get("message") or "")
    if container.exit_code == 0:
        return text[:MAX_MESSAGE]
    if not said:
        text = f"{container.reason or 'Error'} {container.message}".strip()
    tail = str(said.get("tail") or "").strip()
    return f"{text}\n{tail}".strip()[:MAX_MESSAGE]


def failed_stage(pod: PodRecord | None) -> ContainerRecord | None:
    """Return the first container of the run that ended badly."""
    if pod is None:
        return None
    return next((c for c in pod.containers if c.name != COLLECT and c.state == "Terminated" and c.exit_code), None)


def current_stage(pod: PodRecord | None) -> str | None:
    """Return the stage that runs now."""
    if pod is None or pod.ended:
        return None
    running = {container.name for container in pod.containers if container.state == "Running"}
    return next((name for name in (*PREPARE_STAGES, RUN) if name in running), None)
