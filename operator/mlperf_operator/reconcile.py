"""One reconciliation: observe, plan, act, status. Every decision is made from the present state."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mlperf_operator import naming, plan
from mlperf_operator.acceptance import refusal
from mlperf_operator.act import NameTakenError, act
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.cluster import JOBS, PODS, ApiError, Cluster
from mlperf_operator.driver_keeper import DriverKeeper
from mlperf_operator.gpu_config_schema import ConfigError
from mlperf_operator.inputs import InputsReader, NotReadyError
from mlperf_operator.limits import Limits, Refusal
from mlperf_operator.logs import of_run
from mlperf_operator.observe import Observer, Views, given_up
from mlperf_operator.observed import Blocked, Observed, decode_job
from mlperf_operator.outcome import Phase, outcome
from mlperf_operator.parity import placed
from mlperf_operator.resources.confine import HostPathError
from mlperf_operator.resources.job import CONFIG_DIGEST_ANNOTATION, Bounds
from mlperf_operator.status import is_finished, next_status, refused_status
from mlperf_operator.status_writer import OnFinished, StatusWriter
from mlperf_operator.suites import Suite
from mlperf_operator.typed import UnreadableError, typed

logger = logging.getLogger(__name__)

WAITING_FOR_DELETION = "WaitingForDeletion"
PODS_LEFT = "pods of an earlier run of this name are still being deleted; delete them yourself if they stay"
DELETION_RETRY = timedelta(seconds=2)
AT_ONCE = timedelta(0)

REFUSALS = frozenset({400, 403, 404, 422})
"""Answers to a write that somebody can change: quota, admission policies, a namespace that is not there yet."""


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


class Reconciler:
    """Brings one run at a time closer to what its spec asks."""

    def __init__(
        self,
        cluster: Cluster,
        views: Views,
        limits: Limits,
        inputs: InputsReader,
        *,
        keeper: DriverKeeper | None = None,
        now: Callable[[], datetime] = utc_now,
        on_finished: OnFinished = lambda _run, _status: None,
    ) -> None:
        self._cluster = cluster
        self._views = views
        self._limits = limits
        self._inputs = inputs
        self._keeper = keeper
        self._observer = Observer(cluster, views)
        self._now = now
        self._statuses = StatusWriter(cluster, views.runs, on_finished)
        self._followers: set[str] = set()
        """Uids of runs whose name an earlier one had when they came."""

    async def reconcile(self, key: str) -> timedelta | None:
        """Reconcile the run of that namespace/name.

        Returns:
            After how long to look again, or None when only an event can change anything.

        Raises:
            ApiError: the API server failed; the caller retries with backoff.
        """
        record = self._views.runs.get(key)
        if record is None:
            return None
        try:
            run = self._statuses.latest(typed(record))
        except UnreadableError as error:
            return await self._unreadable(self._statuses.latest(error.run), str(error))
        if run.metadata.deletion_timestamp is not None:
            return None
        if is_finished(run.status):
            return await self._finish(run)
        now = self._now()
        observed = await self._observer.observe(run, now)
        # What the administrator allows is asked once: a run that has its Job goes on whatever the settings say now.
        refused = refusal(run, self._limits) if _is_new(run, observed) else None
        if refused is not None:
            return await self._refuse(run, refused)
        return await self._advance(run, observed, now)

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a run that is gone."""
        self._statuses.forget(uid)
        self._followers.discard(uid)

    async def _advance(self, run: MLPerfRun, observed: Observed, now: datetime) -> timedelta | None:
        suite = self._suite(run)
        refused = await self._keep_going(run, observed)
        try:
            observed = await self._act(run, suite, observed, now)
        except (ConfigError, NameTakenError) as error:
            reason = "InvalidGpuConfig" if isinstance(error, ConfigError) else "NameConflict"
            return await self._refuse(run, Refusal(reason, str(error)))
        observed = self._with_driver(run, observed)
        status = next_status(run, suite, observed, now)
        pause = await self._statuses.write(run, status, now)
        if refused is not None:
            raise refused
        if is_finished(status):
            return AT_ONCE
        waits = observed.blocked is not None and observed.blocked.reason == WAITING_FOR_DELETION
        pauses = [pause, plan.next_look(run, observed, now), DELETION_RETRY if waits else None]
        return min((p for p in pauses if p is not None), default=None)

    def _suite(self, run: MLPerfRun) -> Suite | None:
        """Return the run's suite, or None where the administrator took it, or its benchmarks, away."""
        suite = self._limits.suites.get(run.spec.suite)
        known = suite is not None and all(request.name in suite.benchmarks for request in run.spec.benchmarks)
        return suite if known else None

    async def _act(self, run: MLPerfRun, suite: Suite | None, observed: Observed, now: datetime) -> Observed:
        if suite is not None and outcome(run, observed, now).phase is Phase.NOT_STARTED:
            return await self._start(run, suite, observed)
        if observed.job is not None and observed.job.outcome == "Complete":
            return await self._recover(run, suite, observed, now)
        return observed

    async def _keep_going(self, run: MLPerfRun, observed: Observed) -> ApiError | None:
        """Do what a run under way needs; return why that was refused, which must not freeze what the status says."""
        try:
            await act(self._cluster, run, observed.job, plan.keep_going(run, observed))
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            return error
        return None

    async def _start(self, run: MLPerfRun, suite: Suite, observed: Observed) -> Observed:
        run = placed(run, self._limits)
        if run.metadata.uid in self._followers and await self._pods_are_left(run):
            return replace(observed, blocked=Blocked(WAITING_FOR_DELETION, PODS_LEFT))
        try:
            inputs = await self._inputs.read(run, suite)
            driver = await self._driver_for(run, suite)
            inputs = replace(inputs, driver=driver, bounds=await self._bounds())
            body = await act(self._cluster, run, None, plan.start(run, inputs))
        except NotReadyError as error:
            return replace(observed, blocked=error.blocked)
        except NameTakenError as error:
            if not error.deleting:
                raise
            self._followers.add(run.metadata.uid)
            return replace(observed, blocked=Blocked(WAITING_FOR_DELETION, str(error)))
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            reason = "QuotaExceeded" if "exceeded quota" in error.message else "CreationRefused"
            return replace(observed, blocked=Blocked(reason, error.message))
        if body is None:
            return observed
        digest = (body["metadata"].get("annotations") or {}).get(CONFIG_DIGEST_ANNOTATION, "")
        return replace(observed, job=decode_job(body), config_digest=digest)

    async def _bounds(self) -> Bounds:
        return Bounds(self._limits.host_paths, await self._inputs.children_policy.uid())

    async def _pods_are_left(self, run: MLPerfRun) -> bool:
        """Say whether the Job of an earlier run of this name is gone and its pods are not.

        The garbage collector, which is to delete them, would miss that their Job went if there were one of its name.
        """
        meta = run.metadata
        if await self._cluster.get(JOBS, meta.namespace, naming.job_name(run)) is not None:
            return False
        pods = await self._cluster.list_in(PODS, meta.namespace, f"{naming.RUN_LABEL}={meta.name}")
        return any(pod["metadata"]["labels"].get(naming.RUN_UID_LABEL) != meta.uid for pod in pods)

    async def _driver_for(self, run: MLPerfRun, suite: Suite) -> str | None:
        return await self._keeper.driver_for(run, suite) if self._keeper is not None else None

    def _with_driver(self, run: MLPerfRun, observed: Observed) -> Observed:
        if self._keeper is None:
            return observed
        node = observed.pod.node if observed.pod is not None else None
        return replace(observed, driver=self._keeper.view(run, node or run.status.node))

    async def _recover(self, run: MLPerfRun, suite: Suite | None, observed: Observed, now: datetime) -> Observed:
        """Make the Job that reads lost results again. That it cannot be made ends the run only after a while."""
        try:
            if suite is not None:
                run, images = placed(run, self._limits), self._inputs.images(run, suite)
                actions = plan.recover(run, observed, suite, images, await self._bounds())
                await act(self._cluster, run, None, actions)
                return observed
            cause = f"suite {run.spec.suite} is not known any more"
        except (NameTakenError, HostPathError) as error:
            cause = str(error)
        except ApiError as error:
            if error.status not in REFUSALS:
                raise
            cause = error.message
        return replace(observed, report_error=given_up(observed, cause, now))

    async def _finish(self, run: MLPerfRun) -> timedelta | None:
        now, observed = self._now(), await self._observer.found(run)
        await act(self._cluster, run, observed.job, plan.finish(run, observed, now))
        return plan.next_look(run, observed, now)

    async def _refuse(self, run: MLPerfRun, refused: Refusal) -> timedelta | None:
        now = self._now()
        await self._statuses.write(run, refused_status(run, refused, now), now)
        return AT_ONCE if run.spec.ttl_seconds_after_finished is not None else None

    async def _unreadable(self, run: MLPerfRun, problem: str) -> timedelta | None:
        if run.metadata.deletion_timestamp is not None:
            return None
        if is_finished(run.status):
            return await self._finish(run)
        if _is_new(run, self._observer.recorded(run)):
            return await self._refuse(run, Refusal("InvalidSpec", problem))
        # Written by a newer operator, which will be back; until then its Job goes on.
        of_run(logger, run).warning("the run cannot be read by this version and is left alone: %s", problem)
        return None


def _is_new(run: MLPerfRun, observed: Observed) -> bool:
    return observed.job is None and run.status.job_name is None
