"""Instruments of this process, under the names of controller-runtime and client-go, in a registry of its own."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

DISTRIBUTION = "mlperf-operator"

_RECONCILE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_QUEUE_BUCKETS = (0.0001, 0.001, 0.01, 0.1, 0.5, 1, 3, 10, 60, 600)
_REQUEST_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
_LAG_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RUN_BUCKETS = (60, 300, 900, 1800, 3600, 7200, 14400, 28800, 57600, 86400, 172800)
_STAGE_BUCKETS = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 57600)
"""All in seconds."""


class Metrics:
    """The instruments. What is counted here is of this process alone and begins again with it."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._reconciles(self.registry)
        self._queues(self.registry)
        self._cluster(self.registry)
        self._runs(self.registry)

    def _reconciles(self, registry: CollectorRegistry) -> None:
        prefix, by = "controller_runtime_", ["controller"]
        self.reconciles = Counter(
            f"{prefix}reconcile", "Reconciliations by result.", ["controller", "result"], registry=registry
        )
        self.reconcile_errors = Counter(
            f"{prefix}reconcile_errors", "Reconciliations that failed and are tried again.", by, registry=registry
        )
        self.reconcile_seconds = Histogram(
            f"{prefix}reconcile_time_seconds",
            "Time of a reconciliation.",
            by,
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self.active_workers = Gauge(f"{prefix}active_workers", "Workers that are busy.", by, registry=registry)
        self.workers = Gauge(f"{prefix}max_concurrent_reconciles", "Workers that there are.", by, registry=registry)

    def _queues(self, registry: CollectorRegistry) -> None:
        by = ["name"]
        self.depth = Gauge("workqueue_depth", "Keys that wait for a worker.", by, registry=registry)
        self.adds = Counter("workqueue_adds", "Keys added; one that waits already is not added.", by, registry=registry)
        self.retries = Counter("workqueue_retries", "Keys added again after a failure.", by, registry=registry)
        self.queue_seconds = Histogram(
            "workqueue_queue_duration_seconds",
            "Time of a key from being added to its worker.",
            by,
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self.work_seconds = Histogram(
            "workqueue_work_duration_seconds",
            "Time that a worker spent on a key.",
            by,
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self.longest = Gauge(
            "workqueue_longest_running_processor_seconds",
            "How long the worker that took longest has been busy.",
            by,
            registry=registry,
        )

    def _cluster(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "rest_client_requests",
            "Requests to the API server; code <error> where there was no answer.",
            ["code", "method", "host"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "rest_client_request_duration_seconds",
            "Time until the API server's answer began.",
            ["verb", "host"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.leader = Gauge(
            "leader_election_master_status", "1 while this process holds the Lease.", ["name"], registry=registry
        )
        self.loop_lag_seconds = Histogram(
            "mlperf_operator_event_loop_lag_seconds",
            "How much later than asked the event loop woke, twice a second.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self.tasks = Gauge("mlperf_operator_tasks", "Tasks of the event loop, the scrape's own too.", registry=registry)

    def _runs(self, registry: CollectorRegistry) -> None:
        self.run_seconds = Histogram(
            "mlperf_run_duration_seconds",
            "Time of an accepted run from its start to its end, once for each that this process saw end.",
            ["suite", "outcome"],
            buckets=_RUN_BUCKETS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "mlperf_run_stage_duration_seconds",
            "Time of a stage of a run, once for each stage of a run that this process saw end.",
            ["suite", "stage"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )

    def about_process(self) -> None:
        """Add what the process is and uses: build, CPU, memory, files, garbage collection."""
        build = Info("mlperf_operator_build", "What runs here.", registry=self.registry)
        build.info({"version": version(DISTRIBUTION), "python_version": platform.python_version()})
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def controller(self, name: str, workers: int) -> ControllerMetrics:
        """Return the instruments of a controller that has so many workers."""
        self.workers.labels(name).set(workers)
        return ControllerMetrics(self, name)

    def queue(self, name: str, depth: Callable[[], int], working: Callable[[], Collection[float]]) -> QueueMetrics:
        """Return the instruments of a queue.

        Args:
            name: The queue's name.
            depth: Asked at each scrape, on another thread.
            working: Likewise: since when, by `time.monotonic`, each key that is worked on has been.
        """
        self.depth.labels(name).set_function(depth)
        self.longest.labels(name).set_function(
            lambda: max((time.monotonic() - since for since in working()), default=0)
        )
        return QueueMetrics(self, name)

    def request(self, method: str, host: str, code: str, seconds: float) -> None:
        """Count a request to the API server; `code` is its status, or <error>."""
        self.requests.labels(code, method, host).inc()
        self.request_seconds.labels(method, host).observe(seconds)

    def run_finished(self, suite: str, outcome: str, seconds: float, stages: Mapping[str, float]) -> None:
        """Count a run whose end this process has just written: what it took, and what each of its stages took."""
        self.run_seconds.labels(suite, outcome).observe(seconds)
        for stage, taken in stages.items():
            self.stage_seconds.labels(suite, stage).observe(taken)


class ControllerMetrics:
    """The instruments of one controller."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        results = {kind: metrics.reconciles.labels(name, kind) for kind in ("success", "requeue_after", "error")}
        self._results = results
        self._errors = metrics.reconcile_errors.labels(name)
        self._seconds = metrics.reconcile_seconds.labels(name)
        self._active = metrics.active_workers.labels(name)

    @contextmanager
    def reconciling(self) -> Iterator[None]:
        """Measure a reconciliation."""
        started = time.perf_counter()
        self._active.inc()
        try:
            yield
        finally:
            self._active.dec()
            self._seconds.observe(time.perf_counter() - started)

    def succeeded(self, *, again: bool) -> None:
        """Count a reconciliation that went well; `again`: it asks to be repeated after a while."""
        self._results["requeue_after" if again else "success"].inc()

    def failed(self) -> None:
        """Count one that is tried again."""
        self._results["error"].inc()
        self._errors.inc()


class QueueMetrics:
    """The instruments of one queue."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._adds = metrics.adds.labels(name)
        self._retries = metrics.retries.labels(name)
        self._queued = metrics.queue_seconds.labels(name)
        self._worked = metrics.work_seconds.labels(name)

    def added(self) -> None:
        """Count a key that waits now."""
        self._adds.inc()

    def retried(self) -> None:
        """Count a key that comes again after a failure."""
        self._retries.inc()

    def taken(self, seconds: float) -> None:
        """Count a key that a worker has taken after so long."""
        self._queued.observe(seconds)

    def done(self, seconds: float) -> None:
        """Count a key whose worker is done after so long."""
        self._worked.observe(seconds)


UNSEEN = Metrics()
"""Instruments that nobody scrapes, for where nobody asked for any."""
