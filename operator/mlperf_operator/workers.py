"""Workers that empty a queue: each key is reconciled, and comes again when its reconciler or an error says so."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from mlperf_operator.cluster import ApiError
from mlperf_operator.logs import RunLogger
from mlperf_operator.metrics import ControllerMetrics
from mlperf_operator.queue import WorkQueue

Reconcile = Callable[[str], Awaitable[timedelta | None]]
Log = Callable[[str], RunLogger | logging.Logger]


async def work(queue: WorkQueue[str], reconcile: Reconcile, log: Log, metrics: ControllerMetrics) -> None:
    """Reconcile key after key until cancelled."""
    while True:
        key = await queue.get()
        try:
            with metrics.reconciling():
                await _handle(queue, reconcile, log(key), key, metrics)
        finally:
            queue.done(key)


async def _handle(
    queue: WorkQueue[str],
    reconcile: Reconcile,
    log: RunLogger | logging.Logger,
    key: str,
    metrics: ControllerMetrics,
) -> None:
    try:
        again = await reconcile(key)
    except ApiError as error:
        metrics.failed()
        log.warning("reconcile failed and is tried again: %s", error)
        queue.add_rate_limited(key, error.retry_after or 0.0)
    except Exception:
        # One key's defect must not stop the others; it is tried again with backoff, and the log has it whole.
        metrics.failed()
        log.exception("reconcile failed in a way that nobody foresaw and is tried again")
        queue.add_rate_limited(key)
    else:
        metrics.succeeded(again=again is not None)
        queue.forget(key)
        if again is not None:
            queue.add_after(key, again.total_seconds())
