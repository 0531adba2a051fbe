"""Erasure: what remains of a finished run when its content is erased. The record stays, and everything that callers
and agents wrote goes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from shared.domain.definitions.basket import Basket
from shared.domain.execution import Execution, RunError, Step
from shared.errors import NotFinal

ERASED_TEXT: Final = "erased"


def erase(execution: Execution, now: datetime) -> Execution | None:
    """Return ``execution`` without its content; None if it was erased before. Raises NotFinal.

    What stays: the id, the basket's name and its graph, the tags (lists and consumers of the feed filter by them), the
    status, the steps with their counters and times, the codes of errors, and the idempotency key: a repeated submit
    must not run again.
    """
    if execution.erased_at is not None:
        return None
    if not execution.is_done:
        raise NotFinal(f"execution {execution.id} is {execution.status}: cancel it first, or wait until it is done")
    cancel = None if execution.cancel is None else replace(execution.cancel, reason=None)
    return replace(
        execution,
        basket=_without_values(execution.basket),
        steps={step.id: _erased_step(step) for step in execution.steps.values()},
        input=b"{}",
        metadata=b"{}",
        reference=None,
        cancel=cancel,
        error=_erased_error(execution.error),
        dead_letter=False,  # it can never be requeued
        erased_at=now,
    )


def _without_values(basket: Basket) -> Basket:
    """Return the graph alone: an inline basket has data of its caller in the inputs of its steps."""
    return replace(basket, description="", steps=tuple(replace(step, input=None) for step in basket.steps))


def _erased_step(step: Step) -> Step:
    return replace(
        step,
        message=None,
        output_bytes=None,
        output_apart=False,
        marked=None,
        error=_erased_error(step.error),
        token=None,
    )


def _erased_error(error: RunError | None) -> RunError | None:
    return None if error is None else replace(error, message=ERASED_TEXT)
