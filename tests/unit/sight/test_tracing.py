"""Traces of finished runs, as a real OTLP receiver gets them."""

from __future__ import annotations

import asyncio
import builtins
import time
from typing import Any

import pytest
from local_cluster.ports import free_port

from mlperf_operator import tracing
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.settings import Settings, SettingsError
from mlperf_operator.tracing import Tracer, spans
from unit.runtime.stream_server import until
from unit.sight.otlp_receiver import receiving
from unit.sight.scraping import EPOCH, conditions, finished, stage

OK, ERROR = 1, 2
START = int(EPOCH.timestamp()) * 10**9
MINUTE = 60 * 10**9


def _run(**status: Any) -> MLPerfRun:
    return MLPerfRun.model_validate(finished(**status).body)


def _finish(tracer: Tracer, run: MLPerfRun) -> None:
    tracer.finished(run, run.status)


async def test_a_finished_run_is_one_trace_with_a_span_for_each_stage() -> None:
    stages = [stage("code", "Completed", 1, 2), stage("build", "Completed", 2, 12), stage("run", "Pending")]
    async with receiving() as receiver:
        tracer = Tracer(receiver.endpoint, "1.2.3")
        _finish(tracer, _run(end=30, stages=stages))
        await tracer.close()
    root, code, build = receiver.spans
    assert [(s.name, s.start_time_unix_nano, s.end_time_unix_nano) for s in (root, code, build)] == [
        ("MLPerfRun", START, START + 30 * MINUTE),
        ("code", START + MINUTE, START + 2 * MINUTE),
        ("build", START + 2 * MINUTE, START + 12 * MINUTE),
    ]
    assert {s.trace_id for s in receiver.spans} == {root.trace_id}
    assert (root.parent_span_id, {code.parent_span_id, build.parent_span_id}) == (b"", {root.span_id})
    assert {s.status.code for s in receiver.spans} == {OK}
    about = {a.key: a.value.string_value or a.value.int_value for a in root.attributes}
    assert about["k8s.namespace.name"] == "bench"
    assert about["k8s.node.name"] == "node-1"
    assert about["mlperf.run.uid"] == "uid-of-demo"
    assert about["mlperf.condition.ResultsValid"] == "True"
    [resource] = receiver.resources
    found = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert found == {"service.name": "mlperf-operator", "service.version": "1.2.3"}


async def test_a_failure_is_an_error_of_the_run_and_of_its_stage() -> None:
    stages = [{**stage("build", "Failed", 1, 2), "exitCode": 65, "message": "out of memory"}]
    async with receiving() as receiver:
        tracer = Tracer(receiver.endpoint, "1")
        _finish(tracer, _run(stages=stages, conditions=conditions(Finished="True", Succeeded="False")))
        await tracer.close()
    root, build = receiver.spans
    assert (root.status.code, root.status.message) == (ERROR, "SucceededReason: ")
    assert (build.status.code, build.status.message) == (ERROR, "out of memory")
    assert {a.key: a.value.int_value for a in build.attributes}["process.exit.code"] == 65


async def test_a_run_that_is_told_twice_is_the_same_trace_and_another_run_another_one() -> None:
    async with receiving() as receiver:
        tracer = Tracer(receiver.endpoint, "1")
        for name in ("a", "a", "b"):
            _finish(tracer, _run(name=name, stages=[]))
        await until(lambda: len(receiver.spans) == 3)
        await tracer.close()
    first, again, other = [(span.trace_id, span.span_id) for span in receiver.spans]
    assert first == again
    assert not set(first) & set(other)


async def test_an_endpoint_that_does_not_answer_holds_nobody_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "SEND_SECONDS", 0.5)
    tracer = Tracer(f"http://127.0.0.1:{free_port()}", "1")
    started = time.monotonic()
    for number in range(200):
        _finish(tracer, _run(name=f"r{number}"))
    assert time.monotonic() - started < 2
    await asyncio.wait_for(tracer.close(), 5)
    assert caplog.records


@pytest.mark.parametrize("start", [None, "0000-01-01T00:00:00Z"], ids=["refused", "impossible"])
def test_a_run_that_never_started_has_no_trace(start: str | None) -> None:
    run = _run(startTime=start)
    assert list(spans(run, run.status)) == []


def test_without_the_extra_the_operator_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(SettingsError, match="the extra `tracing` is not installed"):
        Tracer("http://127.0.0.1:4318", "1")


@pytest.mark.parametrize("endpoint", ["collector:4318", "http://", "http://a b", "http://collector:4318/v1/traces"])
def test_an_endpoint_is_scheme_host_and_port(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPERF_OPERATOR_TRACING_ENDPOINT", endpoint)
    with pytest.raises(SettingsError, match="MLPERF_OPERATOR_TRACING_ENDPOINT"):
        Settings.from_environment()
