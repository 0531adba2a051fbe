"""The simulator's script: how it is parsed, its faults, and how a run with a script starts."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from shared.domain.definitions.basket import PARALLEL, SEQUENTIAL, Basket, BasketStep
from shared.domain.execution import Execution
from shared.domain.lifecycle.simulator_script import (
    SIMULATE_AGENT_NAME,
    PhaseKind,
    ScriptPhase,
    delay_scripted_steps,
    find_script_faults,
    parse_script,
)
from shared.domain.lifecycle.transitions import cancel, claim, rescue, start
from shared.domain.status import ExecutionStatus, StepStatus
from tests.builders import NOON, SECOND, TIMINGS, unstarted_run


def scripted(*script: str, strategy: str = SEQUENTIAL, agents: tuple[str, ...] = (SIMULATE_AGENT_NAME,)) -> Execution:
    """Return a run that is not started, of a basket of ``agents`` with this script as its input."""
    steps = tuple(
        BasketStep(agent, agent, needs=() if strategy == PARALLEL or place == 0 else (agents[place - 1],))
        for place, agent in enumerate(agents)
    )
    basket = Basket("simulate", strategy, steps)
    return replace(unstarted_run(), basket=basket, input=json.dumps({"script": script}).encode())


def test_a_script_is_read_phase_by_phase() -> None:
    script = ("queued:3", "running:10@40", "running:0.25", "worker_lost", "completed")
    assert parse_script(script) == (
        ScriptPhase(PhaseKind.QUEUED, 3.0),
        ScriptPhase(PhaseKind.RUNNING, 10.0, 40),
        ScriptPhase(PhaseKind.RUNNING, 0.25),
        ScriptPhase(PhaseKind.WORKER_LOST),
        ScriptPhase(PhaseKind.COMPLETED),
    )
    assert parse_script(["failed:provider_unavailable"]) == (
        ScriptPhase(PhaseKind.FAILED, code="provider_unavailable"),
    )


@pytest.mark.parametrize("entry", ["", "running", "running:", "running:-1", "running:1e3", "failed:", "failed:No", "x"])
def test_a_malformed_phase_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="no phase"):
        parse_script([entry])


@pytest.mark.parametrize(
    ("script", "pointer", "message"),
    [
        (["running:1", "queued:1"], "/script/1", "queued comes first"),
        (["worker_lost", "queued:1"], "/script/1", "queued comes first"),
        (["completed", "running:1"], "/script/1", "nothing comes after completed"),
        (["queued:1", "failed:x", "completed"], "/script/2", "nothing comes after failed"),
        (["queued:1800", "running:1800", "running:0.001"], "/script/2", "over 3600 s in all"),
    ],
)
def test_a_script_that_cannot_be_played_is_refused_with_the_place(
    script: list[str], pointer: str, message: str
) -> None:
    (fault,) = find_script_faults({"script": script})
    assert fault.pointer == pointer
    assert message in fault.message


@pytest.mark.parametrize("input_data", [{}, {"script": []}, {"script": ["queued:1800", "running:1800", "completed"]}])
def test_a_script_that_can_be_played_has_no_faults(input_data: dict[str, list[str]]) -> None:
    assert find_script_faults(input_data) == []


def test_a_run_held_back_is_queued_and_no_worker_can_claim_it_before_its_moment() -> None:
    begun = start(delay_scripted_steps(scripted("queued:2", "queued:1.5", "running:1")), NOON, TIMINGS)
    assert (begun.execution.status, begun.execution.queued_at, begun.dispatch) == (ExecutionStatus.QUEUED, NOON, ())
    step = begun.execution.steps[SIMULATE_AGENT_NAME]
    assert step.is_delayed
    assert step.due_by == begun.execution.due_by == NOON + timedelta(seconds=3.5)
    assert claim(begun.execution, SIMULATE_AGENT_NAME, "token", NOON + 3 * SECOND, TIMINGS) is None
    assert rescue(begun.execution, SIMULATE_AGENT_NAME, NOON + 3 * SECOND, TIMINGS) is None
    offered = rescue(begun.execution, SIMULATE_AGENT_NAME, NOON + 4 * SECOND, TIMINGS)
    assert offered is not None
    assert (offered.dispatch, offered.execution.status) == ((SIMULATE_AGENT_NAME,), ExecutionStatus.QUEUED)
    assert claim(offered.execution, SIMULATE_AGENT_NAME, "token", NOON + 4 * SECOND, TIMINGS) is not None


def test_a_run_held_back_is_cancelled_at_once() -> None:
    begun = start(delay_scripted_steps(scripted("queued:100")), NOON, TIMINGS).execution
    over = cancel(begun, NOON + SECOND)
    assert over is not None
    assert (over.execution.status, over.execution.steps[SIMULATE_AGENT_NAME].status) == (
        ExecutionStatus.CANCELLED,
        StepStatus.CANCELLED,
    )


def test_only_a_first_step_of_the_simulator_is_held_back() -> None:
    alone = start(delay_scripted_steps(scripted("running:1", "completed")), NOON, TIMINGS)
    assert alone.dispatch == (SIMULATE_AGENT_NAME,)
    second = start(delay_scripted_steps(scripted("queued:5", agents=("echo", SIMULATE_AGENT_NAME))), NOON, TIMINGS)
    assert second.dispatch == ("echo",)
    beside = start(
        delay_scripted_steps(scripted("queued:5", agents=("echo", SIMULATE_AGENT_NAME), strategy=PARALLEL)),
        NOON,
        TIMINGS,
    )
    assert beside.dispatch == ("echo",)
    assert beside.execution.steps[SIMULATE_AGENT_NAME].is_delayed


def test_a_scheduled_run_waits_for_its_schedule_alone() -> None:
    later = replace(scripted("queued:5"), run_after=NOON + 60 * SECOND)
    begun = start(delay_scripted_steps(later), NOON, TIMINGS).execution
    assert (begun.status, begun.due_by) == (ExecutionStatus.SCHEDULED, NOON + 60 * SECOND)
