"""Branches that end beside one another: a join is run once, by the worker whose write made it ready."""

from __future__ import annotations

from typing import Any

import orjson

from shared.domain.basket import GRAPH, Basket, BasketStep
from shared.domain.status import ExecutionStatus
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
            other.answer(bench.bell(run, "s2"))
        return {ctx.step: True}

    def join(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        joined.append(ctx.attempt)
        return given

    first, other = bench.runner(echo=branch, memo=join), bench.runner(echo=branch, memo=join)
    first.answer(bench.bell(run))
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.COMPLETED
    assert (joined, record.execution.steps["join"].losses) == ([1], 0)
    assert orjson.loads(record.outputs["join"]) == {"s1": True, "s2": True}
