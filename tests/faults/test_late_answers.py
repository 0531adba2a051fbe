"""A worker that hears late of its own write: what it claimed by that write may be another's by now."""

from __future__ import annotations

import time
from typing import Any

from shared.domain.lifecycle.transitions import claim, rescue
from shared.errors import OutcomeUnknown
from tests.integration.worker.conftest import SETTINGS, Bench, bench
from worker.context import AgentContext

__all__ = ["bench"]  # a fixture


def test_25_a_step_claimed_by_a_write_whose_answer_was_lost_is_not_run_once_another_has_it(bench: Bench) -> None:
    run = bench.accept("echo", "counter")
    services, ran, saves = bench.services, [], [0]
    real = bench.store.__getattr__("save")

    def save(before: Any, advance: Any, **options: Any) -> Any:
        record = real(before, advance, **options)
        saves[0] += 1
        if saves[0] != 2:
            return record
        late = bench.hand.forward(2)
        lost = rescue(record.execution, "s2", late, services.timings)
        assert lost is not None
        offered = real(record.execution, lost).execution
        taken = claim(offered, "s2", "another", late, services.timings)
        assert taken is not None
        real(offered, taken)
        raise OutcomeUnknown

    def slow(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        time.sleep(SETTINGS["heartbeat_s"] + 0.1)  # too slow to share a write
        return given

    def note(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        ran.append(ctx.step)
        return given

    bench.store.save = save  # type: ignore[attr-defined]
    bench.runner(echo=slow, counter=note).run_message(bench.bell(run))
    step = bench.read(run).execution.steps["s2"]
    assert not ran, "the other one runs it"
    assert (step.status, step.token, step.claims) == ("running", "another", 2)
