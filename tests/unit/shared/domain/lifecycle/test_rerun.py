"""Retry of a run: finished steps are reused, all others start anew, with the idempotency keys of the first run."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from shared.domain.execution import CancelRequest, ErrorKind, Execution, ExecutionRecord, Idempotency, RunError
from shared.domain.lifecycle.decision import StepOutput
from shared.domain.lifecycle.rerun import RetryFrom, RetryRequest, retry_execution
from shared.domain.lifecycle.transitions import complete, fail, start
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import NotRetryable
from tests.builders import NOON, SECOND, TIMINGS, accept_decision, claim_decision

LATER = NOON + timedelta(hours=1)
REQUEST = RetryRequest("1763700000_00000000000000aa", LATER, "req-retry", "00-trace", Idempotency("key", "print"))


def failed(*, error_at: str = "b", **changes: object) -> ExecutionRecord:
    """Return a chain of three steps whose first is completed and whose second has failed."""
    run = accept_decision("a", "b", "c", **changes).execution
    for step in ("a", "b"):
        run = claim_decision(run, step).execution
        lease = run.lease_of(step)
        if step == error_at:
            run = fail(run, lease, RunError("agent_error", "no", ErrorKind.PERMANENT), NOON + SECOND).execution
            break
        run = complete(run, lease, StepOutput(step, b'{"n":1}'), NOON + SECOND, TIMINGS).execution
    return ExecutionRecord(run, outputs={step.id: b'{"n":1}' for step in run.steps.values() if step.output_bytes})


def begun(original: ExecutionRecord, at: RetryFrom = RetryFrom.FAILED) -> Execution:
    return start(retry_execution(original, REQUEST, at)[0], LATER, TIMINGS).execution


def test_what_was_finished_is_taken_over_and_what_failed_is_ready() -> None:
    original = failed()
    blank, outputs = retry_execution(original, REQUEST, RetryFrom.FAILED)
    assert outputs == {"a": b'{"n":1}'}
    assert blank.steps == {"a": original.execution.steps["a"]}
    run = start(blank, LATER, TIMINGS)
    assert run.dispatch == ("b",)
    assert [step.status for step in run.execution.steps.values()] == [
        StepStatus.COMPLETED, StepStatus.READY, StepStatus.WAITING,
    ]  # fmt: skip
    fresh = run.execution.steps["b"]
    assert (fresh.claims, fresh.failures, fresh.losses, fresh.error, fresh.offers) == (0, 0, 0, None, 1)
    assert original.execution.id in run.events[0].message


def test_from_the_start_nothing_is_taken_over() -> None:
    run = begun(failed(), RetryFrom.START)
    assert [step.status for step in run.steps.values()] == [
        StepStatus.READY, StepStatus.WAITING, StepStatus.WAITING,
    ]  # fmt: skip
    assert run.idempotency_key("a") == f"{REQUEST.id}:a"


def test_a_retry_is_named_as_such_and_keeps_what_the_caller_said() -> None:
    copied_fields = {
        "tags": ("x",),
        "metadata": b'{"k":1}',
        "input": b'{"i":1}',
        "input_source": "sample",
        "kind": "agent",
    }
    original = failed(**copied_fields, stateful=True, traceparent="00-old", idempotency=Idempotency("old", "p"))
    blank, _ = retry_execution(original, REQUEST, RetryFrom.FAILED)
    assert {name: getattr(blank, name) for name in copied_fields} == copied_fields
    assert (blank.retry_of, blank.basket, blank.stateful) == (original.execution.id, original.execution.basket, True)
    assert (blank.id, blank.request_id, blank.traceparent, blank.idempotency, blank.created_at) == (
        REQUEST.id, "req-retry", "00-trace", Idempotency("key", "print"), LATER,
    )  # fmt: skip


def test_deadlines_and_schedules_are_those_of_a_request_and_not_copied() -> None:
    original = failed(deadline=NOON + timedelta(minutes=1), start_deadline=NOON + timedelta(minutes=1))
    run = begun(replace(original, execution=replace(original.execution, run_after=NOON, dead_letter=True)))
    assert (run.run_after, run.deadline, run.start_deadline) == (None, None, None)
    assert (run.dead_letter, run.error, run.cancel, run.finished_at, run.started_at) == (False, None, None, None, None)


def test_the_keys_for_effects_outside_are_the_first_executions_however_often_it_is_retried() -> None:
    original = failed()
    first = begun(original)
    assert first.idempotency_key("b") == f"{original.execution.id}:b"
    over = replace(first, status=ExecutionStatus.FAILED)
    blank, _ = retry_execution(
        ExecutionRecord(over, outputs={"a": b"{}"}), replace(REQUEST, id="second"), RetryFrom.FAILED
    )
    assert blank.idempotency_key("b") == f"{original.execution.id}:b"
    assert (blank.retry_of, blank.effects_of) == (first.id, original.execution.id)


@pytest.mark.parametrize("status", ExecutionStatus)
@pytest.mark.parametrize("at", RetryFrom)
def test_only_what_is_over_can_be_retried_and_what_completed_only_from_the_start(
    status: ExecutionStatus, at: RetryFrom
) -> None:
    original = failed()
    original = replace(original, execution=replace(original.execution, status=status, cancel=CancelRequest(NOON)))
    if status in {"failed", "cancelled"} or (status == "completed" and at == "start"):
        assert begun(original, at).retry_of == original.execution.id
        return
    with pytest.raises(NotRetryable, match=f"is {status}"):
        retry_execution(original, REQUEST, at)
