"""Branches that end beside one another: a join is run once, by the worker whose write made it ready."""

from __future__ import annotations

from typing import Any

import orjson

from shared.domain.definitions.basket import GRAPH, PARALLEL, Basket, BasketStep
from shared.domain.status import ExecutionStatus, StepStatus
from tests.integration.worker.conftest import Bench
from worker.context import AgentContext

FAN = Basket(
    "fan", GRAPH, (BasketStep("s1", "echo"), BasketStep("s2", "echo"), BasketStep("join", "memo", ("s1", "s2")))
)


def test_a_join_made_ready_by_a_branch_that_ended_meanwhile_is_run_by_the_one_that_ends_last(bench: Bench) -> None:
    """The first branch knows only after its save was stale that the join is its own to run."""
    run = bench.accept(basket=FAN, given={"n": 1})
    joined: list[int] = []

    def branch(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        if ctx.step == "s1":
            other.run_message(bench.bell(run, "s2"))
        return {ctx.step: True}

    def join(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        joined.append(ctx.attempt)
        return given

    first, other = bench.runner(echo=branch, memo=join), bench.runner(echo=branch, memo=join)
    first.run_message(bench.bell(run))
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.COMPLETED
    assert (joined, record.execution.steps["join"].losses) == ([1], 0)
    assert orjson.loads(record.outputs["join"]) == {"s1": True, "s2": True}


def test_branches_that_run_at_once_take_no_more_than_the_whole_run_may(bench: Bench) -> None:
    """When the first one was claimed there was room for its output; its siblings have taken it since."""
    steps = tuple(BasketStep(f"s{number}", "big") for number in range(1, 10))
    run = bench.accept(basket=Basket("wide", PARALLEL, steps))
    output = {"text": "x" * (4 * 1024 * 1024 - 100)}

    def branch(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        if ctx.step == "s1":
            for step in steps[1:]:
                other.run_message(bench.bell(run, step.id))
        return output

    first, other = bench.runner(big=branch), bench.runner(big=branch)
    first.run_message(bench.bell(run))
    found = bench.services.store.load(run.integrator, run.id)
    assert found is not None
    assert (found.status, found.error and found.error.error_code) == (ExecutionStatus.FAILED, "output_too_large")
    assert [step.status for step in found.steps.values()].count(StepStatus.COMPLETED) == 8
    assert found.steps["s1"].status is StepStatus.FAILED
