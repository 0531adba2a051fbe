"""The main process records the step of a child that it had to kill, also if MongoDB is away just then."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from celery import signals

from shared.domain.execution import Execution
from shared.domain.lifecycle.transitions import claim
from tests.integration.worker.conftest import WorkerHarness
from worker.supervision.main_process import MainProcess
from worker.supervision.shared_slots import SharedSlots, SlotState


def claimed_run(bench: WorkerHarness) -> Execution:
    run = bench.accept("echo")
    decision = claim(run, "s1", "killed", bench.clock.now(), bench.services.timings)
    assert decision is not None
    return bench.services.store.save(run, decision).execution


def record_killed(bench: WorkerHarness, run: Execution, stop_reason: str) -> None:
    killed = SlotState(
        pid=1, alive_count=1, kill_at=1.0, is_in_agent=True, stop_reason=stop_reason, lease=run.lease_of("s1")
    )
    MainProcess(bench.services, SharedSlots(1))._record_killed_step(killed)


@pytest.fixture
def unfreeze() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("unfreeze")
def test_what_is_loaded_is_exempt_from_garbage_collection_before_the_first_fork_only(bench: WorkerHarness) -> None:
    MainProcess(bench.services, SharedSlots(1)).connect_signals()
    signals.worker_before_create_process.send(sender=None)
    frozen = gc.get_freeze_count()
    assert frozen > 10_000
    later = [[] for _ in range(1_000)]
    signals.worker_before_create_process.send(sender=None)
    assert gc.get_freeze_count() <= frozen, f"what lives at a later fork may become garbage: {len(later)} lists"


@pytest.mark.parametrize("verb", ["load", "save"])
def test_a_killed_step_is_recorded_although_mongodb_is_away_at_first(bench: WorkerHarness, verb: str) -> None:
    run = claimed_run(bench)
    bench.store.fail(verb, before=2)
    record_killed(bench, run, "timeout")
    step = bench.read(run).execution.steps["s1"]
    assert step.error is not None
    assert (step.error.error_code, step.losses) == ("timeout", 0)
    assert bench.services.views.get(run.integrator, run.id) is not None


def test_a_killed_step_that_nothing_asked_to_stop_is_left_to_its_lease(bench: WorkerHarness) -> None:
    run = claimed_run(bench)
    record_killed(bench, run, "lost")
    execution = bench.services.store.load(run.integrator, run.id)
    assert execution is not None
    assert execution.steps["s1"].is_running_under(run.lease_of("s1"))
