"""A worker that learns late of its own write: the step that it claimed may belong to another worker by then."""

from __future__ import annotations

import time
from typing import Any

from shared.domain.lifecycle.transitions import claim, rescue
from shared.errors import OutcomeUnknown
from tests.integration.worker.conftest import SETTINGS, WorkerHarness, bench
from worker.context import AgentContext

__all__ = ["bench"]  # a fixture


def test_25_a_step_claimed_by_a_write_with_a_lost_reply_does_not_run_if_another_worker_has_it(
    bench: WorkerHarness,
) -> None:
    run = bench.accept("echo", "counter")
    services, ran, claimed_s2 = bench.services, [], []
    real = bench.store.__getattr__("save")

    def save(before: Any, decision: Any, **options: Any) -> Any:
        record = real(before, decision, **options)
        if decision.next_step != "s2" or claimed_s2:
            return record
        claimed_s2.append(record)
        now = bench.clock.advance(2)
        rescued = rescue(record.execution, "s2", now, services.timings)
        assert rescued is not None
        offered = real(record.execution, rescued).execution
        claimed = claim(offered, "s2", "another", now, services.timings)
        assert claimed is not None
        real(offered, claimed)
        raise OutcomeUnknown

    def slow(input_data: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        time.sleep(SETTINGS["heartbeat_s"] + 0.1)  # too slow to share a write
        return input_data

    def note(input_data: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        ran.append(ctx.step)
        return input_data

    bench.store.save = save  # type: ignore[attr-defined]
    bench.runner(echo=slow, counter=note).run_message(bench.message_of(run))
    step = bench.read(run).execution.steps["s2"]
    assert not ran, "the other worker runs it"
    assert (step.status, step.token, step.claims) == ("running", "another", 2)
