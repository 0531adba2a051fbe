"""Conformance suite of the execution store: every adapter passes the same tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.definitions.basket import GRAPH, Basket, BasketStep
from shared.domain.execution import (
    PUBLIC_INTEGRATOR,
    ErrorKind,
    Execution,
    Idempotency,
    Lease,
    LogEvent,
    LogPageQuery,
    RunError,
)
from shared.domain.lifecycle.decision import Decision, StepOutput
from shared.domain.lifecycle.rerun import RetryFrom, RetryRequest, retry_execution
from shared.domain.lifecycle.transitions import claim, complete, fail, rescue, start
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import LeaseLost, OutcomeUnknown, StaleWrite
from shared.store.database import Database
from shared.store.executions.bulk import BulkSave, MongoBulkExecutionStore
from shared.store.executions.settle import settle
from shared.store.executions.store import MongoExecutionStore
from shared.store.executions.updates import ProgressReport
from tests.builders import NOON, SECOND, TIMINGS, ManualClock, accept_decision, claim_decision, unstarted_run
from tests.faulty_store import RetryingFaultyStore
from tests.in_memory_store import InMemoryExecutionStore

LATE = NOON + timedelta(days=1)
FAR = NOON + timedelta(days=2)


Store = InMemoryExecutionStore | MongoExecutionStore
"""Each has all methods under test, the one of MongoDB together with the bulk methods."""


class StoreWithBulk:
    """An adapter together with its bulk methods, as one store."""

    def __init__(self, store: object, batches: MongoBulkExecutionStore) -> None:
        self._store = store
        self.load_all, self.save_all = batches.load_all, batches.save_all

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._store, verb)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "mongo", "mongo-fails-before", "mongo-fails-after"])
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[Store]:
    if request.param == "memory":
        yield InMemoryExecutionStore(clock)
        return
    with closing(Database(request.getfixturevalue("mongodb_url"), "test", deadline_s=30)) as database:
        database.ensure_indexes()
        real = MongoExecutionStore(database, clock)
        fault = request.param.removeprefix("mongo").removeprefix("-fails-")
        both = StoreWithBulk(RetryingFaultyStore(real, fault) if fault else real, MongoBulkExecutionStore(database))
        yield both  # type: ignore[misc]


def waiting_for_majority(decision: Decision) -> Decision:
    """Make a claim wait for a majority: one that is written alone does not, and a majority read may miss it."""
    return replace(decision, is_lock_only=False)


def create_claimed(store: Store, *steps: str) -> tuple[Execution, Lease]:
    """Create a run of ``steps`` whose first one is claimed; return it with the lease."""
    decision = accept_decision(*steps)
    created = store.create(decision)
    first = decision.dispatch[0]
    saved = store.save(created, claim_decision(created, first)).execution
    return saved, saved.lease_of(first)


def test_what_was_created_is_loaded_as_it_was(store: Store) -> None:
    decision = accept_decision("a", "b", tags=("x",), metadata=b'{"$k":1}', input=b'{"a.b":[1]}', traceparent="00-1")
    assert store.create(decision) == decision.execution
    assert store.load(PUBLIC_INTEGRATOR, decision.execution.id) == decision.execution
    assert store.read(PUBLIC_INTEGRATOR, decision.execution.id) == decision.initial_record


def test_an_unknown_execution_and_another_integrators_are_none(store: Store) -> None:
    created = store.create(accept_decision())
    assert store.load(PUBLIC_INTEGRATOR, "1763700000_0000000000000000") is None
    assert store.load("somebody", created.id) is None
    assert store.read("somebody", created.id) is None


def test_one_idempotency_key_makes_one_execution_however_many_ask_at_once(store: Store) -> None:
    key = Idempotency("key", "print")
    with ThreadPoolExecutor(16) as callers:
        ids = list(callers.map(lambda _: store.create(accept_decision(idempotency=key)).id, range(50)))
    assert len(set(ids)) == 1
    assert len(store.find_overdue(LATE, FAR, 100)) == 1


def test_a_key_of_another_integrator_is_another_key(store: Store) -> None:
    key = Idempotency("key", "print")
    ours = store.create(accept_decision(idempotency=key))
    theirs = store.create(accept_decision(idempotency=key, integrator="somebody"))
    assert ours.id != theirs.id


def test_a_key_is_free_again_after_a_day(store: Store, clock: ManualClock) -> None:
    key = Idempotency("key", "print")
    first = store.create(accept_decision(idempotency=key))
    clock.advance(23 * 3600)
    assert store.create(accept_decision(idempotency=key)).id == first.id
    clock.advance(3600)
    second = accept_decision(idempotency=key)
    assert store.create(second).id == second.execution.id
    assert store.load(PUBLIC_INTEGRATOR, first.id) is not None


def test_the_holder_of_a_key_is_found_for_a_day_by_its_own_integrator(store: Store, clock: ManualClock) -> None:
    held = store.create(accept_decision(idempotency=Idempotency("key", "print")))
    assert store.find_by_idempotency_key(PUBLIC_INTEGRATOR, "key") == held
    assert store.find_by_idempotency_key("somebody", "key") is None
    assert store.find_by_idempotency_key(PUBLIC_INTEGRATOR, "another") is None
    clock.advance(24 * 3600)
    assert store.find_by_idempotency_key(PUBLIC_INTEGRATOR, "key") is None


@pytest.mark.parametrize("apart", [False, True])
def test_a_retry_is_created_with_the_outputs_that_it_takes_over(store: Store, *, apart: bool) -> None:
    execution, lease = create_claimed(store, "a", "b")
    done = complete(
        execution, lease, StepOutput("a", b'{"n":1}', is_external=apart), NOON, TIMINGS, next_token="token-2"
    )
    second = store.save(execution, done, lease=lease).execution
    error = RunError("agent_error", "no", ErrorKind.PERMANENT)
    lease = second.lease_of("b")
    store.save(second, fail(second, lease, error, NOON), lease=lease)

    original = store.read(PUBLIC_INTEGRATOR, execution.id)
    assert original is not None
    retry_request = RetryRequest("1763700000_00000000000000aa", NOON, "req-retry")
    blank, outputs = retry_execution(original, retry_request, RetryFrom.FAILED)
    created = store.create(start(blank, NOON, TIMINGS), outputs)
    record = store.read(PUBLIC_INTEGRATOR, created.id)
    assert record is not None
    assert (record.execution, record.outputs) == (created, {"a": b'{"n":1}'})
    assert (created.retry_of, created.steps["a"].status) == (execution.id, StepStatus.COMPLETED)
    assert store.read(PUBLIC_INTEGRATOR, execution.id) == original, "the first one stays as it was"


def test_a_join_that_two_workers_reach_at_once_is_taken_by_one(store: Store) -> None:
    steps = (BasketStep("a", "echo"), BasketStep("b", "echo"), BasketStep("join", "echo", needs=("a", "b")))
    run = store.create(start(replace(unstarted_run(), basket=Basket("fan", GRAPH, steps)), NOON, TIMINGS))
    for step in ("a", "b"):
        run = store.save(run, claim_decision(run, step, f"token-{step}")).execution

    def finish(step: str) -> str | None:
        lease = run.lease_of(step)
        settled = settle(
            store,
            run,
            lambda current: complete(current, lease, StepOutput(step, b"{}"), NOON, TIMINGS, next_token=f"next-{step}"),
            lease=lease,
        )
        assert settled is not None
        return settled.decision.next_step

    with ThreadPoolExecutor(2) as workers:
        taken = list(workers.map(finish, ("a", "b")))
    assert sorted(taken, key=str) == [None, "join"]
    found = store.load(PUBLIC_INTEGRATOR, run.id)
    assert found is not None
    assert (found.steps["join"].status, found.steps["join"].claims) == (StepStatus.RUNNING, 1)


def test_of_two_saves_of_one_version_one_is_stale(store: Store) -> None:
    created = store.create(accept_decision("a"))
    store.save(created, claim_decision(created, "a", "mine"))
    with pytest.raises(StaleWrite):
        store.save(created, claim_decision(created, "a", "theirs"))
    found = store.load(PUBLIC_INTEGRATOR, created.id)
    assert found is not None
    assert found.steps["a"].token == "mine"


def test_a_completed_chain_is_recorded_whole(store: Store) -> None:
    execution, lease = create_claimed(store, "a", "b")
    done_a = complete(execution, lease, StepOutput("a", b'{"n":1}'), NOON + SECOND, TIMINGS, next_token="token-2")
    after_a = store.save(execution, done_a, lease=lease)
    assert after_a.execution.steps["b"].status is StepStatus.RUNNING
    lease_b = after_a.execution.lease_of("b")
    done_b = complete(after_a.execution, lease_b, StepOutput("b", b'{"n":2}'), NOON + 2 * SECOND, TIMINGS)
    record = store.save(after_a.execution, done_b, lease=lease_b)
    assert record.execution.status is ExecutionStatus.COMPLETED
    assert record.execution.due_by is None
    assert record.outputs == {"a": b'{"n":1}', "b": b'{"n":2}'}
    assert store.read(PUBLIC_INTEGRATOR, execution.id) == record
    assert [event.event for event in record.events] == [
        "execution.accepted", "step.started", "step.completed", "step.started", "step.completed",
        "execution.completed",
    ]  # fmt: skip
    assert record.lines_total == 6
    assert store.find_overdue(LATE, FAR, 10) == []


def test_a_failure_is_recorded_with_its_words(store: Store) -> None:
    execution, lease = create_claimed(store, "a", "b")
    error = RunError("agent_error", "no", ErrorKind.PERMANENT, agent="a", step="a", attempt=1)
    record = store.save(execution, fail(execution, lease, error, NOON + SECOND), lease=lease)
    found = store.load(PUBLIC_INTEGRATOR, execution.id)
    assert found == record.execution
    assert found is not None
    assert (found.status, found.error) == (ExecutionStatus.FAILED, error)
    assert found.steps["b"].status is StepStatus.SKIPPED


def test_rev_and_version_grow_by_the_store_and_never_by_what_was_loaded(store: Store) -> None:
    execution, lease = create_claimed(store, "a")
    reported = store.report(lease, log_report("hello"))
    assert reported is not None
    assert reported.execution.rev == execution.rev + 1
    assert reported.execution.version == execution.version
    done = store.save(execution, complete(execution, lease, StepOutput("a", b"{}"), NOON, TIMINGS), lease=lease)
    assert done.execution.rev == execution.rev + 2
    assert done.execution.version == execution.version + 1


def test_a_zombie_writes_nothing(store: Store) -> None:
    execution, lease = create_claimed(store, "a")
    late = NOON + TIMINGS.lease
    lost = rescue(execution, "a", late, TIMINGS)
    assert lost is not None
    offered = store.save(execution, lost).execution
    again = store.save(offered, claim_decision(offered, "a", "token-2", late)).execution
    forged = replace(again, steps={"a": replace(again.steps["a"], claims=1, token="token-1")})
    with pytest.raises(StaleWrite):
        store.save(again, complete(forged, lease, StepOutput("a", b"{}"), late, TIMINGS), lease=lease)
    assert store.renew(lease, late + TIMINGS.lease) is None
    assert store.report(lease, log_report("boo")) is None
    with pytest.raises(LeaseLost):
        complete(again, lease, StepOutput("a", b"{}"), late, TIMINGS)


def test_a_heartbeat_moves_the_due_moment_and_neither_rev_nor_version(store: Store) -> None:
    execution, lease = create_claimed(store, "a", "b")
    later = NOON + 2 * TIMINGS.lease
    beat = store.renew(lease, later)
    assert beat is not None
    assert (beat.rev, beat.status) == (execution.rev, ExecutionStatus.RUNNING)
    assert store.find_overdue(later, FAR, 10) == []
    (found, _), *others = store.find_overdue(later + SECOND, FAR, 10)
    assert not others
    assert (found.id, found.due_by, found.version) == (execution.id, later, execution.version)


def test_an_overdue_search_answers_the_longest_overdue_first_and_no_more_than_asked(store: Store) -> None:
    late = [store.create(accept_decision()) for _ in range(3)]
    for index, execution in enumerate(late):
        saved = store.save(
            execution, waiting_for_majority(claim_decision(execution, "only", now=NOON + index * SECOND))
        )
        assert saved.execution.due_by is not None
    found = store.find_overdue(NOON + timedelta(hours=1), FAR, 2)
    assert [execution.id for execution, _ in found] == [late[0].id, late[1].id]


def test_a_moment_set_by_a_clock_that_jumped_back_is_overdue_too(store: Store) -> None:
    execution, _ = create_claimed(store, "a")
    a_day_before = NOON - timedelta(days=1)
    assert [found.id for found, _ in store.find_overdue(a_day_before, a_day_before + TIMINGS.due_ahead_max, 10)] == [
        execution.id
    ]


def test_a_schedule_is_not_implausible_and_without_a_bound_nothing_is(store: Store) -> None:
    execution, _ = create_claimed(store, "a")
    store.create(accept_decision(run_after=NOON + timedelta(days=7)))
    earlier = NOON - timedelta(hours=1)
    assert [found.id for found, _ in store.find_overdue(earlier, earlier + TIMINGS.due_ahead_max, 10)] == [execution.id]
    assert store.find_overdue(earlier, None, 10) == []


def test_a_lease_just_renewed_is_not_taken(store: Store) -> None:
    execution, lease = create_claimed(store, "a")
    late = NOON + TIMINGS.lease
    lost = rescue(execution, "a", late, TIMINGS)
    assert lost is not None
    assert store.renew(lease, late + TIMINGS.lease) is not None
    with pytest.raises(StaleWrite):
        store.save(execution, lost)


def test_what_is_postponed_takes_no_lease_back_that_was_renewed_meanwhile(store: Store) -> None:
    execution, lease = create_claimed(store, "a")
    renewed_to = NOON + 2 * TIMINGS.lease
    assert store.renew(lease, renewed_to) is not None
    store.postpone([execution])
    found = store.load(PUBLIC_INTEGRATOR, execution.id)
    assert found is not None
    assert found.steps["a"].due_by == renewed_to


def test_a_withdrawn_run_is_gone_and_a_late_insert_of_it_fails(store: Store) -> None:
    decision = accept_decision()
    assert store.withdraw(PUBLIC_INTEGRATOR, decision.execution.id)
    assert store.withdraw(PUBLIC_INTEGRATOR, decision.execution.id)
    with pytest.raises(OutcomeUnknown):
        store.create(decision)
    assert store.load(PUBLIC_INTEGRATOR, decision.execution.id) is None
    stored = store.create(accept_decision())
    assert store.withdraw(PUBLIC_INTEGRATOR, stored.id)
    assert store.read(PUBLIC_INTEGRATOR, stored.id) is None
    assert store.find_overdue(LATE, FAR, 10) == []


def test_a_claimed_run_cannot_be_withdrawn(store: Store) -> None:
    execution, _ = create_claimed(store, "a")
    assert not store.withdraw(PUBLIC_INTEGRATOR, execution.id)
    assert store.load(PUBLIC_INTEGRATOR, execution.id) is not None


def test_the_newest_thousand_lines_are_kept_and_the_rest_is_counted(store: Store) -> None:
    _, lease = create_claimed(store, "a")
    for _ in range(3):
        record = store.report(lease, log_report(*(f"line {number}" for number in range(400))))
    assert record is not None
    assert (len(record.events), record.lines_total, record.first_seq) == (1_000, 1_202, 203)


def test_progress_is_shown_until_the_step_ends(store: Store) -> None:
    execution, lease = create_claimed(store, "a")
    record = store.report(lease, ProgressReport(percent=40, message="page 3 of 8"))
    assert record is not None
    assert (record.execution.steps["a"].percent, record.execution.steps["a"].message) == (40, "page 3 of 8")
    lower = store.report(lease, ProgressReport(percent=10))
    assert lower is not None
    assert lower.execution.steps["a"].percent == 40
    loaded = store.load(PUBLIC_INTEGRATOR, execution.id)
    assert loaded is not None
    done = store.save(loaded, complete(loaded, lease, StepOutput("a", b"{}"), NOON, TIMINGS), lease=lease)
    assert done.execution.steps["a"].percent is None


def test_settle_decides_again_when_somebody_wrote_first(store: Store) -> None:
    created = store.create(accept_decision("a"))
    lost = rescue(created, "a", NOON + 10 * SECOND, TIMINGS)
    assert lost is not None
    store.save(created, lost)
    settled = settle(store, created, lambda current: claim_decision(current, "a"))
    assert settled is not None
    assert settled.record.execution.steps["a"].offers == 2
    assert settled.record.execution.steps["a"].token == "token-1"


def test_one_of_two_claims_at_once_wins(store: Store) -> None:
    created = store.create(accept_decision("a"))

    def try_claim(token: str) -> bool:
        settled = settle(store, created, lambda current: claim(current, "a", token, NOON, TIMINGS))
        return settled is not None

    with ThreadPoolExecutor(10) as workers:
        won = list(workers.map(try_claim, (f"token-{number}" for number in range(10))))
    assert won.count(True) == 1


def test_one_reconciler_leads_until_its_lease_is_over(store: Store) -> None:
    assert store.acquire_leadership("a", NOON, NOON + 3 * SECOND)
    assert not store.acquire_leadership("b", NOON + SECOND, NOON + 4 * SECOND)
    assert store.acquire_leadership("a", NOON + 2 * SECOND, NOON + 5 * SECOND)
    assert store.acquire_leadership("b", NOON + 6 * SECOND, NOON + 9 * SECOND)


def test_a_run_nobody_started_has_no_leases() -> None:
    with pytest.raises(ValueError, match="has no lease"):
        accept_decision("a").execution.lease_of("a")
    assert not unstarted_run().steps


def log_report(*lines: str) -> ProgressReport:
    return ProgressReport([LogEvent(NOON, "agent.log", line, agent="a", step="a") for line in lines])


def test_a_page_of_lines_is_read_without_the_others(store: Store) -> None:
    execution, lease = create_claimed(store, "a")
    for first in (1, 601):
        lines = tuple(LogEvent(NOON, "agent.log", f"line {number}") for number in range(first, first + 600))
        store.report(lease, ProgressReport(events=lines))
    whole = store.read(PUBLIC_INTEGRATOR, execution.id)
    assert whole is not None
    assert whole.first_seq > 1
    for after in (None, 0, whole.first_seq - 1, whole.first_seq, whole.lines_total - 3, whole.lines_total, 2**53):
        for limit in (1, 10, 1_000):
            page = store.read(PUBLIC_INTEGRATOR, execution.id, page=LogPageQuery(after, limit))
            assert page == whole.with_log_page(LogPageQuery(after, limit))
            assert page is not None
            assert len(page.events) <= limit
    assert store.read("somebody", execution.id, page=LogPageQuery(0)) is None


def test_several_are_loaded_whole_and_those_of_another_integrator_not(store: Store) -> None:
    decisions = [accept_decision("a", "b"), accept_decision("a")]
    theirs = store.create(accept_decision(integrator="somebody"))
    for decision in decisions:
        store.create(decision)
    ids = [decision.execution.id for decision in decisions]
    found = store.load_all(PUBLIC_INTEGRATOR, [*ids, theirs.id, "1763700000_0000000000000000"])
    assert {record.execution.id: record for record in found} == {
        decision.execution.id: decision.initial_record for decision in decisions
    }


def claims_of(store: Store, count: int) -> list[BulkSave]:
    """Build the claims of ``count`` new runs, each on the loaded record."""
    runs = [store.create(accept_decision("a")) for _ in range(count)]
    records = {record.execution.id: record for record in store.load_all(PUBLIC_INTEGRATOR, [run.id for run in runs])}
    return [BulkSave(records[run.id], claim_decision(run, "a", f"token-{run.id}")) for run in runs]


def completions_of(claims: list[BulkSave]) -> list[BulkSave]:
    """Build the completions that follow ``claims``, each on the record that must exist after its claim."""
    held = [save.decision.apply_to(save.before) for save in claims]
    leases = [record.execution.lease_of("a") for record in held]
    output = StepOutput("a", b'{"n":1}')
    return [
        BulkSave(record, complete(record.execution, lease, output, NOON, TIMINGS), lease)
        for record, lease in zip(held, leases, strict=True)
    ]


def test_decisions_on_several_are_written_and_their_records_are_known_unread(store: Store) -> None:
    claims = claims_of(store, 3)
    assert store.save_all(claims)
    ends = completions_of(claims)
    assert store.save_all(ends)
    for end in ends:
        assert store.read(PUBLIC_INTEGRATOR, end.before.execution.id) == end.decision.apply_to(end.before)


def test_what_is_written_already_is_not_written_twice(store: Store) -> None:
    claims = [replace(save, decision=waiting_for_majority(save.decision)) for save in claims_of(store, 2)]
    assert store.save_all(claims)
    before = [store.read(PUBLIC_INTEGRATOR, claim.before.execution.id) for claim in claims]
    assert not store.save_all(claims)
    assert [store.read(PUBLIC_INTEGRATOR, claim.before.execution.id) for claim in claims] == before


def test_one_that_moved_on_by_version_rev_or_lease_is_refused_and_the_others_are_written(store: Store) -> None:
    claims = claims_of(store, 4)
    assert store.save_all(claims)
    ends = completions_of(claims)
    reported, lost, gone = (end.before.execution for end in ends[:3])
    assert store.report(reported.lease_of("a"), ProgressReport(percent=50)) is not None
    assert ends[1].lease is not None
    ends[1] = replace(ends[1], lease=replace(ends[1].lease, token="another"))
    store.save(gone, fail(gone, gone.lease_of("a"), RunError("agent_error", "no", ErrorKind.PERMANENT), NOON))
    assert not store.save_all(ends)
    statuses = [(store.load(PUBLIC_INTEGRATOR, end.before.execution.id) or unstarted_run()).status for end in ends]
    assert lost.status is ExecutionStatus.RUNNING
    assert statuses == ["running", "running", "failed", "completed"]
