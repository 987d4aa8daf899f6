"""Gathering: one frozen Observed from the informers' records, and the few reads that no informer covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.cluster import JOBS, ApiError, Cluster
from mlperf_operator.observed import JobRecord, Observed, PodRecord, Report, RunRecord, decode_job
from mlperf_operator.outcome import POD_EXPECTED_AFTER
from mlperf_operator.report import ReportError, announced, parse_log
from mlperf_operator.resources.containers import COLLECT, RUN
from mlperf_operator.resources.volumes import outlives_pod

READ_DEADLINE = timedelta(minutes=15)
"""How long the results of a complete Job are looked for, from its end."""

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

    def recorded(self, run: MLPerfRun) -> Observed:
        """Return what the informers know of the run."""
        jobs = {job.component: job for job in self._views.jobs.by_index(run.metadata.uid)}
        pods = sorted(self._views.pods.by_index(run.metadata.uid), key=lambda pod: (pod.created_at, pod.name))
        return Observed(
            job=jobs.get(RUN),
            pods=tuple(pod for pod in pods if pod.job == naming.job_name(run)),
            recovery_job=jobs.get(COLLECT),
            recovery_pods=tuple(pod for pod in pods if pod.job == naming.recovery_job_name(run)),
        )

    async def observe(self, run: MLPerfRun, now: datetime) -> Observed:
        """Return what is there of a run under way.

        Raises:
            ApiError: a read failed.
        """
        observed = self.recorded(run)
        if observed.job is None:
            observed = replace(observed, job=await self._unseen_job(run))
        job = observed.job
        if job is None:
            return observed
        if job.outcome is not None:
            return await self._with_report(run, observed, now)
        if not observed.pods and not job.suspend and now >= (job.start_time or job.created_at) + POD_EXPECTED_AFTER:
            return replace(observed, job_warnings=await self._warnings(job))
        return observed

    async def _unseen_job(self, run: MLPerfRun) -> JobRecord | None:
        # The status may know a Job that the informer has not seen yet, or that is gone.
        if run.status.job_name is None:
            return None
        body = await self._cluster.get(JOBS, run.metadata.namespace, naming.job_name(run))
        job = decode_job(body) if body is not None else None
        return job if job is not None and job.run_uid == run.metadata.uid else None

    async def _warnings(self, job: JobRecord) -> tuple[str, ...]:
        events = await self._cluster.events_about(job.namespace, job.uid)
        ordered = sorted(events, key=lambda event: str(event.get("lastTimestamp") or ""))
        return tuple(str(event.get("message", "")) for event in ordered)

    async def _with_report(self, run: MLPerfRun, observed: Observed, now: datetime) -> Observed:
        why = "no pod is left that could report"
        for pods in (observed.recovery_pods, observed.pods):
            if not pods:
                continue
            try:
                return replace(observed, report=await self._read(pods[-1], run.metadata.uid))
            except (ReportError, ApiError) as error:
                why = str(error)
        return replace(observed, report_error=final_cause(run, observed, why, now))

    async def _read(self, pod: PodRecord, uid: str) -> Report:
        sha256 = announced(pod.container(COLLECT), uid)
        log = await self._cluster.read_log(pod.namespace, pod.name, COLLECT)
        return parse_log(log, uid, sha256)


def final_cause(run: MLPerfRun, observed: Observed, why: str, now: datetime) -> str:
    """Return why the results will never be read, or nothing while there is hope."""
    job, recovery = observed.job, observed.recovery_job
    if recovery is not None and recovery.outcome == "Failed":
        return f"the results could not be read from the volume: {recovery.message or recovery.reason}; last: {why}"
    if job is not None and job.ended_at is not None and now > job.ended_at + READ_DEADLINE:
        return f"the results could not be read within {READ_DEADLINE.seconds // 60} minutes: {why}"
    if not outlives_pod(run) and not observed.pods:
        return f"{why}, and the results were on an emptyDir; use a claim for spec.results"
    return ""
