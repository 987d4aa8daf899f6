"""What to do next for a run: pure, from the present state alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.observed import Observed, parse_time
from mlperf_operator.outcome import run_deadline, start_deadline
from mlperf_operator.resources.configmaps import agent_config_map, gpu_config_map
from mlperf_operator.resources.job import NO_BOUNDS, Bounds, Images, job, recovery_job
from mlperf_operator.resources.stage_plan import build_plan
from mlperf_operator.resources.steps import digest
from mlperf_operator.resources.volumes import claims, outlives_pod
from mlperf_operator.status import is_finished
from mlperf_operator.suites import Suite
from mlperf_operator.waiting import POD_EXPECTED_AFTER, waiting_since

RECHECK = timedelta(seconds=30)
"""How often a Job without a pod is asked again why, and what no informer tells of is read again."""

RETRY_START = timedelta(seconds=10)
"""How often a run whose Job cannot be created yet is tried again."""

RETRY_READ = timedelta(seconds=10)
"""How often the results of a Job that has ended are looked for."""

RETRY_DELETE = timedelta(seconds=10)
"""How often a run whose time to live is over is deleted again, until it is gone."""


@dataclass(frozen=True)
class Inputs:
    """What the objects of a run are made from, besides its spec."""

    suite: Suite
    images: Images
    agent_files: Mapping[str, str]
    override_files: Mapping[str, str]
    driver: str | None = None
    """The exact driver version that the Job asks of its node, where the operator brought it there."""
    bounds: Bounds = NO_BOUNDS


@dataclass(frozen=True)
class Create:
    """Create an object that must not be there yet, or be this run's own."""

    body: Mapping[str, Any]


@dataclass(frozen=True)
class SetSuspend:
    """Set the Job's suspend."""

    suspend: bool


@dataclass(frozen=True)
class DeleteJob:
    """Delete the run's Job: Kueue would resume a queued one that was only suspended."""


@dataclass(frozen=True)
class DeleteRun:
    """Delete the MLPerfRun: its time to live is over."""


Action = Create | SetSuspend | DeleteJob | DeleteRun


def desired_objects(run: MLPerfRun, inputs: Inputs) -> list[dict[str, Any]]:
    """Return the objects of a run in the order in which they are created: the Job last, so that it finds the others."""
    plan = build_plan(run, inputs.suite, inputs.images.harness)
    return [
        *claims(run),
        agent_config_map(run, inputs.suite, plan, inputs.agent_files),
        gpu_config_map(run, inputs.override_files),
        job(
            run,
            inputs.suite,
            inputs.images,
            inputs.override_files,
            config_digest(run, inputs),
            driver=inputs.driver,
            bounds=inputs.bounds,
        ),
    ]


def config_digest(run: MLPerfRun, inputs: Inputs) -> str:
    """Return the sha256 of everything that the run's Job is made from, but for its names."""
    spec = run.spec.model_dump(mode="json", exclude={"suspend", "ttl_seconds_after_finished"})
    return digest([spec, inputs.suite.model_dump(mode="json"), inputs.images.harness, dict(inputs.override_files)])


def start(run: MLPerfRun, inputs: Inputs) -> list[Action]:
    """Return what starts a run that has no Job and never had one."""
    return [Create(body) for body in desired_objects(run, inputs)]


def keep_going(run: MLPerfRun, observed: Observed) -> list[Action]:
    """Return what a run under way needs: its Job suspended or not, as the spec says. Kueue owns that of queued runs."""
    job_record = observed.job
    if job_record is None or job_record.outcome is not None or run.spec.queue_name is not None:
        return []
    return [] if job_record.suspend == run.spec.suspend else [SetSuspend(run.spec.suspend)]


def recover(
    run: MLPerfRun, observed: Observed, suite: Suite, images: Images, bounds: Bounds = NO_BOUNDS
) -> list[Action]:
    """Return what reads the results of a complete Job again from the volume, once its pod can no longer report.

    Raises:
        HostPathError: the administrator does not allow the volume any more.
    """
    pod = observed.pod
    if observed.report is not None or observed.recovery_job is not None or not outlives_pod(run):
        return []
    if pod is not None and not pod.ended:
        return []
    node = (pod.node if pod is not None else None) or run.status.node
    return [Create(recovery_job(run, suite, images, node, bounds))]


def finish(run: MLPerfRun, observed: Observed, now: datetime) -> list[Action]:
    """Return what a finished run still needs: its Job stopped where it would go on, and its end of life."""
    expiry = _expiry(run)
    if expiry is not None and now >= expiry:
        return [DeleteRun()]
    job_record = observed.job
    if job_record is None or job_record.outcome is not None or job_record.deleting:
        return []
    if run.spec.queue_name is not None:
        return [DeleteJob()]
    return [] if job_record.suspend else [SetSuspend(suspend=True)]


def _expiry(run: MLPerfRun) -> datetime | None:
    ended, ttl = parse_time(run.status.completion_time), run.spec.ttl_seconds_after_finished
    return ended + timedelta(seconds=ttl) if ended is not None and ttl is not None else None


def next_look(run: MLPerfRun, observed: Observed, now: datetime) -> timedelta | None:
    """Return after how long time alone changes what to do, or None when only an event can."""
    moments: list[datetime] = []
    if not is_finished(run.status):
        moments = _deadlines(run, observed, now)
    elif (expiry := _expiry(run)) is not None:
        moments = [expiry if now < expiry else now + RETRY_DELETE]
    return max(min(moments) - now, timedelta(0)) if moments else None


def _deadlines(run: MLPerfRun, observed: Observed, now: datetime) -> list[datetime]:
    moments: list[datetime] = []
    waiting, pod = waiting_since(run, observed, now), observed.pod
    if waiting is not None:
        moments.append(waiting + timedelta(seconds=run.spec.start_timeout_seconds))
        if pod is None or pod.ended:
            first = waiting + POD_EXPECTED_AFTER
            moments.append(first if now < first else now + RECHECK)
    job_record, overrun = observed.job, run_deadline(run, pod)
    if job_record is None:
        given_up = start_deadline(run)
        moments.append(min(now + RETRY_START, given_up) if now < given_up else now + RETRY_START)
    elif job_record.outcome is not None:
        moments.append(now + RETRY_READ)
    elif overrun is not None and not (job_record.suspend or job_record.suspended):
        moments.append(overrun)
    if observed.unwatched:
        moments.append(now + RECHECK)
    return moments
