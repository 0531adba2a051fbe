"""Renders the view (materialised view, read model) of an execution: JSON bytes without the closing brace.

Each poll appends the fields that change between two writes, such as the hints, and the brace. The first five fields
are always present and in this order, so that :func:`parse_header` reads them without parsing the rest. The status
view comes before all fields that can be large, so that it can be cut out of a view without parsing it either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from shared.domain.definitions.basket import PARALLEL, SEQUENTIAL
from shared.domain.execution import (
    NEWEST_LOG_LINES,
    CancelOutcome,
    Execution,
    ExecutionRecord,
    LogEvent,
    LogPageQuery,
    Step,
)
from shared.domain.status import ExecutionStatus, StepStatus
from shared.live.view_trailer import encode_trailer, trailer_of
from shared.timestamps import format_rfc3339

OUTPUT_INLINE_MAX_BYTES: Final = 256 * 1024

_HEAD: Final = re.compile(
    rb'\{"execution_id":"([^"]*)","basket_name":"[^"]*","status":"([a-z]+)","done":(true|false),"rev":([0-9]+)'
)


@dataclass(frozen=True, slots=True)
class ViewHeader:
    """The first fields of a rendered view."""

    execution_id: str
    status: str
    is_done: bool
    rev: int


def parse_header(view: bytes) -> ViewHeader:
    """Parse the first fields of a rendered view; raises ValueError if ``view`` is not one."""
    match = _HEAD.match(view)
    if match is None:
        raise ValueError("this is no rendered poll")
    return ViewHeader(match[1].decode(), match[2].decode(), match[3] == b"true", int(match[4]))


def render(record: ExecutionRecord, page: LogPageQuery = NEWEST_LOG_LINES) -> bytes | None:
    """Render the view of ``record`` with its trailer; None if ``record`` lacks an output that the result needs."""
    execution = record.execution
    result = render_result(record)
    if result is None:
        return None
    lines, first = _lines(record, page)
    view = _status(execution) | {
        "steps": [_step(step) for step in execution.steps.values()],
        "result": orjson.Fragment(result),
        "outputs": _outputs(record),
        "logs": [_line(execution.id, seq, event) for seq, event in enumerate(lines, first)],
        "count": len(lines),
        "total": record.lines_total,
        "next_after": first + len(lines) - 1,
        "first_seq": record.first_seq,
        "logs_dropped": record.first_seq - 1,
        "metadata": orjson.Fragment(execution.metadata),
        "input_source": execution.input_source,
        "cancel": _cancel(execution),
        "execution_metadata": execution.basket.metadata_of(execution.id),
        "request_id": execution.request_id,
    }
    if execution.traceparent is not None:
        view["traceparent"] = execution.traceparent
    if page.after is not None:
        view["gap"] = page.after + 1 < record.first_seq
    return orjson.dumps(view)[:-1] + encode_trailer(trailer_of(execution))


def render_status(execution: Execution) -> bytes:
    """Render the status view: the fields of a view before its steps, and so no field that can be large."""
    return orjson.dumps(_status(execution))[:-1] + encode_trailer(trailer_of(execution))


def _status(execution: Execution) -> dict[str, Any]:
    reference = {} if execution.reference is None else {"reference": execution.reference}
    erased = {} if execution.erased_at is None else {"erased_at": format_rfc3339(execution.erased_at)}
    return {
        "execution_id": execution.id,
        "basket_name": execution.basket.name,
        "status": execution.status,
        "done": execution.is_done,
        "rev": execution.rev,
        "progress": _progress(execution),
        "current_step": _current_step(execution),
        "error": execution.error,
        "tags": execution.tags,
        "retry_of": execution.retry_of,
        "created_at": format_rfc3339(execution.created_at),
        "queued_at": format_rfc3339(execution.queued_at),
        "started_at": format_rfc3339(execution.started_at),
        "finished_at": format_rfc3339(execution.finished_at),
        **reference,
        **erased,
    }


def render_log_line(execution_id: str, seq: int, event: LogEvent) -> bytes:
    """Render one log line as JSON."""
    return orjson.dumps(_line(execution_id, seq, event))


def _line(execution_id: str, seq: int, event: LogEvent) -> dict[str, Any]:
    return {
        "seq": seq,
        "execution_id": execution_id,
        "agent_name": event.agent,
        "step": event.step,
        "event": event.event,
        "level": event.level,
        "message": event.message,
        "timestamp": format_rfc3339(event.at),
        "status": event.status,
        "data": orjson.Fragment(event.data),
    }


def _lines(record: ExecutionRecord, page: LogPageQuery) -> tuple[tuple[LogEvent, ...], int]:
    """Return the log lines of a page, and the ``seq`` of the first of them."""
    paged = record.with_log_page(page)
    # A page after the end returns the client's own cursor, so that the client can send the same request again.
    beyond = page.after is not None and not paged.events
    return paged.events, (page.after or 0) + 1 if beyond else paged.events_first_seq


def _progress(execution: Execution) -> dict[str, Any]:
    steps = execution.steps.values()
    completed = sum(step.status is StepStatus.COMPLETED for step in steps)
    # Also of steps that wait for another attempt or have failed: progress never goes back.
    begun_percent = sum(step.percent or 0 for step in steps if step.status is not StepStatus.COMPLETED)
    message = next((step.message for step in steps if step.status is StepStatus.RUNNING and step.message), None)
    return {
        "percent": (100 * completed + begun_percent) // max(len(steps), 1),
        "steps_total": len(steps),
        "steps_completed": completed,
        "message": message,
    }


def _current_step(execution: Execution) -> dict[str, Any] | None:
    for step in execution.steps.values():
        if step.status is StepStatus.RUNNING:
            return {"step": step.id, "agent": step.agent, "attempt": step.claims}
    return None


def _step(step: Step) -> dict[str, Any]:
    return {
        "step": step.id,
        "agent": step.agent,
        "status": step.status,
        "attempts": step.claims,
        "duration_ms": step.duration_ms,
    }


def result_steps(execution: Execution) -> tuple[str, ...]:
    """Return the ids of the steps whose outputs are the result of a completed run; none for any other run."""
    if execution.status is not ExecutionStatus.COMPLETED or execution.erased_at is not None:
        return ()
    if execution.basket.strategy == PARALLEL:
        return tuple(execution.steps)
    return execution.basket.terminal_steps


def render_result(record: ExecutionRecord) -> bytes | None:
    """Return the result as JSON; None if the record lacks an output of it, because that is stored externally."""
    step_ids = result_steps(record.execution)
    if not step_ids:
        return b"null"
    if any(step not in record.outputs for step in step_ids):
        return None
    if record.execution.basket.strategy == SEQUENTIAL:
        return record.outputs[step_ids[0]]
    return orjson.dumps({step: orjson.Fragment(record.outputs[step]) for step in step_ids})


def _cancel(execution: Execution) -> dict[str, Any] | None:
    request = execution.cancel
    if request is None:
        return None
    outcome = CancelOutcome.ALREADY_FINAL if execution.is_done else CancelOutcome.PENDING
    if execution.status is ExecutionStatus.CANCELLED:
        outcome = CancelOutcome.APPLIED
    return {"requested_at": format_rfc3339(request.requested_at), "reason": request.reason, "outcome": outcome}


def _outputs(record: ExecutionRecord) -> Mapping[str, Any]:
    """Return the output of each completed step, or the address of an output that is omitted."""
    outputs: dict[str, Any] = {}
    for step in record.execution.steps.values():
        if step.output_bytes is None:
            continue
        output = record.outputs.get(step.id)
        if output is None or step.output_bytes > OUTPUT_INLINE_MAX_BYTES:
            url = f"/executions/{record.execution.id}/outputs/{step.id}"
            outputs[step.id] = {"omitted": True, "bytes": step.output_bytes, "url": url}
        else:
            outputs[step.id] = orjson.Fragment(output)
    return outputs
