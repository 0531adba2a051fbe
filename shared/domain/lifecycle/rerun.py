"""Rerun (retry of a run): builds a new execution from a finished one, with or without its completed steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.domain.bulk_action import BULK_ACTION
from shared.domain.execution import Execution, ExecutionRecord, Idempotency
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.simulator_script import delay_scripted_steps
from shared.domain.lifecycle.timings import Timings
from shared.domain.lifecycle.transitions import start
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import NotRetryable


class RetryFrom(StrEnum):
    """Where a retry of a run begins: at the failed steps, or at the start."""

    FAILED = "failed"
    START = "start"


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """The data that a retry request adds: the new execution's id, its time, the request's ids and key, and who sent it.

    ``audit`` is the new execution's event for the audit log. ``is_requeue`` says that it sends a dead letter again.
    """

    id: str
    created_at: datetime
    request_id: str
    traceparent: str | None = None
    idempotency: Idempotency | None = None
    audit: Mapping[str, str] | None = None
    is_requeue: bool = False


def check_retryable(original: Execution, start: RetryFrom) -> None:
    """Raise NotRetryable if the status of ``original`` does not allow a retry from ``start``."""
    if original.kind == BULK_ACTION:
        raise NotRetryable(f"execution {original.id} is a bulk action: send it again instead")
    if original.erased_at is not None:
        raise NotRetryable(f"the content of execution {original.id} was erased; submit its basket anew")
    if not original.is_done:
        hint = "cancel it first, or wait until it is done"
    elif original.status is ExecutionStatus.COMPLETED and start is RetryFrom.FAILED:
        hint = 'send {"from": "start"} to run all of it again'
    else:
        return
    raise NotRetryable(f"execution {original.id} is {original.status}, and cannot be retried; {hint}")


def retry_execution(
    original: ExecutionRecord, request: RetryRequest, start: RetryFrom
) -> tuple[Execution, Mapping[str, bytes]]:
    """Build the new execution that retries ``original``, and return it with the outputs that are copied into it.

    ``RetryFrom.FAILED``: the completed steps are reused with their outputs, which ``original`` must contain. Every
    step keeps the idempotency keys of the first execution, because the external effects are the same.
    ``RetryFrom.START``: nothing is reused, and the new execution has keys of its own. Deadlines and schedules belong
    to a request and are never copied. Raises NotRetryable.
    """
    source = original.execution
    check_retryable(source, start)
    reused_steps = {}
    if start is RetryFrom.FAILED:
        reused_steps = {step.id: step for step in source.steps.values() if step.status is StepStatus.COMPLETED}
    new_execution = Execution(
        id=request.id,
        integrator=source.integrator,
        basket=source.basket,
        status=ExecutionStatus.QUEUED,
        steps=reused_steps,
        created_at=request.created_at,
        request_id=request.request_id,
        input=source.input,
        input_source=source.input_source,
        kind=source.kind,
        stateful=source.stateful,
        tags=source.tags,
        metadata=source.metadata,
        reference=source.reference,
        traceparent=request.traceparent,
        idempotency=request.idempotency,
        audit=request.audit,
        retry_of=source.id,
        requeue_of=source.id if request.is_requeue else None,
        effects_of=(source.effects_of or source.id) if start is RetryFrom.FAILED else None,
    )
    return new_execution, {step_id: original.outputs[step_id] for step_id in reused_steps}


def start_retry(
    original: ExecutionRecord,
    request: RetryRequest,
    retry_from: RetryFrom,
    timings: Timings,
    reseal: Callable[[Execution], Execution] = lambda execution: execution,
) -> tuple[Decision, Mapping[str, bytes]]:
    """Return the decision that starts the retry of ``original``, and the outputs it begins with.

    The API and the command line both retry through this. ``reseal`` binds what is sealed to the new run. Raises
    NotRetryable.
    """
    execution, outputs = retry_execution(original, request, retry_from)
    return start(reseal(delay_scripted_steps(execution)), request.created_at, timings), outputs
