"""The seam of tracing: other packages hold a ``Tracer`` or None, and None costs one comparison.

No method raises, and none waits for the receiver of the spans (docs/tracing.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import structlog

from shared.domain.execution import Execution, ExecutionRecord, Step
from shared.domain.lifecycle.decision import Decision
from shared.telemetry.tracing.run_spans import SpanFacts, attempt_attributes, ended_spans, wait_span
from shared.telemetry.tracing.trace_context import (
    TraceContext,
    attempt_span_id,
    derived_trace_id,
    new_span_id,
    new_trace_id,
    parse_traceparent,
    run_span_id,
)

ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRACED_ROLES: Final = frozenset({"api", "worker", "reconciler"})
_FIRST_SERVER_FAULT: Final = 500
_TRACES_CACHED: Final = 256
_P = ParamSpec("_P")
_T = TypeVar("_T")


class SpanSink(Protocol):
    """Where spans go: it queues them for the exporter's thread, and decides which traces are sampled."""

    def is_sampled(self, trace_id: int, parent: TraceContext | None) -> bool:
        """Return whether the spans of a trace are exported."""

    def emit(self, span: SpanFacts) -> None:
        """Queue a span; drop and count it if the queue is full."""

    def start(self) -> None:
        """Start the exporter's thread of this process, if it does not run yet."""

    def close(self, within_s: float) -> None:
        """Export what is queued, for at most ``within_s``."""


def open_tracer(role: str, environ: Mapping[str, str]) -> Tracer | None:
    """Return the tracer of a process; None if tracing is off, as it is without an endpoint to export to."""
    if role not in _TRACED_ROLES or not any(environ.get(name) for name in ENDPOINT_VARIABLES):
        return None
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    try:
        from shared.telemetry.tracing.span_export import OtlpSink  # imports OpenTelemetry: only if it is used
    except ImportError as error:
        structlog.get_logger().warning(
            "tracing is off: OTEL_EXPORTER_OTLP_ENDPOINT is set, but the packages of the extra otel are not installed",
            reason=str(error),
        )
        return None
    return Tracer(OtlpSink(role))


class Tracer:
    """Makes the spans of one process."""

    def __init__(self, sink: SpanSink) -> None:
        self._sink = sink
        # A run asks several times: at its claim, for its calls, and when its end is saved.
        self._cached_trace = lru_cache(maxsize=_TRACES_CACHED)(self._new_trace)

    def start(self) -> None:
        """Start the exporter's thread; call it after the fork, before agents run."""
        _guarded(self._sink.start)

    def close(self, within_s: float = 1.0) -> None:
        """Export what is queued before the process ends, for at most ``within_s``."""
        self._sink.close(within_s)

    def saved(self, record: ExecutionRecord, decision: Decision) -> None:
        """Export the spans that end with a saved decision."""
        if not decision.events:
            return

        def emit() -> None:
            trace, parent = self._cached_trace(record.execution.id, record.execution.traceparent)
            if trace.is_sampled:
                for span in ended_spans(record, decision, trace, parent):
                    self._sink.emit(span)

        _guarded(emit)

    def begin_attempt(self, execution: Execution, step: Step) -> dict[str, str]:
        """Export the wait of a step that was claimed, and return the fields of the attempt's log lines."""
        trace = self._trace_of(execution)
        if trace.is_sampled:
            span = _guarded(wait_span, execution, step, trace)
            if span is not None:
                _guarded(self._sink.emit, span)
        return trace.child(attempt_span_id(execution.id, step.id, step.claims)).log_fields

    def attempt(self, execution: Execution, step: Step) -> AttemptTrace:
        """Return what the calls of a claimed step need."""
        context = self._trace_of(execution).child(attempt_span_id(execution.id, step.id, step.claims))
        return AttemptTrace(self._sink, context, attempt_attributes(execution, step, step.claims))

    def begin_request(self, traceparent: str | None) -> RequestTrace:
        """Begin the span of a request; the caller's ``traceparent`` is its parent."""
        parent = parse_traceparent(traceparent)
        trace_id = new_trace_id() if parent is None else parent.trace_id
        context = TraceContext(trace_id, new_span_id(), self._sink.is_sampled(trace_id, parent))
        return RequestTrace(self._sink, context, parent)

    def run_context(self, execution: Execution) -> TraceContext:
        """Return the context of the span of a whole run."""
        return self._trace_of(execution).child(run_span_id(execution.id))

    def _trace_of(self, execution: Execution) -> TraceContext:
        return self._cached_trace(execution.id, execution.traceparent)[0]

    def _new_trace(self, execution_id: str, traceparent: str | None) -> tuple[TraceContext, TraceContext | None]:
        parent = parse_traceparent(traceparent)
        if parent is not None:  # the API has decided, and stored that with the run
            return parent, parent
        trace_id = derived_trace_id(execution_id)
        return TraceContext(trace_id, 0, self._sink.is_sampled(trace_id, None)), None


class RequestTrace:
    """The span of one request to the API (SERVER)."""

    def __init__(self, sink: SpanSink, context: TraceContext, parent: TraceContext | None) -> None:
        self._sink, self._parent = sink, parent
        self.context = context
        self._start_ns = time.time_ns()

    def end(
        self, method: str, route: str, status: int, execution_id: str | None, links: tuple[TraceContext, ...] = ()
    ) -> None:
        """Export the span; ``links`` are the spans of runs that the request continues."""
        if not self.context.is_sampled:
            return
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        }
        if execution_id:
            attributes["bucket.execution_id"] = execution_id
        error = str(status) if status >= _FIRST_SERVER_FAULT else ""
        name = f"{method} {route}"
        times = (self._start_ns, max(self._start_ns, time.time_ns()))
        facts = SpanFacts(name, self.context, self._parent, *times, attributes, "SERVER", error=error, links=links)
        _guarded(self._sink.emit, facts)


class AttemptTrace:
    """One attempt of a step: the parent of its calls."""

    def __init__(self, sink: SpanSink, context: TraceContext, attributes: Mapping[str, str | int]) -> None:
        self._sink, self._attributes = sink, attributes
        self.context = context

    def begin_call(self, request: Any, provider: str) -> Callable[[int | None, str], None]:
        """Begin the span of one HTTP request (CLIENT) and pass it on in ``traceparent``, unless the agent sets its own.

        Call what is returned at the end, with the status of the response and the kind of the error.
        """
        context, start_ns = self.context.child(new_span_id()), time.time_ns()
        if request.headers.get("traceparent") == self.context.traceparent:
            request.headers["traceparent"] = context.traceparent

        def end(status: int | None, error: str) -> None:
            # The header again names the attempt: a repeat of this request gets a span of its own.
            if request.headers.get("traceparent") == context.traceparent:
                request.headers["traceparent"] = self.context.traceparent
            if not context.is_sampled:
                return
            attributes: dict[str, str | int] = {
                **self._attributes,
                "http.request.method": request.method,
                "server.address": request.url.host,
                "server.port": request.url.port or (443 if request.url.scheme == "https" else 80),
            }
            if status is not None:
                attributes["http.response.status_code"] = status
            times = (start_ns, max(start_ns, time.time_ns()))
            name = f"{request.method} {provider}"
            _guarded(self._sink.emit, SpanFacts(name, context, self.context, *times, attributes, "CLIENT", error=error))

        return end


def _guarded(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
    """Call ``work``; log what it raises: tracing never breaks a run."""
    try:
        return work(*args, **kwargs)
    except Exception:  # noqa: BLE001  (logged; the run is more important than its trace)
        structlog.get_logger().exception("a span was lost")
        return None
