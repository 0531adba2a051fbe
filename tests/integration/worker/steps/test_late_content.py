"""What a slow worker stores beside a run that was erased meanwhile goes again, and nothing else with it."""

from __future__ import annotations

from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR, Execution
from shared.domain.lifecycle.decision import StepOutput
from shared.domain.lifecycle.erasure import erase
from tests.integration.worker.conftest import WorkerHarness
from worker.context import AgentContext
from worker.steps.agent_memory import AgentMemory


def erase_run(bench: WorkerHarness, run: Execution) -> None:
    finished = bench.read(run).execution
    erased = erase(finished, bench.clock.now())
    assert erased is not None
    bench.services.erasures.delete_beside(bench.services.erasures.empty(finished, erased).execution)


def test_the_traceback_of_a_lost_attempt_does_not_come_back(bench: WorkerHarness) -> None:
    run, other = bench.accept("echo"), bench.accept("echo")

    def agent(_: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        if ctx.execution_id == run.id and ctx.attempt == 1:
            bench.lose_worker(run)
            runner.run_message(bench.message_of(run))
            erase_run(bench, run)
            raise ValueError("content")
        if ctx.execution_id == other.id:
            raise ValueError("another")
        return {}

    runner = bench.runner(echo=agent)
    for each in (other, run):
        runner.run_message(bench.message_of(each))
    assert bench.read(run).execution.erased_at is not None
    assert bench.services.failures.list_all(PUBLIC_INTEGRATOR, run.id) == []
    assert len(bench.services.failures.list_all(PUBLIC_INTEGRATOR, other.id)) == 1


@pytest.mark.parametrize("is_erased", [True, False])
def test_a_memory_that_is_stored_late_does_not_come_back(bench: WorkerHarness, *, is_erased: bool) -> None:
    run = bench.accept("memo", given={})
    bench.runner(memo=lambda _, __: {}).run_message(bench.message_of(run))
    worker_sees = bench.read(run).execution
    memories = bench.services.database.collection("agent_memory")
    memories.delete_many({})
    if is_erased:
        erase_run(bench, run)
    # As if the worker had stood still between the last write of the run and that of the memory.
    AgentMemory(bench.services).remember(worker_sees, (StepOutput("s1", b"{}"),))
    assert memories.count_documents({}) == (0 if is_erased else 1)
