"""Joins: if branches end at the same time, the join runs once, by the worker whose save made it ready."""

from __future__ import annotations

from typing import Any

import orjson

from shared.domain.definitions.basket import GRAPH, PARALLEL, Basket, BasketStep
from shared.domain.status import ExecutionStatus, StepStatus
from tests.integration.worker.conftest import WorkerHarness
from worker.context import AgentContext

FAN = Basket(
    "fan", GRAPH, (BasketStep("s1", "echo"), BasketStep("s2", "echo"), BasketStep("join", "memo", ("s1", "s2")))
)


def test_a_join_made_ready_by_a_branch_that_ended_meanwhile_is_run_by_the_one_that_ends_last(
    bench: WorkerHarness,
) -> None:
    """The first branch learns only after a stale save that it runs the join."""
    run = bench.accept(basket=FAN, given={"n": 1})
    joined: list[int] = []

    def branch(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        if ctx.step == "s1":
            other.run_message(bench.message_of(run, "s2"))
        return {ctx.step: True}

    def join(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        joined.append(ctx.attempt)
        return given

    first, other = bench.runner(echo=branch, memo=join), bench.runner(echo=branch, memo=join)
    first.run_message(bench.message_of(run))
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.COMPLETED
    assert (joined, record.execution.steps["join"].losses) == ([1], 0)
    assert orjson.loads(record.outputs["join"]) == {"s1": True, "s2": True}


def test_parallel_branches_cannot_exceed_the_output_limit_of_the_run(bench: WorkerHarness) -> None:
    """When the first branch was claimed its output was within the limit; its siblings have recorded theirs since."""
    steps = tuple(BasketStep(f"s{number}", "big") for number in range(1, 10))
    run = bench.accept(basket=Basket("wide", PARALLEL, steps))
    output = {"text": "x" * (4 * 1024 * 1024 - 100)}

    def branch(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        if ctx.step == "s1":
            for step in steps[1:]:
                other.run_message(bench.message_of(run, step.id))
        return output

    first, other = bench.runner(big=branch), bench.runner(big=branch)
    first.run_message(bench.message_of(run))
    execution = bench.services.store.load(run.integrator, run.id)
    assert execution is not None
    assert (execution.status, execution.error and execution.error.error_code) == (
        ExecutionStatus.FAILED,
        "output_too_large",
    )
    assert [step.status for step in execution.steps.values()].count(StepStatus.COMPLETED) == 8
    assert execution.steps["s1"].status is StepStatus.FAILED
