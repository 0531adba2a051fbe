"""The seam of tracing: what is hostile or broken costs a span at most, never a request, a run, or others' spans."""

from __future__ import annotations

from collections.abc import Mapping

import flask
import httpx2
import pytest

from api.http.middleware import RequestHooks
from api.tracing.request_spans import install
from shared.settings import Settings
from shared.telemetry.tracing.run_spans import SpanFacts
from shared.telemetry.tracing.trace_context import TraceContext, parse_traceparent
from shared.telemetry.tracing.tracer import Tracer
from tests.builders import accept_decision, claim_decision


class BrokenSink:
    """Fails at everything, as the SDK does with settings that contradict each other."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def is_sampled(self, trace_id: int, parent: TraceContext | None) -> bool:
        return trace_id > 0 and parent is None

    def emit(self, span: SpanFacts) -> None:
        self.asked.append(span.name)
        raise ValueError(span.name)

    def start(self) -> None:
        raise ValueError("start")

    def close(self, within_s: float) -> None:
        raise AssertionError(within_s)


@pytest.mark.parametrize(
    "header",
    [
        None, "", "no", f"00-{'f' * 40}-{'a' * 16}-01", f"00-{'f' * 32}-{'a' * 24}-01", f"00-{'0' * 32}-{'a' * 16}-01",
        f"00-{'f' * 32}-{'0' * 16}-01", f"ff-{'f' * 32}-{'a' * 16}-01", f"00-{'f' * 32}-{'a' * 16}-1_1",
    ],
)  # fmt: skip
def test_only_a_valid_traceparent_is_one(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_ids_of_a_traceparent_fit_their_fields() -> None:
    context = parse_traceparent(f"00-{'f' * 32}-{'a' * 16}-00")
    assert context == TraceContext(2**128 - 1, int("a" * 16, 16), is_sampled=False)


def test_a_broken_exporter_costs_spans_alone() -> None:
    sink = BrokenSink()
    tracer = Tracer(sink)
    tracer.start()
    tracer.begin_request(None).end("POST", "/run-basket", 202, None)
    execution = claim_decision(accept_decision("echo").execution, "echo").execution
    step = execution.steps["echo"]
    assert set(tracer.begin_attempt(execution, step)) == {"trace_id", "span_id"}
    request = httpx2.Request("GET", "http://provider.example/")
    tracer.attempt(execution, step).begin_call(request, "provider.example")(200, "")
    assert sink.asked == ["POST /run-basket", "wait echo", "GET provider.example"]


def test_a_redirect_of_the_dashboard_is_no_execution_id() -> None:
    sink = BrokenSink()
    attributes: list[Mapping[str, str | int]] = []
    sink.emit = lambda span: attributes.append(span.attributes)  # type: ignore[method-assign]
    app = flask.Flask(__name__)
    install(RequestHooks(app, Settings()), Tracer(sink))
    app.add_url_rule("/ui/runs", view_func=lambda: flask.redirect("/ui/runs?reference=of-a-patient"), methods=["POST"])
    assert app.test_client().post("/ui/runs").status_code == 302
    [span] = attributes
    assert span["http.route"] == "/ui/runs"
    assert "bucket.execution_id" not in span
