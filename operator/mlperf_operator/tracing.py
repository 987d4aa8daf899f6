"""A finished run as an OpenTelemetry trace: one span for the run, one for each stage, made from its status.

The ids come from the run's uid, so that a run that is told twice is the same trace. Sending goes on in a thread of the
SDK's; an endpoint that does not answer costs the trace and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlperf_operator.api.v1alpha1 import ConditionStatus, ConditionType, MLPerfRun, MLPerfRunStatus, StageState
from mlperf_operator.naming import MANAGER
from mlperf_operator.observed import parse_time
from mlperf_operator.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

SEND_SECONDS = 5.0
"""Longest time for one request to the endpoint, and for the last ones when the process ends."""

Value = str | int


@dataclass(frozen=True)
class Span:
    """A span, before it is OpenTelemetry's."""

    name: str
    start: int
    end: int
    """Both in nanoseconds since the epoch."""
    attributes: Mapping[str, Value]
    error: str | None = None
    """Why it failed, None where it did not."""
    stage: str = field(default="")
    """Empty: it is the run's."""


def spans(run: MLPerfRun, status: MLPerfRunStatus) -> Iterator[Span]:
    """Return the spans of a finished run, its own first; none where it never started."""
    whole = _times(status.start_time, status.completion_time)
    if whole is None:
        return
    succeeded = next((c for c in status.conditions if c.type is ConditionType.SUCCEEDED), None)
    failed = succeeded is not None and succeeded.status is ConditionStatus.FALSE
    error = f"{succeeded.reason}: {succeeded.message}" if succeeded is not None and failed else None
    yield Span("MLPerfRun", *whole, dict(_attributes(run, status)), error)
    for stage in status.stages:
        times = _times(stage.started_at, stage.finished_at)
        if times is None:
            continue
        about: dict[str, Value] = {"mlperf.stage.state": stage.state.value}
        if stage.exit_code is not None:
            about["process.exit.code"] = stage.exit_code
        error = stage.message if stage.state is StageState.FAILED else None
        yield Span(stage.name, *times, about, error, stage.name)


def _attributes(run: MLPerfRun, status: MLPerfRunStatus) -> Iterator[tuple[str, Value]]:
    meta = run.metadata
    yield "k8s.namespace.name", meta.namespace
    yield "mlperf.run.name", meta.name
    yield "mlperf.run.uid", meta.uid
    yield "mlperf.suite", run.spec.suite
    yield "mlperf.system", run.spec.system
    yield "mlperf.benchmarks", status.benchmarks or ""
    yield "mlperf.summary", status.summary or ""
    yield "k8s.node.name", status.node or ""
    yield "mlperf.attempts", status.attempts or 0
    for condition in status.conditions:
        yield f"mlperf.condition.{condition.type.value}", condition.status.value


def trace_id(uid: str) -> int:
    """Return a run's trace id, never 0, which means none."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:16]) or 1


def span_id(uid: str, stage: str) -> int:
    """Return a span's id, never 0; the run's own span has the stage ""."""
    return int.from_bytes(hashlib.sha256(f"{uid}/{stage}".encode()).digest()[:8]) or 1


def _times(start: str | None, end: str | None) -> tuple[int, int] | None:
    first, last = parse_time(start), parse_time(end)
    if first is None or last is None:
        return None
    # The clocks are those of the node and of the API server.
    return int(first.timestamp()) * 10**9, int(max(first, last).timestamp()) * 10**9


class Tracer:
    """Sends the traces of finished runs to an OTLP endpoint."""

    def __init__(self, endpoint: str, version: str) -> None:
        """Start.

        Args:
            endpoint: URL of the OTLP receiver without path, such as http://collector:4318.
            version: The operator's.

        Raises:
            SettingsError: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra, which takes memory
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError as error:
            raise SettingsError("tracing_endpoint is set, but the extra `tracing` is not installed") from error
        self._resource = Resource({"service.name": MANAGER, "service.version": version})
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_SECONDS)
        self._processor = BatchSpanProcessor(exporter, max_queue_size=8192, schedule_delay_millis=1000)

    def finished(self, run: MLPerfRun, status: MLPerfRunStatus) -> None:
        """Put the run's spans in line to be sent; never waits."""
        for span in spans(run, status):
            self._processor.on_end(_readable(span, run.metadata.uid, self._resource))

    async def close(self) -> None:
        """Send what is in line, for a few seconds at most."""
        # A daemon, because the process must be able to end while an endpoint hangs.
        ending = threading.Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, SEND_SECONDS)


def _readable(span: Span, uid: str, resource: Resource) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 - as above
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags  # noqa: PLC0415

    def context(stage: str) -> SpanContext:
        flags = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(trace_id(uid), span_id(uid, stage), is_remote=False, trace_flags=flags)

    failed = span.error is not None
    return ReadableSpan(
        span.name,
        context=context(span.stage),
        parent=context("") if span.stage else None,
        resource=resource,
        attributes=span.attributes,
        status=Status(StatusCode.ERROR if failed else StatusCode.OK, span.error if failed else None),
        start_time=span.start,
        end_time=span.end,
        instrumentation_scope=InstrumentationScope(MANAGER),
    )
