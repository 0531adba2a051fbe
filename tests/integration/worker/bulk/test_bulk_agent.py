"""The engine's agent for bulk actions over real stores: integrators apart, backpressure, checkpoints, repeats."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.bulk_action import BULK_ACTION, BULK_BASKET
from shared.domain.execution import Execution
from shared.domain.status import ExecutionStatus
from shared.queue.message import list_key
from tests.faulty_store import FaultyStore
from tests.integration.worker.conftest import WorkerHarness
from tests.waiting import wait_until
from worker.bulk.bulk_agent import BulkActionStopped, run_bulk_action
from worker.testing.fake_context import FakeContext
from worker.testing.in_memory import InMemoryCheckpoints

OWN, OTHER = "acme", "zenith"


def begin(bench: WorkerHarness, **differs: Any) -> FakeContext:
    """Store the execution of a bulk action, a second after all that is there, and return its context."""
    bench.clock.advance(1)
    action = bench.accept(integrator=OWN, basket=BULK_BASKET, kind=BULK_ACTION)
    return FakeContext(execution_id=action.id, **differs)


def status_of(bench: WorkerHarness, run: Execution) -> ExecutionStatus:
    stored = bench.services.store.load(None, run.id)
    assert stored is not None
    return stored.status


def set_backlog_max(bench: WorkerHarness, backlog_max: int) -> None:
    settings = replace(bench.services.settings, backlog_max=backlog_max)
    bench.services = replace(bench.services, settings=settings)


def test_only_runs_of_its_own_integrator_are_reached(bench: WorkerHarness) -> None:
    own = [bench.accept(integrator=OWN, tags=("x",)) for _ in range(3)]
    others = [bench.accept(integrator=OTHER, tags=("x",)) for _ in range(3)]
    for given in ({"action": "cancel", "filter": {"tag": "x"}}, {"action": "erase", "filter": {"tag": "x"}}):
        result = run_bulk_action(bench.services, given, begin(bench))
        assert (result["matched"], result["done"]) == (3, 3)
    assert {status_of(bench, run) for run in own} == {ExecutionStatus.CANCELLED}
    assert {status_of(bench, run) for run in others} == {ExecutionStatus.QUEUED}


def test_neither_itself_nor_a_later_run_matches(bench: WorkerHarness) -> None:
    context = begin(bench)
    bench.clock.advance(1)
    later = bench.accept(integrator=OWN)
    given = {"action": "cancel", "filter": {"created_after": "2020-01-01T00:00:00Z"}}
    assert run_bulk_action(bench.services, given, context)["matched"] == 0
    assert status_of(bench, later) is ExecutionStatus.QUEUED


def test_a_bound_of_the_caller_is_kept(bench: WorkerHarness) -> None:
    old = bench.accept(integrator=OWN)
    between = bench.clock.advance(1)
    new = bench.accept(integrator=OWN)
    given = {"action": "cancel", "filter": {"created_before": (between - timedelta(milliseconds=1)).isoformat()}}
    assert run_bulk_action(bench.services, given, begin(bench))["done"] == 1
    assert (status_of(bench, old), status_of(bench, new)) == (ExecutionStatus.CANCELLED, ExecutionStatus.QUEUED)


def test_a_retry_waits_while_the_backlog_is_full(bench: WorkerHarness) -> None:
    run = bench.accept(integrator=OWN)
    context = begin(bench)
    run_bulk_action(bench.services, {"action": "cancel", "filter": {"basket": "bench"}}, context)
    set_backlog_max(bench, 2)
    bench.services.redis.lpush(list_key("long", 3), "one", "two")
    results: list[Any] = []
    given = {"action": "retry", "filter": {"basket": "bench"}}
    context = begin(bench)
    thread = threading.Thread(target=lambda: results.append(run_bulk_action(bench.services, given, context)))
    thread.start()
    executions = bench.services.database.collection("executions")
    thread.join(0.3)
    assert (results, executions.count_documents({"retry_of": run.id})) == ([], 0)
    bench.services.redis.delete(list_key("long", 3))
    wait_until(lambda: bool(results), 10, "it goes on")
    thread.join()
    assert results[0]["done"] == executions.count_documents({"retry_of": run.id}) == 1


def test_a_backlog_that_does_not_get_shorter_is_not_waited_for_without_end(bench: WorkerHarness) -> None:
    """The action may have the only slot, and then waits for what only its own end can bring."""
    run = bench.accept(integrator=OWN)
    run_bulk_action(bench.services, {"action": "cancel", "filter": {"basket": "bench"}}, begin(bench))
    set_backlog_max(bench, 0)
    result = run_bulk_action(bench.services, {"action": "retry", "filter": {"basket": "bench"}}, begin(bench))
    assert result["done"] == 1
    assert bench.services.database.collection("executions").count_documents({"retry_of": run.id}) == 1


def test_one_that_waits_for_the_backlog_can_be_stopped(bench: WorkerHarness) -> None:
    bench.accept(integrator=OWN)
    run_bulk_action(bench.services, {"action": "cancel", "filter": {"basket": "bench"}}, begin(bench))
    set_backlog_max(bench, 0)
    cancel = threading.Event()
    timer = threading.Timer(0.2, cancel.set)
    timer.start()
    with pytest.raises(BulkActionStopped):
        run_bulk_action(bench.services, {"action": "retry", "filter": {"basket": "bench"}}, begin(bench, cancel=cancel))
    timer.join()


def test_a_store_that_goes_away_for_a_moment_costs_no_run(bench: WorkerHarness) -> None:
    runs = [bench.accept(integrator=OWN) for _ in range(4)]
    bench.store.fail("load", before=2)
    bench.store.fail("save", before=1, after=1)
    result = run_bulk_action(bench.services, {"action": "cancel", "filter": {"basket": "bench"}}, begin(bench))
    assert (result["done"], result["failed"]) == (4, 0)
    assert {status_of(bench, run) for run in runs} == {ExecutionStatus.CANCELLED}


def test_an_erasure_that_a_store_has_interrupted_is_ended_and_counted(bench: WorkerHarness) -> None:
    run = bench.accept(integrator=OWN, input=b'{"secret":"content"}')
    given = {"action": "cancel", "filter": {"basket": "bench"}}
    assert run_bulk_action(bench.services, given, begin(bench))["done"] == 1
    erasures = FaultyStore(bench.services.erasures, {"delete_beside"})
    erasures.fail("delete_beside", before=1)
    bench.services = replace(bench.services, erasures=erasures)  # type: ignore[arg-type]
    result = run_bulk_action(bench.services, given | {"action": "erase"}, begin(bench))
    assert (result["done"], result["skipped"], erasures.calls["delete_beside"]) == (1, 0, 2)
    assert b'"erased_at"' in (bench.services.views.get(OWN, run.id) or b"")
    result = run_bulk_action(bench.services, given | {"action": "erase"}, begin(bench))
    assert (result["done"], result["skipped"]) == (0, 1), "another action finds it erased"


def test_a_page_that_was_begun_is_done_again_and_counted_once(bench: WorkerHarness) -> None:
    """As if the worker had died after the last run of a page: its checkpoint has the page, and no counts of it."""
    for _ in range(3):
        bench.accept(integrator=OWN)
    checkpoints = InMemoryCheckpoints()
    context = begin(bench, checkpoints=checkpoints)
    given = {"action": "cancel", "filter": {"basket": "bench"}}
    first = run_bulk_action(bench.services, given, context)
    assert checkpoints.latest()["counts"] == {"done": 0, "failed": 0, "skipped": 0}  # type: ignore[index]
    assert run_bulk_action(bench.services, given, context) == first
    assert first["done"] == 3
