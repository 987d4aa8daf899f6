"""Whether a run that should be going on waits for something, since when, and for what: pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from mlperf_operator.api.v1alpha1 import MLPerfRun, StageState
from mlperf_operator.observed import Observed, PodRecord, parse_time
from mlperf_operator.resources.containers import COLLECT, GPU_RESOURCE, RUN
from mlperf_operator.resources.job import GRACE_SECONDS
from mlperf_operator.resources.pod_security import ENFORCE_LABEL, OTHERS_LABEL, Level, needed
from mlperf_operator.stages import failed_stage
from mlperf_operator.suites import Suite

IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
"""Waiting reasons of the kubelet that mean: no image."""

_VIOLATED = re.compile(r'violates PodSecurity "(?P<level>[a-z]+)')
"""How the admission plugin PodSecurity begins its refusal, as in `violates PodSecurity "restricted:latest": ...`."""

_NO_FOLDER = re.compile(r"failed to (prepare subPath|create subPath directory) for volumeMount")
"""What the kubelet says of a folder of a volume that it does not mount (kubernetes: pkg/kubelet/kubelet_pods.go)."""

_ORDINARY_REASONS = frozenset({"", "PodInitializing", "ContainerCreating"})

POD_EXPECTED_AFTER = timedelta(seconds=5)
"""A Job without a pod for this long has a reason that its events tell."""

RETRY_PAUSE = timedelta(seconds=10)
RETRY_PAUSE_CAP = timedelta(minutes=10)
"""The Job controller's own pause before it replaces a failed pod, doubled with each failure."""


def waiting_since(run: MLPerfRun, observed: Observed, now: datetime) -> datetime | None:
    """Return since when nothing of the run has been running, or None while something is or nothing should be."""
    job, pod = observed.job, observed.pod
    if job is None or job.suspend or job.suspended or job.outcome is not None:
        return None
    if pod is not None and pod.phase == "Succeeded":
        return None
    if pod is None or pod.ended:
        return max([job.start_time or job.created_at, *_last_signs(run, observed, now)])
    containers = [c for c in pod.containers if c.name != COLLECT]
    run_container = pod.container(RUN)
    ending = failed_stage(pod) is not None or (run_container is not None and run_container.state == "Terminated")
    if ending or any(c.state == "Running" for c in containers):
        return None
    since = max([c.finished_at for c in containers if c.finished_at is not None], default=pod.created_at)
    return since + timedelta(seconds=GRACE_SECONDS) if pod.deleting else since


def stage_moments(run: MLPerfRun) -> list[datetime]:
    """Return when stages began and ended, by the run's status."""
    texts = [text for stage in run.status.stages for text in (stage.started_at, stage.finished_at)]
    return [moment for moment in map(parse_time, texts) if moment is not None]


def _last_signs(run: MLPerfRun, observed: Observed, now: datetime) -> list[datetime]:
    # A pod may go without a trace; what the status remembers of it keeps its successor's clock from starting too early.
    signs = [now] if any(stage.state is StageState.RUNNING for stage in run.status.stages) else []
    signs += stage_moments(run)
    ended = [pod for pod in observed.pods if pod.ended]
    if ended:
        signs.append(ended[-1].changed_at + min(RETRY_PAUSE * 2 ** min(len(ended) - 1, 10), RETRY_PAUSE_CAP))
    return signs


def why_waiting(run: MLPerfRun, suite: Suite | None, observed: Observed) -> tuple[str, str]:
    """Return in a word and in a sentence what a run waits for."""
    pod = observed.pod
    if pod is None or pod.ended:
        return _why_no_pod(run, suite, observed.job_warnings, pod)
    if pod.deleting:
        return terminating(pod)
    if pod.unschedulable:
        reason = "GPUNotAllocatable" if f"Insufficient {GPU_RESOURCE}" in pod.unschedulable else "Unschedulable"
        return reason, pod.unschedulable
    for container in pod.containers:
        if container.state != "Waiting" or container.reason in _ORDINARY_REASONS:
            continue
        text = f"container {container.name}: {container.message or container.reason}"
        if _NO_FOLDER.search(container.message):
            advice = "a link may lead out of the volume, or the folder cannot be made; name the folder itself"
            return "FolderRefused", f"{text}; {advice}"
        return ("ImagePullFailed" if container.reason in IMAGE_REASONS else container.reason), text
    return "PodStarting", f"pod {pod.name} is starting; if it hangs, `kubectl describe pod {pod.name}` says why"


def terminating(pod: PodRecord) -> tuple[str, str]:
    """Return what is to be said of a pod that is being deleted while its Job goes on."""
    how = "is evicted" if pod.disrupted else "is being deleted"
    advice = "if its node is gone for good, delete the pod with --force"
    return "PodTerminating", f"pod {pod.name} {how}; the Job goes on when it has ended; {advice}"


def _why_no_pod(
    run: MLPerfRun, suite: Suite | None, warnings: tuple[str, ...], ended: PodRecord | None
) -> tuple[str, str]:
    if not warnings:
        text = f"pod {ended.name} failed; the Job may make another one" if ended else "the Job has no pod yet"
        return "PodNotCreated", text
    message = warnings[-1]
    violated = _VIOLATED.search(message)
    if violated is not None:
        return "PodSecurityRefused", _permitted(run, suite, violated["level"]) + message
    return ("QuotaExceeded" if "exceeded quota" in message else "PodRefused"), message


def _permitted(run: MLPerfRun, suite: Suite | None, enforced: str) -> str:
    """Return how the namespace could permit the pod; it stands before the API server's words, which may be long."""
    namespace = run.metadata.namespace
    told = f"namespace {namespace} enforces PodSecurity {enforced} (label {ENFORCE_LABEL})"
    if suite is None:
        return f"{told}; label it for a level that permits the run, or use another namespace: "
    need = needed(run, suite)
    if enforced in list(Level) and Level(enforced).rank >= need.level.rank:
        return f"{told}, which permits the pod as the operator makes it; look for a webhook that changes it: "
    # Else the level is for everybody's pods.
    others = f" {OTHERS_LABEL}={Level.BASELINE}" if need.level is Level.PRIVILEGED else ""
    return (
        f"{told}, and the run needs {need.level}: {need.because}; possible: kubectl label namespace {namespace} "
        f"--overwrite {ENFORCE_LABEL}={need.level}{others}, or another namespace: "
    )
