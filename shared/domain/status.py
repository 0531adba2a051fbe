"""The state machine: statuses of executions and steps, and the table of allowed transitions that every write uses."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from shared.errors import IllegalTransition


class ExecutionStatus(StrEnum):
    """The status of a run, as pollers see it."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the status is one of the three without a transition out of it."""
        return not EXECUTION_TRANSITIONS[self]


class StepStatus(StrEnum):
    """The status of one step of a run."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        """Whether the status is one of the four without a transition out of it."""
        return not STEP_TRANSITIONS[self]


_FINAL_STATUSES: Final = frozenset({ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED})

EXECUTION_TRANSITIONS: Final[dict[ExecutionStatus, frozenset[ExecutionStatus]]] = {
    ExecutionStatus.SCHEDULED: frozenset(
        {ExecutionStatus.QUEUED, ExecutionStatus.RUNNING, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED}
    ),
    ExecutionStatus.QUEUED: frozenset({ExecutionStatus.RUNNING, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED}),
    ExecutionStatus.RUNNING: _FINAL_STATUSES | {ExecutionStatus.CANCELLING},
    ExecutionStatus.CANCELLING: _FINAL_STATUSES,
    **dict.fromkeys(_FINAL_STATUSES, frozenset()),
}

STEP_TRANSITIONS: Final[dict[StepStatus, frozenset[StepStatus]]] = {
    StepStatus.WAITING: frozenset({StepStatus.READY, StepStatus.SKIPPED}),
    StepStatus.READY: frozenset({StepStatus.RUNNING, StepStatus.CANCELLED}),
    StepStatus.RUNNING: frozenset({StepStatus.READY, StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.CANCELLED}),
    **dict.fromkeys((StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.CANCELLED, StepStatus.SKIPPED), frozenset()),
}


def transition_execution(current: ExecutionStatus, target: ExecutionStatus) -> ExecutionStatus:
    """Return ``target`` if it equals ``current`` or the table allows it from there; raises IllegalTransition if not."""
    if target is not current and target not in EXECUTION_TRANSITIONS[current]:
        raise IllegalTransition(f"an execution cannot go from {current} to {target}")
    return target


def transition_step(current: StepStatus, target: StepStatus) -> StepStatus:
    """Return ``target`` if the table allows it from ``current``; raises IllegalTransition if not."""
    if target not in STEP_TRANSITIONS[current]:
        raise IllegalTransition(f"a step cannot go from {current} to {target}")
    return target
