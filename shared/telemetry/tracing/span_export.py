"""Exports spans by OTLP over HTTP with the OpenTelemetry SDK; the only module that imports OpenTelemetry.

The SDK's own environment variables configure it (docs/tracing.md). Each process has its own queue and thread, which
start after the fork. A receiver that is away costs spans, which are counted, and no run waits for it.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, _get_from_env_or_default
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from shared.telemetry.tracing.run_spans import SpanFacts
from shared.telemetry.tracing.trace_context import TraceContext

QUEUED_MAX: Final = 2048
BATCH_MAX: Final = 512
EXPORT_TIMEOUT_S: Final = 3.0
WARN_EVERY_S: Final = 60.0
_TIMEOUT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
_BATCH_VARIABLE: Final = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_SCOPE: Final = InstrumentationScope("bucket")
_UNSET: Final = Status(StatusCode.UNSET)
_KINDS: Final = {kind.name: kind for kind in SpanKind}
_FLAGS: Final = {False: TraceFlags(0), True: TraceFlags(1)}


class _CountingExporter(SpanExporter):
    """The OTLP exporter, which says how many spans it has finished with, and counts those that got lost."""

    def __init__(self) -> None:
        has_own_timeout = any(os.environ.get(name) for name in _TIMEOUT_VARIABLES)
        self._exporter = OTLPSpanExporter(timeout=None if has_own_timeout else EXPORT_TIMEOUT_S)
        self._warned_at = -WARN_EVERY_S
        self.finished = 0
        self.dropped = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans; what the receiver does not take is dropped."""
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self.finished += len(spans)
            if result is not SpanExportResult.SUCCESS:
                self.drop(len(spans))
        return result

    def drop(self, spans: int) -> None:
        """Count dropped spans; they are logged once a minute."""
        self.dropped += spans
        now = time.monotonic()
        if now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            structlog.get_logger().warning(
                "spans are dropped: the receiver of OTEL_EXPORTER_OTLP_ENDPOINT does not take them",
                dropped_spans=self.dropped,
            )

    def shutdown(self) -> None:
        """End repeats of a request that failed."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class _Pipeline:
    """The queue and the thread of one process."""

    def __init__(self, queued_max: int) -> None:
        self.pid = os.getpid()
        self.exporter = _CountingExporter()
        # The SDK's own 512 are refused beside a smaller queue.
        batch_max = None if os.environ.get(_BATCH_VARIABLE) else min(BATCH_MAX, queued_max)
        self.processor = BatchSpanProcessor(self.exporter, max_export_batch_size=batch_max)
        self.queued = 0


class _FixedResource(Resource):
    """A resource that never changes: the exporter asks for its hash at each span, and the SDK makes that of JSON."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class OtlpSink:
    """Queues spans for the exporter's thread of this process."""

    def __init__(self, role: str) -> None:
        names = os.environ.get("OTEL_SERVICE_NAME") or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        self._resource = _FixedResource(Resource.create({} if names else {"service.name": f"bucket-{role}"}))
        self._sampler = _get_from_env_or_default()
        self._queued_max = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or QUEUED_MAX)
        self._lock = threading.Lock()
        self._pipeline: _Pipeline | None = None
        # Its warnings repeat for each batch; ours has the number of dropped spans.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def is_sampled(self, trace_id: int, parent: TraceContext | None) -> bool:
        """Return the decision of the sampler, which is the same in each process."""
        context = None if parent is None else set_span_in_context(NonRecordingSpan(_span_context(parent)))
        result = self._sampler.should_sample(context, trace_id, "run")
        return result.decision is Decision.RECORD_AND_SAMPLE

    def start(self) -> None:
        """Start the thread of this process; a fork copies none."""
        self._own_pipeline()

    def emit(self, span: SpanFacts) -> None:
        """Queue a span; drop and count it if the queue is full."""
        pipeline = self._own_pipeline()
        if pipeline.queued - pipeline.exporter.finished >= self._queued_max:
            pipeline.exporter.drop(1)
            return
        pipeline.queued += 1
        pipeline.processor.on_end(self._readable(span))

    def close(self, within_s: float) -> None:
        """Export what is queued, for at most ``within_s``: the SDK itself would wait for 30 s."""
        pipeline = self._pipeline
        if pipeline is None or pipeline.pid != os.getpid():
            return
        ending = threading.Thread(target=pipeline.processor.shutdown, name="otel-shutdown", daemon=True)
        ending.start()
        ending.join(within_s)

    def _own_pipeline(self) -> _Pipeline:
        pipeline = self._pipeline
        if pipeline is None or pipeline.pid != os.getpid():
            with self._lock:
                pipeline = self._pipeline
                if pipeline is None or pipeline.pid != os.getpid():
                    pipeline = self._pipeline = _Pipeline(self._queued_max)
                    atexit.register(self.close, 1.0)
        return pipeline

    def _readable(self, span: SpanFacts) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            context=_span_context(span.context),
            parent=None if span.parent is None else _span_context(span.parent),
            resource=self._resource,
            attributes=dict(span.attributes) | ({"error.type": span.error} if span.error else {}),
            links=tuple(Link(_span_context(link)) for link in span.links),
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error else _UNSET,
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=_SCOPE,
        )


@lru_cache(maxsize=1_024)  # that of a run is also the parent of all its spans
def _span_context(context: TraceContext) -> SpanContext:
    return SpanContext(context.trace_id, context.span_id, is_remote=False, trace_flags=_FLAGS[context.is_sampled])
