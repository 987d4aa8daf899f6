"""Gathering: one frozen Observed from the informers' records, and the few reads that no informer covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.cluster import JOBS, PODS, ApiError, Cluster
from mlperf_operator.job_warnings import JobWarnings
from mlperf_operator.observed import (
    JOB_NAME_LABEL,
    JobRecord,
    Observed,
    PodRecord,
    Report,
    RunRecord,
    controller,
    decode_job,
    decode_pod,
)
from mlperf_operator.outcome import LAST_WORD_GRACE
from mlperf_operator.report import ReportError, announced, parse_log, parse_part
from mlperf_operator.resources.containers import COLLECT
from mlperf_operator.resources.volumes import outlives_pod
from mlperf_operator.waiting import POD_EXPECTED_AFTER, stage_moments, waiting_since

READ_DEADLINE = timedelta(minutes=15)
"""How long the results of a complete Job are looked for, from its end or from the start of the second try."""

LOG_DEADLINE = timedelta(minutes=1)
"""How long a log that cannot be read, or is not whole, is asked for again where nothing else is left."""

POD_UNSEEN_AFTER = timedelta(minutes=1)
"""A pod that no informer has shown for this long may be there without its labels."""

R_co = TypeVar("R_co", covariant=True)


class ByRun(Protocol[R_co]):
    """Records that can be found by the uid of their run."""

    def by_index(self, value: str, /) -> Sequence[R_co]:
        """Return the records of one run."""


@dataclass(frozen=True)
class Views:
    """The informers' records."""

    runs: Mapping[str, RunRecord]
    jobs: ByRun[JobRecord]
    pods: ByRun[PodRecord]


class Observer:
    """Makes the snapshot that a decision about a run is made from."""

    def __init__(self, cluster: Cluster, views: Views) -> None:
        self._cluster = cluster
        self._views = views
        self._warnings = JobWarnings(cluster)

    def recorded(self, run: MLPerfRun) -> Observed:
        """Return what the informers know of the run."""
        # By name: labels are anybody's to copy, names are not.
        jobs = {job.name: job for job in self._views.jobs.by_index(run.metadata.uid)}
        job = jobs.get(naming.job_name(run))
        pods = sorted(self._views.pods.by_index(run.metadata.uid), key=lambda pod: (pod.created_at, pod.name))
        own = [pod for pod in pods if pod.job == naming.job_name(run)]
        if run.status.pod_name not in (None, *(pod.name for pod in own)):
            # The latest pod is gone; an older one that ended before it is not the latest again, a newer one is.
            failed = job is not None and job.outcome is not None
            own = [p for p in own if not p.ended or (failed and not p.disrupted) or _is_news(run, p)]
        return Observed(
            job=job,
            pods=tuple(own),
            recovery_job=jobs.get(naming.recovery_job_name(run)),
            recovery_pods=tuple(pod for pod in pods if pod.job == naming.recovery_job_name(run)),
        )

    async def found(self, run: MLPerfRun) -> Observed:
        """Return what the informers know of the run, with its Job also where they do not know that.

        Raises:
            ApiError: the read failed.
        """
        observed = self.recorded(run)
        if observed.job is not None:
            return observed
        unseen = await self._unseen_job(run)
        return replace(observed, job=unseen, unwatched=unseen is not None)

    async def observe(self, run: MLPerfRun, now: datetime) -> Observed:
        """Return what is there of a run under way.

        Raises:
            ApiError: a read failed.
        """
        observed = await self.found(run)
        job = observed.job
        if job is None:
            return observed
        if job.outcome is not None:
            return await self._with_report(run, job, await self._with_unseen_pods(job, observed), now)
        if _misses_pod(run, observed, now, min(POD_UNSEEN_AFTER, timedelta(seconds=run.spec.start_timeout_seconds))):
            observed = await self._with_unseen_pods(job, observed)
        waiting = waiting_since(run, observed, now)
        if waiting is not None and _misses_pod(run, observed, now, POD_EXPECTED_AFTER):
            return replace(observed, job_warnings=await self._warnings.about(job, waiting, now))
        return observed

    async def _with_unseen_pods(self, job: JobRecord, observed: Observed) -> Observed:
        """Return what is there with the Job's pods that the informer does not know: their labels were taken away."""
        if observed.pods:
            return observed
        bodies = await self._cluster.list_in(PODS, job.namespace, f"{JOB_NAME_LABEL}={job.name}")
        mine = [decode_pod(b) for b in bodies if controller(b["metadata"], JOBS.kind).get("uid") == job.uid]
        unseen = [pod for pod in mine if pod.run_uid != job.run_uid]
        pods = sorted(unseen, key=lambda pod: (pod.created_at, pod.name))
        return replace(observed, pods=tuple(pods), unwatched=observed.unwatched or bool(pods))

    async def _unseen_job(self, run: MLPerfRun) -> JobRecord | None:
        # The status may know a Job that the informer has not seen yet, or that is gone.
        if run.status.job_name is None:
            return None
        body = await self._cluster.get(JOBS, run.metadata.namespace, naming.job_name(run))
        job = decode_job(body) if body is not None else None
        return job if job is not None and job.run_uid == run.metadata.uid else None

    async def _with_report(self, run: MLPerfRun, job: JobRecord, observed: Observed, now: datetime) -> Observed:
        why, hope = "no pod is left that could report", False
        for pods in (observed.recovery_pods, observed.pods):
            if not pods:
                continue
            try:
                return replace(observed, report=await self._read(pods[-1], run.metadata.uid))
            except ReportError as error:
                why, hope = str(error), hope or not pods[-1].ended or now < _ended(job) + LOG_DEADLINE
            except ApiError as error:
                if _asks_again(job, error, now):
                    raise
                why, hope = str(error), True
        lost = replace(observed, report_error=final_cause(run, observed, why, now, hope=hope))
        if job.outcome == "Failed" or lost.report_error:
            return replace(lost, report=await self._read_part(job, lost, run.metadata.uid, why, now))
        return lost

    async def _read(self, pod: PodRecord, uid: str) -> Report:
        sha256 = announced(pod.container(COLLECT), uid)
        log = await self._cluster.read_log(pod.namespace, pod.name, COLLECT)
        return parse_log(log, uid, sha256)

    async def _read_part(self, job: JobRecord, observed: Observed, uid: str, why: str, now: datetime) -> Report | None:
        """Return what logs that hold no whole report tell of the pairs that were measured, once no more can come."""
        for pods in (observed.recovery_pods, observed.pods):
            if not pods or not (pods[-1].ended or now >= _ended(job) + LAST_WORD_GRACE):
                continue
            pod = pods[-1]
            try:
                log = await self._cluster.read_log(pod.namespace, pod.name, COLLECT)
            except ApiError as error:
                if _asks_again(job, error, now):
                    raise
                continue
            try:
                return parse_log(log, uid, announced(pod.container(COLLECT), uid))
            except ReportError:
                part = parse_part(log, uid, why)
            if part is not None:
                return part
        return None


def _misses_pod(run: MLPerfRun, observed: Observed, now: datetime, after: timedelta) -> bool:
    waiting, pod = waiting_since(run, observed, now), observed.pod
    return waiting is not None and (pod is None or pod.ended) and now >= waiting + after


def _is_news(run: MLPerfRun, pod: PodRecord) -> bool:
    """Say whether a pod tells more than the status does: a stage where none is known, or made after all that is."""
    known = stage_moments(run)
    if not known:
        return any(container.started_at is not None for container in pod.containers)
    return pod.created_at > max(known)


def final_cause(run: MLPerfRun, observed: Observed, why: str, now: datetime, *, hope: bool) -> str:
    """Return why the results will never be read, or nothing while there is hope: a pod may report, a log be read."""
    job, recovery, lasting = observed.job, observed.recovery_job, outlives_pod(run)
    if recovery is not None and recovery.outcome == "Failed":
        return f"the results could not be read from the volume: {recovery.message or recovery.reason}; last: {why}"
    if not lasting and not hope:
        return f"{why}, and the results were on an emptyDir; use a claim for spec.results"
    if lasting and recovery is None:
        # However late it is: the operator may have been away, and the second try has still to come.
        return ""
    since = [_ended(job)] if job is not None else []
    since += [recovery.created_at] if recovery is not None else []
    if now > max(since, default=now) + READ_DEADLINE:
        return f"the results could not be read within {READ_DEADLINE.seconds // 60} minutes: {why}"
    return ""


def given_up(observed: Observed, why: str, now: datetime) -> str:
    """Return why the results will never be read when no second try can be made, or nothing for as long as it may."""
    if observed.job is None or now <= _ended(observed.job) + READ_DEADLINE:
        return observed.report_error
    return observed.report_error or f"the results could not be read again: {why}"


def _ended(job: JobRecord) -> datetime:
    return job.ended_at or job.created_at


def _asks_again(job: JobRecord, error: ApiError, now: datetime) -> bool:
    """Say whether a failed run, which ends with this pass, comes back for what was measured before it failed."""
    passes = error.status in (0, 429) or error.status >= 500
    return job.outcome == "Failed" and passes and now < _ended(job) + LOG_DEADLINE
