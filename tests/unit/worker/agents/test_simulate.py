"""The simulator's agent, alone: how it moves, what it keeps, and what it raises for the worker to play."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pytest

from shared.domain.execution import ErrorKind, RunError, Step
from worker.agent_loader import Agent
from worker.context import AgentContext, CheckpointsInMemory
from worker.simulated_outcome import NoOutcome, ScriptedFailure, SimulatedWorkerLoss, simulated_outcome_of

Contexts = Callable[..., AgentContext]
STEP = Step("simulate", "simulate", claims=2)


def played(agents: Mapping[str, Agent], ctx: AgentContext, *script: str, **given: Any) -> dict[str, Any]:
    result: dict[str, Any] = agents["simulate"].run({"script": list(script), **given}, ctx)
    return result


class Waits(threading.Event):
    """A cancel that nobody asks for: to wait for it moves a clock, by no more than was told."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at

    def wait(self, timeout: float | None = None) -> bool:
        self.at += timeout or 0
        return False


def test_progress_moves_from_where_it_was_to_what_the_phase_says(
    agents: Mapping[str, Agent], new_context: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Waits()
    monkeypatch.setitem(inspect.unwrap(agents["simulate"].run).__globals__, "time", waits)
    ctx = new_context(cancel=waits)
    played(agents, ctx, "running:0.3@40", "running:0", "running:0.25@100")
    told = [percent for percent, _ in ctx.reporter.steps]  # type: ignore[attr-defined]
    assert told[0] == 0
    assert {40, 100} <= set(told)
    assert any(0 < percent < 40 for percent in told)
    assert told == sorted(told)
    assert waits.at == pytest.approx(0.55)


def test_a_lost_worker_is_played_once_and_the_next_attempt_goes_on_after_it(
    agents: Mapping[str, Agent], new_context: Contexts
) -> None:
    kept = CheckpointsInMemory()
    script = ("running:0@40", "worker_lost", "running:0", "completed")
    first = new_context(checkpoints=kept)
    with pytest.raises(SimulatedWorkerLoss):
        played(agents, first, *script)
    assert first.reporter.steps[-1] == (40, "the worker is lost")  # type: ignore[attr-defined]
    second = new_context(checkpoints=kept, attempt=2)
    assert played(agents, second, *script) == {"simulated": True, "attempts": 2}
    assert [percent for percent, _ in second.reporter.steps] == [40]  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [100, 300_000])
def test_a_result_takes_as_many_bytes_as_it_is_told(
    agents: Mapping[str, Agent], new_context: Contexts, size: int
) -> None:
    assert len(orjson.dumps(played(agents, new_context(), result_bytes=size))) == size


def test_a_failure_bears_exactly_its_code(agents: Mapping[str, Agent], new_context: Contexts) -> None:
    with pytest.raises(ScriptedFailure) as failure:
        played(agents, new_context(), "failed:my_code")
    error = simulated_outcome_of(STEP, failure.value)
    assert isinstance(error, RunError)
    assert (error.error_code, error.kind, error.retryable, error.attempt) == ("my_code", ErrorKind.PERMANENT, False, 2)
    lost = simulated_outcome_of(STEP, ScriptedFailure("worker_lost"))
    assert isinstance(lost, RunError)
    assert (lost.kind, lost.retryable) == (ErrorKind.LOST, True)


def test_a_cancelled_script_stops(agents: Mapping[str, Agent], new_context: Contexts) -> None:
    ctx = new_context()
    ctx.cancel.set()
    with pytest.raises(Exception, match="asked to stop"):
        played(agents, ctx, "running:3600")


def test_no_other_agent_can_play_a_lost_worker_or_a_code_of_its_own() -> None:
    other = Step("echo", "echo", claims=1)
    assert simulated_outcome_of(other, SimulatedWorkerLoss()) is None
    assert simulated_outcome_of(other, ScriptedFailure("my_code")) is None
    assert simulated_outcome_of(STEP, ValueError("a bug")) is None
    assert isinstance(simulated_outcome_of(STEP, SimulatedWorkerLoss()), NoOutcome)
