"""A receiver of OTLP over HTTP for tests: decodes the real protobuf, keeps the raw bytes, prints traces as trees."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan


@dataclass(frozen=True, slots=True)
class Received:
    """One span as it was received."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    error: str
    links: tuple[tuple[str, str], ...]


class OtlpReceiver:
    """A receiver on a port of its own; while ``hangs`` is set it takes requests and does not reply."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self._spans: list[Received] = []
        self.hangs = threading.Event()
        self.has_hung = threading.Event()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def spans(self, trace_id: str | None = None) -> list[Received]:
        """Return the spans of a trace, or all, in the order of their starts."""
        found = [span for span in tuple(self._spans) if trace_id in {None, span.trace_id}]
        return sorted(found, key=lambda span: span.start_ns)

    def spans_of(self, execution_id: str) -> list[Received]:
        """Return the spans of the trace of a run."""
        traces = {span.trace_id for span in self.spans() if span.attributes.get("bucket.execution_id") == execution_id}
        return [span for span in self.spans() if span.trace_id in traces]

    def tree(self, trace_id: str) -> str:
        """Return a trace as a tree, one line for each span."""
        spans = self.spans(trace_id)
        by_id = {span.span_id: span for span in spans}
        began_ns = spans[0].start_ns
        lines: list[str] = []

        def add(span: Received, depth: int) -> None:
            facts = [f"{(span.start_ns - began_ns) / 1e6:.0f}..{(span.end_ns - began_ns) / 1e6:.0f} ms", span.service]
            if "bucket.attempt" in span.attributes and span.name.startswith("step "):
                facts.append(f"attempt {span.attributes['bucket.attempt']}")
            facts += [f"error {span.error}"] if span.error else []
            for _, linked in span.links:
                linked_to = by_id.get(linked)
                attempt = "" if linked_to is None else f" attempt {linked_to.attributes.get('bucket.attempt')}"
                facts.append(f"linked to {linked_to.name if linked_to else 'another trace'}{attempt}")
            lines.append(f"{'  ' * depth}{span.name} ({span.kind}; {', '.join(facts)})")
            for child in (each for each in spans if each.parent_id == span.span_id):
                add(child, depth + 1)

        for root in (span for span in spans if span.parent_id not in by_id):
            add(root, 0)
        return "\n".join(lines)

    def _take(self, body: bytes) -> None:
        self.raw.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource_spans in request.resource_spans:
            names = {pair.key: pair.value.string_value for pair in resource_spans.resource.attributes}
            for scope_spans in resource_spans.scope_spans:
                self._spans += [_received(names.get("service.name", ""), span) for span in scope_spans.spans]

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if receiver.hangs.is_set():
                    receiver.has_hung.set()
                    receiver._released.wait()
                    return
                receiver._take(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _received(service: str, span: Any) -> Received:
    attributes = {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}
    return Received(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=attributes,
        error=span.status.message,
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )
