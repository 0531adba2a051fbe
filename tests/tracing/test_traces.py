"""Traces of a real stack, as a receiver of OTLP gets them: the tree, what is in it, and what happens without one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.api_client import AGENTS, RunClient
from tests.provider_stub import ProviderStub
from tests.stack import Stack
from tests.step_gate import step_gate
from tests.tracing.otlp_receiver import OtlpReceiver, Received
from tests.waiting import wait_until

CALLER_TRACE, CALLER_SPAN = "5" * 32, "6" * 16
MARKER = "MarkerThatNoSpanMayHold"


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def stub() -> Iterator[ProviderStub]:
    with ProviderStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], receiver: OtlpReceiver, stub: ProviderStub) -> Stack:
    return make_stack(
        BUCKET_AGENTS_DIR=str(AGENTS),
        BUCKET_OUTBOUND_HOSTS=stub.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
    )


@pytest.fixture
def runs(stack: Stack, tmp_path: Path) -> Iterator[RunClient]:
    yield RunClient(stack, tmp_path / "counted")
    stack.repair()


def submit(runs: RunClient, *steps: dict[str, Any], **headers: str) -> str:
    body = {"config": {"steps": list(steps)}, "input_data": {"note": MARKER}}
    response = requests.post(f"{runs.stack.url}/run-basket", json=body, headers=headers, timeout=10)
    assert response.status_code == 202, response.text
    return str(response.json()["execution_id"])


def wait_for_run_span(receiver: OtlpReceiver, execution_id: str) -> list[Received]:
    """Wait until the spans of a whole run have come; return the spans of its trace."""

    def has_run_span() -> bool:
        return any(span.name.startswith("run ") for span in receiver.spans_of(execution_id)) and any(
            span.kind == "SERVER" for span in receiver.spans_of(execution_id)
        )

    wait_until(has_run_span, 15, f"the run span of {execution_id} came")
    return receiver.spans_of(execution_id)


def attempts(spans: list[Received], step: str) -> list[Received]:
    found = [span for span in spans if span.name == f"step {step}"]
    return sorted(found, key=lambda span: span.attributes["bucket.attempt"])


def test_one_trace_has_the_submit_the_waits_a_retry_a_rescue_and_the_calls(
    runs: RunClient, receiver: OtlpReceiver, stub: ProviderStub, tmp_path: Path
) -> None:
    gate_path = tmp_path / "gate"
    with step_gate(gate_path):
        execution_id = submit(
            runs,
            {"id": "call", "agent": "fetcher", "input": {"url": f"{stub.url}/echo?key={MARKER}"}},
            {
                "id": "retried",
                "needs": ["call"],
                "agent": "flaky",
                "input": {"path": str(tmp_path / "tries"), "failures": 1},
            },
            {"id": "rescued", "needs": ["retried"], "agent": "counter", "input": {"file": str(gate_path)}},
            traceparent=f"00-{CALLER_TRACE}-{CALLER_SPAN}-01",
        )
        wait_until(lambda: _step(runs, execution_id, "rescued")["status"] == "running", 15)
        # What has ended is exported before the worker dies; what it has in memory dies with it.
        wait_until(lambda: len(attempts(receiver.spans(CALLER_TRACE), "retried")) == 2, 15)
        runs.stack.kill("worker")
    runs.stack.start("worker")
    assert runs.wait_done(execution_id, 30)["status"] == "completed"
    spans = wait_for_run_span(receiver, execution_id)
    wait_until(lambda: len(attempts(receiver.spans(CALLER_TRACE), "rescued")) == 2, 15)
    spans = receiver.spans(CALLER_TRACE)
    sys.stdout.write(receiver.tree(CALLER_TRACE) + "\n")

    [server] = [span for span in spans if span.kind == "SERVER"]
    [run] = [span for span in spans if span.name.startswith("run ")]
    assert (server.parent_id, run.parent_id) == (CALLER_SPAN, server.span_id)
    assert (server.service, run.attributes["bucket.status"]) == ("bucket-api", "completed")
    failed, repeated = attempts(spans, "retried")
    lost, rescued = attempts(spans, "rescued")
    assert (failed.error, lost.error, repeated.error, rescued.error) == ("agent_error", "worker_lost", "", "")
    assert repeated.links == ((CALLER_TRACE, failed.span_id),)
    assert rescued.links == ((CALLER_TRACE, lost.span_id),)
    assert (lost.service, rescued.service) == ("bucket-reconciler", "bucket-worker")
    [call] = [span for span in spans if span.kind == "CLIENT"]
    assert call.parent_id == attempts(spans, "call")[0].span_id
    assert stub.requests[-1].headers["traceparent"] == f"00-{CALLER_TRACE}-{call.span_id}-01"
    waits = {span.name for span in spans if span.name.startswith("wait ")}
    assert waits == {"wait call", "wait retried", "wait rescued"}
    assert len({span.span_id for span in spans}) == len(spans), "no span comes twice"
    assert all(span.end_ns >= span.start_ns for span in spans)
    assert not any(MARKER.encode() in raw for raw in receiver.raw), "no span holds what a caller sent"
    assert f'"trace_id":"{CALLER_TRACE}"' in runs.stack.logs("api")


def _step(runs: RunClient, execution_id: str, name: str) -> dict[str, Any]:
    steps = runs.poll(execution_id).body.get("steps", [])
    return next((step for step in steps if step["step"] == name), {"status": ""})


def test_the_log_lines_of_a_worker_bear_the_ids_of_the_attempt(runs: RunClient, receiver: OtlpReceiver) -> None:
    execution_id = submit(runs, {"id": "raises", "agent": "fetcher", "input": {"url": "http://not.listed.example/"}})
    assert runs.wait_done(execution_id)["status"] == "failed"
    spans = wait_for_run_span(receiver, execution_id)
    [attempt] = attempts(spans, "raises")
    lines = [json.loads(line) for line in runs.stack.logs("worker").splitlines() if execution_id in line]
    assert (attempt.trace_id, attempt.span_id) in {(line.get("trace_id"), line.get("span_id")) for line in lines}


def test_a_retry_of_a_run_is_linked_to_the_run(runs: RunClient, receiver: OtlpReceiver) -> None:
    first = submit(runs, {"id": "raises", "agent": "fetcher", "input": {"url": "http://not.listed.example/"}})
    runs.wait_done(first)
    [run] = [span for span in wait_for_run_span(receiver, first) if span.name.startswith("run ")]
    response = requests.post(f"{runs.stack.url}/executions/{first}/retry", timeout=10)
    assert response.status_code == 202, response.text
    spans = wait_for_run_span(receiver, response.json()["execution_id"])
    [server] = [span for span in spans if span.kind == "SERVER"]
    assert server.trace_id != run.trace_id
    assert server.links == ((run.trace_id, run.span_id),)


def test_polls_make_no_spans_and_a_caller_that_does_not_sample_gets_none(
    runs: RunClient, receiver: OtlpReceiver
) -> None:
    unsampled = "7" * 32
    quiet = submit(runs, {"id": "only", "agent": "echo"}, traceparent=f"00-{unsampled}-{CALLER_SPAN}-00")
    runs.wait_done(quiet)
    seen = submit(runs, {"id": "only", "agent": "echo"})
    runs.wait_done(seen)
    wait_for_run_span(receiver, seen)
    assert not receiver.spans(unsampled)
    assert not [span for span in receiver.spans() if span.name.startswith(("GET ", "HEAD ")) and span.kind == "SERVER"]


def test_a_receiver_that_hangs_or_is_away_slows_no_run_and_no_shutdown(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    with OtlpReceiver() as hanging:
        hanging.hangs.set()
        stack = make_stack(
            BUCKET_AGENTS_DIR=str(AGENTS),
            OTEL_EXPORTER_OTLP_ENDPOINT=hanging.url,
            OTEL_BSP_SCHEDULE_DELAY="50",
            OTEL_BSP_MAX_QUEUE_SIZE="20",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="10",
        )
        runs = RunClient(stack, tmp_path / "counted")
        ids = [runs.submit().body["execution_id"] for _ in range(20)]
        assert {each["status"] for each in runs.wait_all_done(ids, 30)} == {"completed"}
        assert hanging.has_hung.wait(10)
        wait_until(lambda: "spans are dropped" in stack.logs("worker"), 20)
        begun_at = time.monotonic()
        stack.stop("worker")
        assert time.monotonic() - begun_at < 8
        stack.start("worker", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
        ids = [runs.submit().body["execution_id"] for _ in range(5)]
        assert {each["status"] for each in runs.wait_all_done(ids, 30)} == {"completed"}


@pytest.mark.parametrize("module", ["api.wsgi", "worker.app", "worker.reconciler"])
def test_without_its_settings_nothing_of_opentelemetry_is_imported(module: str) -> None:
    # redis-py itself imports the metrics part of OpenTelemetry wherever that is installed; Bucket adds nothing to it.
    program = (
        "import api.cooperative, redis, sys\nbefore = set(sys.modules)\n"
        f"import {module}\n"
        "print([name for name in set(sys.modules) - before if name.startswith(('opentelemetry', 'google.protobuf'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_missing_extra_is_named_and_tracing_is_off() -> None:
    program = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "from shared.telemetry.tracing.tracer import open_tracer\n"
        "print(open_tracer('worker', {'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "packages of the extra otel" in done.stdout
    assert done.stdout.splitlines()[-1] == "None"
