"""The operator's process: health, Lease, informers, queue and workers, started in this order and stopped together."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, TypeVar

from mlperf_operator import handlers, naming, shapes
from mlperf_operator.api.v1alpha1 import ConditionStatus, ConditionType, MLPerfRun, MLPerfRunStatus
from mlperf_operator.catalogue import DriverSettings
from mlperf_operator.cluster import JOBS, MLPERF_RUNS, PODS, Cluster, Resource
from mlperf_operator.driver_controller import DriverController
from mlperf_operator.health import Health
from mlperf_operator.informer import Decode, Informer
from mlperf_operator.inputs import InputsReader
from mlperf_operator.lease import Lease
from mlperf_operator.limits import Limits
from mlperf_operator.logs import RunLogger, bind, configure
from mlperf_operator.metrics import DISTRIBUTION, UNSEEN, Metrics
from mlperf_operator.metrics_server import MetricsServer, Shown
from mlperf_operator.observe import Views
from mlperf_operator.observed import JobRecord, PodRecord, RunRecord, decode_job, decode_pod, decode_run
from mlperf_operator.queue import WorkQueue
from mlperf_operator.reconcile import Reconciler
from mlperf_operator.resources.driver_daemonset import DriverImages, Home
from mlperf_operator.run_facts import durations
from mlperf_operator.settings import Settings
from mlperf_operator.tasks import first_ended
from mlperf_operator.tracing import Tracer
from mlperf_operator.verdicts.conditions import status_of
from mlperf_operator.workers import work

logger = logging.getLogger(__name__)

C = TypeVar("C", JobRecord, PodRecord)

NAME = "mlperfrun"
"""Of the controller and its queue in metrics."""


class Controller:
    """Informers that feed a queue, and workers that empty it. Acts only while it runs, that is, as the leader."""

    def __init__(
        self, cluster: Cluster, settings: Settings, metrics: Metrics = UNSEEN, tracer: Tracer | None = None
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._tracer = tracer
        self._queue: WorkQueue[str] = WorkQueue(NAME, metrics)
        drivers = settings.driver()
        self.runs: Informer[RunRecord] = Informer(
            cluster, MLPERF_RUNS.read_as(shapes.RUN), decode_run, index=lambda run: run.uid, on_change=self._run_changed
        )
        self.jobs = self._informer(cluster, JOBS.read_as(shapes.JOB), decode_job)
        self.pods = self._informer(cluster, PODS.read_as(shapes.POD), decode_pod)
        self._drivers = self._driver_controller(cluster, drivers) if drivers is not None else None
        self._limits = _limits(settings, drivers)
        self._reconciler = Reconciler(
            cluster,
            Views(runs=self.runs.store, jobs=self.jobs, pods=self.pods),
            self._limits,
            InputsReader(cluster, settings),
            keeper=self._drivers.keeper if self._drivers is not None else None,
            now=cluster.clock.now,
            on_finished=self._finished,
        )

    def _informer(self, cluster: Cluster, resource: Resource, decode: Decode[C]) -> Informer[C]:
        """Return the informer of a kind that runs have children of."""
        return Informer(
            cluster,
            resource,
            decode,
            label_selector=naming.SELECTOR,
            index=lambda child: child.run_uid,
            on_change=self._child_changed,
        )

    def _driver_controller(self, cluster: Cluster, drivers: DriverSettings) -> DriverController:
        settings = self._settings
        images = DriverImages(settings.image, settings.image_pull_policy, settings.image_pull_secrets)
        home = Home(settings.namespace, settings.driver_owner)
        return DriverController(cluster, drivers, images, home, self.runs.store, self._queue.add, self._metrics)

    @property
    def informers(self) -> tuple[Informer[Any], ...]:
        """All informers, for health."""
        own = (self.runs, self.jobs, self.pods)
        return (*own, *self._drivers.informers) if self._drivers is not None else own

    async def run(self) -> None:
        """Watch and reconcile until a part of it ends: an error, cancellation, or a signal that kopf took."""
        await first_ended(*(informer.run() for informer in self.informers), self._reconcile_once_synced())

    async def _reconcile_once_synced(self) -> None:
        for informer in self.informers:
            await informer.synced.wait()
        logger.info("synced: %d runs, %d jobs, %d pods", *map(len, (self.runs.store, self.jobs.store, self.pods.store)))
        count, metrics = self._settings.workers, self._metrics.controller(NAME, self._settings.workers)
        workers = [work(self._queue, self._reconciler.reconcile, self._log, metrics) for _ in range(count)]
        if self._drivers is not None:
            workers.append(self._drivers.run())
        await first_ended(handlers.watch(self._queue.add), self._resync(), *workers)

    def shown(self) -> Shown:
        """Return what metrics show besides the instruments."""
        nodes = self._drivers.nodes.store if self._drivers is not None else {}
        return Shown(self.informers, self._limits.suites, self.runs.store, nodes)

    def _finished(self, run: MLPerfRun, status: MLPerfRunStatus) -> None:
        if status.start_time is not None:
            succeeded = status_of(status.conditions, ConditionType.SUCCEEDED) is ConditionStatus.TRUE
            self._metrics.run_finished(run.spec.suite, "Succeeded" if succeeded else "Failed", *durations(status))
        if self._tracer is not None:
            self._tracer.finished(run, status)

    def _log(self, key: str) -> RunLogger:
        namespace, _, name = key.partition("/")
        record = self.runs.store.get(key)
        known = {"uid": record.uid} if record is not None else {}
        return bind(logger, run=name, namespace=namespace, **known)

    def _run_changed(self, old: RunRecord | None, new: RunRecord | None) -> None:
        record = new or old
        if record is None:
            return
        is_another = old is None or new is None or new.uid != old.uid
        if old is not None and is_another:
            self._reconciler.forget(old.uid)
        key = f"{record.namespace}/{record.name}"
        # Somebody waits for a new run's Job; what is under way already can be told of a little later.
        self._queue.add(key, urgent=is_another)
        if self._drivers is not None:
            self._drivers.run_changed(key)

    def _child_changed(self, old: JobRecord | PodRecord | None, new: JobRecord | PodRecord | None) -> None:
        record = new or old
        if record is not None and record.run:
            self._queue.add(f"{record.namespace}/{record.run}")

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
            for key in tuple(self.runs.store):
                self._queue.add(key)
            if self._drivers is not None:
                self._drivers.resync()


def _limits(settings: Settings, drivers: DriverSettings | None) -> Limits:
    return Limits(
        suites=settings.suites(),
        host_paths=settings.allowed_host_paths,
        images=settings.allowed_images,
        drivers=drivers,
        runtime_class_access=settings.allow_runtime_class_access,
        code_claims=settings.allowed_code_claims,
        harness_parity=settings.harness_parity,
        upload_endpoints=settings.allowed_upload_endpoints,
        upload_secrets=settings.allowed_upload_secrets,
        namespaces=settings.allowed_namespaces,
        own_namespace=settings.namespace,
    )


async def serve(settings: Settings) -> None:
    """Run the operator until SIGTERM, SIGINT, or the end of its leadership."""
    configure(settings.log_level)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    metrics = Metrics()
    metrics.about_process()
    async with Cluster.from_environment() as cluster, _tracing(settings) as tracer:
        cluster.metrics = metrics
        controller = Controller(cluster, settings, metrics, tracer)
        lease = Lease(
            cluster,
            namespace=settings.namespace,
            name=naming.MANAGER,
            identity=settings.identity or socket.gethostname(),
            duration=settings.lease_duration_seconds,
            renew_deadline=settings.lease_renew_deadline_seconds,
            retry_period=settings.lease_retry_seconds,
        )
        cluster.guard = lambda: lease.held
        metrics.leader.labels(naming.MANAGER).set_function(lambda: float(lease.held))
        health = Health(settings.health_port, controller.informers, is_leader=lambda: lease.held, metrics=metrics)
        metrics_server = MetricsServer(settings.metrics_port, metrics, controller.shown())
        async with health.serving(), metrics_server.serving():
            await first_ended(lease.run(controller.run), _wait_for(stopped))


async def _wait_for(event: asyncio.Event) -> None:
    await event.wait()


@asynccontextmanager
async def _tracing(settings: Settings) -> AsyncIterator[Tracer | None]:
    tracer = Tracer(settings.tracing_endpoint, version(DISTRIBUTION)) if settings.tracing_endpoint else None
    try:
        yield tracer
    finally:
        if tracer is not None:
            await tracer.close()
