"""The tables of legal transitions of statuses."""

from __future__ import annotations

import pytest

from shared.domain.status import (
    EXECUTION_TRANSITIONS,
    STEP_TRANSITIONS,
    ExecutionStatus,
    StepStatus,
    transition_execution,
    transition_step,
)
from shared.errors import IllegalTransition


def test_every_status_stands_in_its_table() -> None:
    assert set(EXECUTION_TRANSITIONS) == set(ExecutionStatus)
    assert set(STEP_TRANSITIONS) == set(StepStatus)


def test_three_statuses_of_a_run_are_final() -> None:
    final = {status for status in ExecutionStatus if status.is_final}
    assert final == {ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED}


def test_a_run_once_claimed_never_goes_back_to_the_queue() -> None:
    with pytest.raises(IllegalTransition):
        transition_execution(ExecutionStatus.RUNNING, ExecutionStatus.QUEUED)


@pytest.mark.parametrize("final", [status for status in StepStatus if status.is_final])
@pytest.mark.parametrize("target", list(StepStatus))
def test_nothing_leaves_a_final_status_of_a_step(final: StepStatus, target: StepStatus) -> None:
    with pytest.raises(IllegalTransition):
        transition_step(final, target)
