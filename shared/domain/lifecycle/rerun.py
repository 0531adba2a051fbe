"""A retry: what of a run that is over goes into the new execution that is made in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.domain.execution import Execution, ExecutionRecord, Idempotency
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import NotRetryable


class RetryFrom(StrEnum):
    """Where a retry begins."""

    FAILED = "failed"
    START = "start"


_RETRYABLE: Mapping[RetryFrom, frozenset[ExecutionStatus]] = {
    RetryFrom.FAILED: frozenset({ExecutionStatus.FAILED, ExecutionStatus.CANCELLED}),
    RetryFrom.START: frozenset({ExecutionStatus.FAILED, ExecutionStatus.CANCELLED, ExecutionStatus.COMPLETED}),
}


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """What the request for a retry brings along: the new execution's own id, moment and names."""

    id: str
    at: datetime
    request_id: str
    traceparent: str | None = None
    idempotency: Idempotency | None = None


def check_retryable(original: Execution, start: RetryFrom) -> None:
    """Raise NotRetryable where ``original`` is not in a status that can be retried from there."""
    if original.status in _RETRYABLE[start]:
        return
    if not original.is_done:
        hint = "cancel it first, or wait until it is done"
    elif original.status is ExecutionStatus.COMPLETED:
        hint = 'send {"from": "start"} to run all of it again'
    else:
        hint = "run its basket anew"
    raise NotRetryable(f"execution {original.id} is {original.status}, and cannot be retried; {hint}")


def retry_execution(
    original: ExecutionRecord, request: RetryRequest, start: RetryFrom
) -> tuple[Execution, Mapping[str, bytes]]:
    """Answer the blank execution that retries ``original``, and the outputs that are copied into it.

    From what failed: the completed steps are taken over with their outputs, which ``original`` must bear, and every
    step keeps the idempotency keys of the first execution, for the effects outside are still the same. From the
    start: nothing is taken over and its keys are its own. Deadlines and schedules are those of a request and are
    never copied. Raises NotRetryable.
    """
    before = original.execution
    check_retryable(before, start)
    taken = {}
    if start is RetryFrom.FAILED:
        taken = {step.id: step for step in before.steps.values() if step.status is StepStatus.COMPLETED}
    blank = Execution(
        id=request.id,
        integrator=before.integrator,
        basket=before.basket,
        status=ExecutionStatus.QUEUED,
        steps=taken,
        created_at=request.at,
        request_id=request.request_id,
        input=before.input,
        input_source=before.input_source,
        kind=before.kind,
        stateful=before.stateful,
        tags=before.tags,
        metadata=before.metadata,
        traceparent=request.traceparent,
        idempotency=request.idempotency,
        retry_of=before.id,
        effects_of=(before.effects_of or before.id) if start is RetryFrom.FAILED else None,
    )
    return blank, {step_id: original.outputs[step_id] for step_id in taken}
