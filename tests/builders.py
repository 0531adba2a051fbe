"""Test data builders: complete, boring values; a test names only what matters to it."""

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
TIMINGS = Timings()


@dataclass
class ManualClock:
    """A manual clock: it moves only when a test moves it."""

    current: datetime = NOON

    def now(self) -> datetime:
        """Return the current time."""
        return self.current

    def advance(self, seconds: float) -> datetime:
        """Advance the clock by ``seconds`` and return the new time."""
        self.current += timedelta(seconds=seconds)
        return self.current


def chain(*steps: str) -> Basket:
    """Return a sequential basket whose steps are named like their agents."""
    basket_steps = tuple(
        BasketStep(step, step, needs=() if index == 0 else (steps[index - 1],)) for index, step in enumerate(steps)
    )
    return Basket("boring", SEQUENTIAL, basket_steps)


def unstarted_run(*steps: str, **changes: Any) -> Execution:
    """Return an execution of a chain of ``steps`` that is not started yet; ``changes`` replace fields."""
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


def accept_decision(*steps: str, **changes: Any) -> Decision:
    """Return the decision that accepts a run at noon."""
    return start(unstarted_run(*steps, **changes), NOON, TIMINGS)


def claim_decision(execution: Execution, step: str, token: str = "token-1", now: datetime = NOON) -> Decision:
    """Return the decision that claims a ready step."""
    decision = claim(execution, step, token, now, TIMINGS)
    assert decision is not None, f"{step} could not be claimed"
    return decision


def complete_decision(execution: Execution, output: bytes = b"{}", now: datetime = NOON) -> Decision:
    """Return the decision that completes a run of the one step ``only``, which is running."""
    return complete(execution, execution.lease_of("only"), StepOutput("only", output), now, TIMINGS)
