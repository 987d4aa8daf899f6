"""The instruments: what queue, workers and client count, under controller-runtime's names."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest
from aiohttp import web
from local_cluster.ports import free_port

from mlperf_operator.api.v1alpha1 import MLPerfRunStatus
from mlperf_operator.cluster import PODS, ApiError
from mlperf_operator.health import Health
from mlperf_operator.metrics import Metrics
from mlperf_operator.queue import WorkQueue
from mlperf_operator.run_facts import durations
from mlperf_operator.workers import work
from unit.runtime.stream_server import connected, refusal, until
from unit.sight.scraping import moment, stage, value


async def test_a_queue_counts_what_comes_waits_and_is_done() -> None:
    metrics = Metrics()
    queue: WorkQueue[str] = WorkQueue("test", metrics, jitter=lambda: 0.0)
    for key in ("a", "b", "a"):
        queue.add(key)
    assert value(metrics.registry, "workqueue_depth", name="test") == 2
    assert value(metrics.registry, "workqueue_adds_total", name="test") == 2
    assert value(metrics.registry, "workqueue_longest_running_processor_seconds", name="test") == 0
    await asyncio.sleep(0.02)
    key = await queue.get()
    waited = value(metrics.registry, "workqueue_queue_duration_seconds_sum", name="test")
    assert waited is not None
    assert waited >= 0.02
    await asyncio.sleep(0.02)
    busy = value(metrics.registry, "workqueue_longest_running_processor_seconds", name="test")
    assert busy is not None
    assert busy >= 0.02
    queue.done(key)
    worked = value(metrics.registry, "workqueue_work_duration_seconds_sum", name="test")
    assert worked is not None
    assert worked >= 0.02
    queue.add_rate_limited(key)
    assert value(metrics.registry, "workqueue_retries_total", name="test") == 1


async def test_reconciliations_are_counted_by_how_they_ended() -> None:
    metrics, seen = Metrics(), list[str]()
    queue: WorkQueue[str] = WorkQueue("test", metrics, jitter=lambda: 0.1)

    async def reconcile(key: str) -> timedelta | None:
        seen.append(key)
        assert value(metrics.registry, "controller_runtime_active_workers", controller="test") == 1
        if key == "refused" and seen.count(key) == 1:
            raise ApiError(500, "InternalError", "no")
        if key == "defect" and seen.count(key) == 1:
            raise KeyError(key)
        return timedelta(hours=1) if key == "again" else None

    task = asyncio.create_task(work(queue, reconcile, lambda _: logging.getLogger("t"), metrics.controller("test", 1)))
    for key in ("refused", "defect", "again", "once"):
        queue.add(key)
    await until(lambda: len(seen) == 6)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    counted = {
        result: value(metrics.registry, "controller_runtime_reconcile_total", controller="test", result=result)
        for result in ("success", "requeue_after", "error")
    }
    assert counted == {"success": 3, "requeue_after": 1, "error": 2}
    assert value(metrics.registry, "controller_runtime_reconcile_errors_total", controller="test") == 2
    assert value(metrics.registry, "controller_runtime_reconcile_time_seconds_count", controller="test") == 6
    assert value(metrics.registry, "controller_runtime_active_workers", controller="test") == 0
    assert value(metrics.registry, "controller_runtime_max_concurrent_reconciles", controller="test") == 1


async def test_requests_are_counted_by_their_answer_and_those_without_one_too() -> None:
    metrics = Metrics()
    # The client itself asks once more where a connection that it had kept is gone.
    answers = [web.json_response({}), refusal(429), None, None]

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = answers.pop(0)
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answer

    async with connected(handle) as cluster:
        cluster.metrics = metrics
        await cluster.get(PODS, "bench", "a")
        for _ in range(2):
            with pytest.raises(ApiError):
                await cluster.get(PODS, "bench", "a")
        host = cluster._host
    assert host.startswith("127.0.0.1:")
    for code in ("200", "429", "<error>"):
        assert value(metrics.registry, "rest_client_requests_total", code=code, method="GET", host=host) == 1
    assert value(metrics.registry, "rest_client_request_duration_seconds_count", verb="GET", host=host) == 3


async def test_the_event_loops_lag_is_measured() -> None:
    metrics = Metrics()
    async with Health(free_port(), [], is_leader=lambda: False, metrics=metrics).serving():
        await until(lambda: value(metrics.registry, "mlperf_operator_event_loop_lag_seconds_count") == 1)


def test_a_run_that_ended_counts_once_with_each_stage_that_ran() -> None:
    stages = [stage("code", "Completed", 0, 1), stage("build", "Failed", 1, 11), stage("run", "Pending")]
    status = {"startTime": moment(0), "completionTime": moment(12), "stages": stages}
    metrics = Metrics()
    metrics.run_finished("reference-cpu", "Failed", *durations(MLPerfRunStatus.model_validate(status)))
    labels = {"suite": "reference-cpu", "outcome": "Failed"}
    assert value(metrics.registry, "mlperf_run_duration_seconds_sum", **labels) == 720
    assert value(metrics.registry, "mlperf_run_duration_seconds_count", **labels) == 1
    taken = {
        name: value(metrics.registry, "mlperf_run_stage_duration_seconds_sum", suite="reference-cpu", stage=name)
        for name in ("code", "build", "run")
    }
    assert taken == {"code": 60, "build": 600, "run": None}


def test_clocks_that_disagree_make_no_time_that_is_negative() -> None:
    status = {"startTime": moment(5), "completionTime": moment(4), "stages": [stage("code", "Completed", 3, 2)]}
    assert durations(MLPerfRunStatus.model_validate(status)) == (0.0, {"code": 0.0})
