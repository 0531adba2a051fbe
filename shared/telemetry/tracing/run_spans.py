"""Decides which spans of a run end with a saved decision, from what is stored alone: pure, and without OpenTelemetry.

Whoever saves the end of an attempt exports its span: the worker, the reconciler that rescues a step of a killed worker,
or the API that cancels a run. So each attempt has one span. Attributes are ids, names and error codes, never content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import orjson

from shared.domain.execution import Execution, ExecutionRecord, LogEvent, Step
from shared.domain.lifecycle.decision import Decision
from shared.telemetry.tracing.trace_context import TraceContext, attempt_span_id, run_span_id, wait_span_id

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# The log line that ends an attempt, and the error of its span if the line has no code; "" if it is no error.
_ATTEMPT_ENDS: Final[Mapping[str, str]] = {
    "step.completed": "",
    "step.released": "",
    "step.cancelled": "cancelled",
    "step.retrying": "error",
    "step.failed": "error",
    "step.worker_lost": "worker_lost",
}
_RUN_ENDS: Final = frozenset({"execution.completed", "execution.failed", "execution.cancelled"})


class SpanFacts(NamedTuple):
    """A span that has ended; times are in nanoseconds since 1970, ``error`` is a code, ``links`` are earlier spans."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, str | int]
    kind: str = "INTERNAL"
    error: str = ""
    links: tuple[TraceContext, ...] = ()


def _run_attributes(execution: Execution) -> dict[str, str | int]:
    return {
        "bucket.execution_id": execution.id,
        "bucket.basket": execution.basket.name,
        "bucket.integrator": execution.integrator,
    }


def wait_span(execution: Execution, step: Step, trace: TraceContext) -> SpanFacts | None:
    """Return the span of the wait in the queue of a step that was just claimed; None if its worker went on with it."""
    if step.offered_at is None or step.started_at is None:
        return None
    start_ns = epoch_ns(step.offered_at)
    return SpanFacts(
        f"wait {step.id}",
        trace.child(wait_span_id(execution.id, step.id, step.claims)),
        trace.child(run_span_id(execution.id)),
        start_ns,
        max(start_ns, epoch_ns(step.started_at)),
        {  # few: each costs 3 µs to encode, and the spans of the run and its attempts have the others
            "bucket.step": step.id,
            "bucket.attempt": step.claims,
            "bucket.queue": execution.basket.step(step.id).queue,
            "bucket.offers": step.offers,
        },
    )


def ended_spans(
    record: ExecutionRecord, decision: Decision, trace: TraceContext, parent: TraceContext | None
) -> list[SpanFacts]:
    """Return the spans that end with ``decision``, which was saved as ``record``.

    ``trace`` is any context of the run's trace, ``parent`` the span that the run was submitted in.
    """
    execution = record.execution
    spans = [
        _attempt_span(record, event, trace, facts)
        for event in decision.events
        if event.step in execution.steps and event.event in _ATTEMPT_ENDS and (facts := _facts_of(event))
    ]
    if execution.is_done:
        spans += _expired_attempts(execution, decision, trace)
        if (ended := next((each for each in decision.events if each.event in _RUN_ENDS), None)) is not None:
            spans.append(_run_span(execution, ended, trace, parent))
    return spans


def _run_span(execution: Execution, ended: LogEvent, trace: TraceContext, parent: TraceContext | None) -> SpanFacts:
    attributes = _run_attributes(execution) | {"bucket.status": str(execution.status)}
    if execution.retry_of:
        attributes["bucket.retry_of"] = execution.retry_of
    start_ns = epoch_ns(execution.created_at)
    return SpanFacts(
        f"run {execution.basket.name}",
        trace.child(run_span_id(execution.id)),
        parent,
        start_ns,
        max(start_ns, epoch_ns(ended.at)),
        attributes,
        error="" if execution.error is None else execution.error.error_code,
    )


def _attempt_span(
    record: ExecutionRecord, ended: LogEvent, trace: TraceContext, facts: Mapping[str, str | int]
) -> SpanFacts:
    execution, step = record.execution, record.execution.steps[str(ended.step)]
    claim, code = int(facts["attempt"]), str(facts.get("error_code") or _ATTEMPT_ENDS[ended.event])
    end_ns = epoch_ns(ended.at)
    start_ns = _start_ns(record, step, claim, end_ns)
    return _span_of_attempt((execution, step, claim), trace, code, start_ns, end_ns)


def _expired_attempts(execution: Execution, decision: Decision, trace: TraceContext) -> Iterable[SpanFacts]:
    """Yield the attempts that a deadline of the run has ended: they have no log line of their own."""
    told = {event.step for event in decision.events if event.event in _ATTEMPT_ENDS}
    for step in execution.steps.values():
        if step.error is None or step.error.error_code != "deadline_exceeded" or step.id in told:
            continue
        if step.started_at is not None and step.finished_at is not None:
            times = (epoch_ns(step.started_at), epoch_ns(step.finished_at))
            yield _span_of_attempt((execution, step, step.claims), trace, step.error.error_code, *times)


def _span_of_attempt(
    attempt: tuple[Execution, Step, int], trace: TraceContext, error: str, start_ns: int, end_ns: int
) -> SpanFacts:
    execution, step, claim = attempt
    return SpanFacts(
        f"step {step.id}",
        trace.child(attempt_span_id(execution.id, step.id, claim)),
        trace.child(run_span_id(execution.id)),
        start_ns,
        max(start_ns, end_ns),
        attempt_attributes(execution, step, claim),
        error=error,
        links=(trace.child(attempt_span_id(execution.id, step.id, claim - 1)),) if claim > 1 else (),
    )


def attempt_attributes(execution: Execution, step: Step, claim: int) -> dict[str, str | int]:
    """Return the attributes of one attempt of a step; few, because each costs 3 µs to encode."""
    return {
        "bucket.execution_id": execution.id,
        "bucket.step": step.id,
        "bucket.agent": step.agent,
        "bucket.attempt": claim,
    }


def _start_ns(record: ExecutionRecord, step: Step, claim: int, end_ns: int) -> int:
    """Return when an attempt began: by its step, or, once that has moved on, by the log line of its claim."""
    if step.claims == claim and step.started_at is not None:
        return epoch_ns(step.started_at)
    for event in reversed(record.events):
        if event.event == "step.started" and event.step == step.id and _facts_of(event).get("attempt") == claim:
            return epoch_ns(event.at)
    return end_ns  # its line was dropped: the agent wrote very many since


def _facts_of(event: LogEvent) -> Mapping[str, str | int]:
    """Return the facts of one of the engine's own log lines; empty for a line of another form."""
    try:
        facts = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return {}
    return facts if isinstance(facts, dict) and isinstance(facts.get("attempt"), int) else {}


def epoch_ns(moment: datetime) -> int:
    """Return a time in nanoseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND * 1_000
