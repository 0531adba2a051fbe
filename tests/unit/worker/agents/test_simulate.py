"""The simulator's agent alone: its progress, its checkpoints, and the exceptions that stand for its outcomes."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pytest

from shared.domain.execution import ErrorKind, RunError, Step
from worker.agent_loader import Agent
from worker.context import AgentContext
from worker.simulated_outcome import NoOutcome, ScriptedFailure, SimulatedWorkerLoss, simulated_outcome_of
from worker.testing import InMemoryCheckpoints

Contexts = Callable[..., AgentContext]
STEP = Step("simulate", "simulate", claims=2)


def play(agents: Mapping[str, Agent], ctx: AgentContext, *script: str, **given: Any) -> dict[str, Any]:
    result: dict[str, Any] = agents["simulate"].run({"script": list(script), **given}, ctx)
    return result


class FakeCancel(threading.Event):
    """A cancel event that is never set, and a clock: each wait moves the clock by its timeout."""

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
    cancel = FakeCancel()
    monkeypatch.setitem(inspect.unwrap(agents["simulate"].run).__globals__, "time", cancel)
    ctx = new_context(cancel=cancel)
    play(agents, ctx, "running:0.3@40", "running:0", "running:0.25@100")
    percents = [percent for percent, _ in ctx.reporter.steps]  # type: ignore[attr-defined]
    assert percents[0] == 0
    assert {40, 100} <= set(percents)
    assert any(0 < percent < 40 for percent in percents)
    assert percents == sorted(percents)
    assert cancel.at == pytest.approx(0.55)


def test_a_lost_worker_is_simulated_once_and_the_next_attempt_goes_on_after_it(
    agents: Mapping[str, Agent], new_context: Contexts
) -> None:
    checkpoints = InMemoryCheckpoints()
    script = ("running:0@40", "worker_lost", "running:0", "completed")
    first = new_context(checkpoints=checkpoints)
    with pytest.raises(SimulatedWorkerLoss):
        play(agents, first, *script)
    assert first.reporter.steps[-1] == (40, "the worker is lost")  # type: ignore[attr-defined]
    second = new_context(checkpoints=checkpoints, attempt=2)
    assert play(agents, second, *script) == {"simulated": True, "attempts": 2}
    assert [percent for percent, _ in second.reporter.steps] == [40]  # type: ignore[attr-defined]
    retry = new_context(checkpoints=checkpoints, execution_id="1763700001_89ce24ad1b2c3d4e")
    with pytest.raises(SimulatedWorkerLoss):
        play(agents, retry, *script)


@pytest.mark.parametrize("size", [100, 300_000])
def test_a_result_has_as_many_bytes_as_result_bytes_says(
    agents: Mapping[str, Agent], new_context: Contexts, size: int
) -> None:
    assert len(orjson.dumps(play(agents, new_context(), result_bytes=size))) == size


def test_a_failure_has_exactly_the_code_of_the_script(agents: Mapping[str, Agent], new_context: Contexts) -> None:
    with pytest.raises(ScriptedFailure) as failure:
        play(agents, new_context(), "failed:my_code")
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
        play(agents, ctx, "running:3600")


def test_no_other_agent_can_simulate_a_lost_worker_or_an_error_code() -> None:
    other = Step("echo", "echo", claims=1)
    assert simulated_outcome_of(other, SimulatedWorkerLoss()) is None
    assert simulated_outcome_of(other, ScriptedFailure("my_code")) is None
    assert simulated_outcome_of(STEP, ValueError("a bug")) is None
    assert isinstance(simulated_outcome_of(STEP, SimulatedWorkerLoss()), NoOutcome)
