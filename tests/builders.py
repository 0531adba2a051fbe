"""Answers complete, boring values; a test names only what matters to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.domain.definitions.basket import SEQUENTIAL, Basket, BasketStep
from shared.domain.execution import PUBLIC_INTEGRATOR, Execution
from shared.domain.lifecycle.decision import Decision, StepOutput
from shared.domain.lifecycle.timings import Timings
from shared.domain.lifecycle.transitions import claim, complete, start
from shared.domain.status import ExecutionStatus
from shared.ids import new_execution_id

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TERMS = Timings()


@dataclass
class HandClock:
    """A clock that moves when a test says so."""

    at: datetime = NOON

    def now(self) -> datetime:
        """Answer where the hand stands."""
        return self.at

    def forward(self, seconds: float) -> datetime:
        """Move the hand."""
        self.at += timedelta(seconds=seconds)
        return self.at


def chain(*steps: str) -> Basket:
    """A sequential basket of steps that are named like their agents."""
    placed = tuple(
        BasketStep(step, step, needs=() if index == 0 else (steps[index - 1],)) for index, step in enumerate(steps)
    )
    return Basket("boring", SEQUENTIAL, placed)


def blank(*steps: str, **changes: Any) -> Execution:
    """A run that nobody has started yet, of a chain of ``steps``."""
    execution = Execution(
        id=new_execution_id(changes.get("created_at", NOON)),
        integrator=PUBLIC_INTEGRATOR,
        basket=chain(*(steps or ("only",))),
        status=ExecutionStatus.QUEUED,
        steps={},
        created_at=NOON,
        request_id="req-boring",
    )
    return replace(execution, **changes)


def accepted(*steps: str, **changes: Any) -> Decision:
    """A run just accepted at noon."""
    return start(blank(*steps, **changes), NOON, TERMS)


def claimed(execution: Execution, step: str, token: str = "token-1", now: datetime = NOON) -> Decision:
    """The claim of a ready step."""
    advance = claim(execution, step, token, now, TERMS)
    assert advance is not None, f"{step} could not be claimed"
    return advance


def complete_only(execution: Execution, output: bytes = b"{}", now: datetime = NOON) -> Decision:
    """The end of a run of the one step ``only``, which is running."""
    return complete(execution, execution.lease_of("only"), StepOutput("only", output), now, TERMS)
