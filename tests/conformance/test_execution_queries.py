"""Conformance suite of the queries on many executions: every adapter passes the same tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR, Execution, Idempotency
from shared.domain.list_query import ListOrder, ListPosition, ListQuery
from shared.domain.status import ExecutionStatus
from shared.errors import OutcomeUnknown
from shared.ids import new_execution_id
from shared.live.render import render, render_status
from shared.store.database import Database
from shared.store.executions.queries import MongoExecutionQueries, RecordBatch
from shared.store.executions.store import MongoExecutionStore
from tests.builders import NOON, SECOND, ManualClock, accept_decision, claim_decision, complete_decision
from tests.in_memory_store import InMemoryExecutionStore

UNKNOWN_ID = "1763700000_0000000000000000"


Store = InMemoryExecutionStore
"""Both adapters have its methods that are under test."""


class _MongoStoreWithQueries:
    """The two MongoDB adapters over one database, as one store."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self._store = MongoExecutionStore(database, clock)
        self._many = MongoExecutionQueries(database, clock, self._store)

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._many if hasattr(self._many, verb) else self._store, verb)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[Store]:
    if request.param == "memory":
        yield InMemoryExecutionStore(clock)
        return
    with closing(Database(request.getfixturevalue("mongodb_url"), "test", deadline_s=30)) as database:
        database.ensure_indexes()
        yield _MongoStoreWithQueries(database, clock)  # type: ignore[misc]


def create_run(store: Store, after_s: float = 0.0, **changes: Any) -> Execution:
    """Create a run that was accepted ``after_s`` seconds after noon."""
    at = NOON + timedelta(seconds=after_s)
    return store.create(accept_decision(id=new_execution_id(at), created_at=at, **changes))


def claim_run(store: Store, run: Execution) -> Execution:
    """Claim the run's step and wait for a majority: a claim that is written alone does not."""
    return store.save(run, replace(claim_decision(run, "only"), is_lock_only=False)).execution


def ids_of(store: Store, limit: int = 100, after: ListPosition | None = None, **filters: Any) -> list[str]:
    return [row.execution.id for row in store.list_page(PUBLIC_INTEGRATOR, ListQuery(**filters), limit, after)]


def all_pages(store: Store, limit: int, **filters: Any) -> list[str]:
    """Return the ids of all pages; each page is requested with the position of the previous page's last row."""
    ids: list[str] = []
    after: ListPosition | None = None
    while rows := store.list_page(PUBLIC_INTEGRATOR, ListQuery(**filters), limit, after):
        assert len(rows) <= limit
        ids += [row.execution.id for row in rows]
        after = rows[-1].position
    return ids


def test_a_list_begins_with_the_newest_or_with_the_oldest(store: Store) -> None:
    runs = [create_run(store, number).id for number in range(3)]
    assert ids_of(store) == runs[::-1]
    assert ids_of(store, order=ListOrder.OLDEST) == runs
    assert ids_of(store, 2) == runs[:0:-1]
    assert store.list_page("somebody", ListQuery(), 10) == []


@pytest.mark.parametrize("order", list(ListOrder))
def test_pages_bear_each_row_once_though_many_share_a_millisecond(store: Store, order: ListOrder) -> None:
    runs = sorted((run.created_at, run.id) for run in (create_run(store, number // 4) for number in range(11)))
    ids = [run_id for _, run_id in runs]
    for limit in (1, 3, 11):
        assert all_pages(store, limit, order=order) == (ids[::-1] if order is ListOrder.NEWEST else ids)


@pytest.mark.parametrize("order", [ListOrder.NEWEST, ListOrder.OLDEST])
def test_pages_are_stable_while_runs_arrive_and_change(store: Store, order: ListOrder) -> None:
    runs = [create_run(store, number) for number in range(6)]
    first = store.list_page(PUBLIC_INTEGRATOR, ListQuery(order=order), 3)
    create_run(store, 1.5)
    later = create_run(store, 60)
    claim_run(store, runs[2])
    rest = ids_of(store, 100, first[-1].position, order=order)
    seen = [*(row.execution.id for row in first), *rest]
    assert len(seen) == len(set(seen)), "no row came twice"
    assert {run.id for run in runs} <= set(seen), "none was skipped"
    assert (later.id in seen) == (order is ListOrder.OLDEST)


def test_a_row_has_metadata_only_if_it_is_asked_for(store: Store) -> None:
    create_run(store, 0, metadata=b'{"order":7}', input=b'{"a":1}')
    for with_metadata, metadata in ((False, b"{}"), (True, b'{"order":7}')):
        (row,) = store.list_page(PUBLIC_INTEGRATOR, ListQuery(), 1, with_metadata=with_metadata)
        assert (row.execution.metadata, row.execution.input) == (metadata, b"{}")


def test_rows_are_read_by_id_with_metadata_and_never_older_than_the_caller_has_seen(store: Store) -> None:
    runs = [create_run(store, number, metadata=b'{"order":7}') for number in range(2)]
    running = claim_run(store, runs[1])
    gone = new_execution_id(NOON)
    rows = store.read_rows(PUBLIC_INTEGRATOR, {runs[0].id: 1, running.id: running.rev, gone: 1})
    assert {run_id: (row.rev, row.metadata) for run_id, row in rows.items()} == {
        runs[0].id: (1, b'{"order":7}'), running.id: (running.rev, b'{"order":7}'),
    }  # fmt: skip
    assert store.read_rows("somebody", {runs[0].id: 1}) == {}


def test_each_filter_finds_its_own_and_all_of_them_count_together(store: Store) -> None:
    plain = create_run(store, 0)
    keyed = Idempotency("order-7", "fingerprint")
    tagged = create_run(store, 1, tags=("a", "b"), request_id="req-1", reference="A-7", idempotency=keyed)
    again = create_run(store, 2, tags=("b",), request_id="req-1", retry_of=plain.id)
    running = claim_run(store, again)

    assert ids_of(store, tag="b") == [again.id, tagged.id]
    assert ids_of(store, tag="a") == [tagged.id]
    assert ids_of(store, request_id="req-1", tag="a") == [tagged.id]
    assert ids_of(store, retry_of=plain.id) == [again.id]
    assert ids_of(store, reference="A-7") == ids_of(store, idempotency_keys=("x", "order-7")) == [tagged.id]
    assert ids_of(store, reference="a-7") == ids_of(store, idempotency_keys=()) == []
    assert store.list_page(PUBLIC_INTEGRATOR, ListQuery(reference="A-7"), 1)[0].execution.reference == "A-7"
    assert ids_of(store, statuses=(ExecutionStatus.RUNNING,)) == [again.id]
    assert ids_of(store, statuses=(ExecutionStatus.QUEUED,)) == [tagged.id, plain.id]
    both = (ExecutionStatus.QUEUED, ExecutionStatus.RUNNING)
    assert ids_of(store, statuses=both) == [again.id, tagged.id, plain.id]
    assert ids_of(store, basket="boring") == [again.id, tagged.id, plain.id]
    assert ids_of(store, basket="boring", tag="b", statuses=(ExecutionStatus.QUEUED,)) == [tagged.id]
    store.save(running, complete_decision(running))
    assert ids_of(store, statuses=(ExecutionStatus.COMPLETED,)) == [again.id]
    assert ids_of(store, statuses=(ExecutionStatus.RUNNING,)) == []


def test_what_nobody_has_is_found_by_nothing(store: Store) -> None:
    create_run(store, tags=("a",))
    for value in ('{"$gt":""}', "$ne", "\0", "a\0", "x" * 10_000, ""):
        for name in ("basket", "tag", "request_id", "retry_of"):
            assert ids_of(store, **{name: value}) == []


def test_moments_bound_a_list(store: Store) -> None:
    runs = [create_run(store, number).id for number in range(4)]
    assert ids_of(store, created_after=NOON + SECOND) == [runs[3], runs[2]]
    assert ids_of(store, created_before=NOON + SECOND) == [runs[0]]
    between = {"created_after": NOON, "created_before": NOON + 3 * SECOND}
    assert ids_of(store, **between) == [runs[2], runs[1]]
    a_little = timedelta(microseconds=1)
    assert ids_of(store, created_before=NOON + a_little) == [runs[0]], "finer than what is stored"
    assert ids_of(store, created_after=NOON - a_little, order=ListOrder.OLDEST) == runs
    assert all_pages(store, 1, created_after=NOON, order=ListOrder.OLDEST) == runs[1:]


def test_updated_since_finds_what_has_visibly_changed(store: Store, clock: ManualClock) -> None:
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    runs = [store.create(accept_decision(id=new_execution_id(long_ago), created_at=long_ago)) for _ in range(2)]
    assert ids_of(store, updated_since=long_ago, order=ListOrder.OLDEST) == sorted(run.id for run in runs)
    since = long_ago + timedelta(days=1)
    assert ids_of(store, updated_since=since) == []
    saved = claim_run(store, runs[0])
    store.renew(saved.lease_of("only"), NOON + timedelta(hours=1))
    assert ids_of(store, updated_since=since) == [runs[0].id]


def test_in_the_order_of_changes_none_is_passed_over_that_changes_while_pages_are_read(
    store: Store, clock: ManualClock
) -> None:
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    moments = [long_ago + number * SECOND for number in range(4)]
    runs = [store.create(accept_decision(id=new_execution_id(at), created_at=at)) for at in moments]
    ids = [run.id for run in runs]
    since = long_ago + SECOND
    first = store.list_page(PUBLIC_INTEGRATOR, ListQuery(updated_since=since, order=ListOrder.UPDATED), 2)
    assert [row.execution.id for row in first] == ids[1:3]
    claim_run(store, runs[2])
    claim_run(store, runs[0])
    clock.advance(1)
    rest = ids_of(store, 100, first[-1].position, updated_since=since, order=ListOrder.UPDATED)
    assert rest[0] == ids[3]
    assert sorted(rest[1:]) == [ids[0], ids[2]], "changed runs come at the end, whether seen before or not"


def test_a_row_is_the_status_view_of_the_poll(store: Store) -> None:
    run = create_run(store, tags=("a",), retry_of=UNKNOWN_ID, input=b'{"a":1}', metadata=b'{"b":2}')
    rows = [store.list_page(PUBLIC_INTEGRATOR, ListQuery(), 1)]
    running = claim_run(store, run)
    rows.append(store.list_page(PUBLIC_INTEGRATOR, ListQuery(), 1))
    store.save(running, complete_decision(running))
    rows.append(store.list_page(PUBLIC_INTEGRATOR, ListQuery(), 1))
    executions = [row.execution for (row,) in rows]
    assert [run.status for run in executions] == ["queued", "running", "completed"]
    assert {(run.input, run.metadata) for run in executions} == {(b"{}", b"{}")}
    record = store.read(PUBLIC_INTEGRATOR, run.id)
    assert record is not None
    whole = render(record)
    assert whole is not None
    assert whole.startswith(render_status(executions[-1]) + b',"steps":[')


def test_revisions_are_compared_and_only_what_differs_is_answered(store: Store) -> None:
    runs = [create_run(store, number, input=b'{"a":1}') for number in range(5)]
    without_input = [replace(run, input=b"{}") for run in runs]
    running = claim_run(store, runs[4])
    store.save(running, complete_decision(running))
    revs = {runs[0].id: 1, runs[1].id: None, UNKNOWN_ID: 1, runs[2].id: 7, runs[3].id: 1, runs[4].id: 3}
    found = store.compare_revisions(PUBLIC_INTEGRATOR, revs, 10)
    assert sorted(run.id for run in found.changed) == sorted((runs[1].id, runs[2].id))
    assert without_input[1] in found.changed, "without its input"
    assert sorted(run.id for run in found.live) == sorted((runs[0].id, runs[3].id)), "and not the one that has ended"
    assert (found.unchanged, found.missing) == (3, [UNKNOWN_ID])
    for ids in ([runs[0].id, runs[3].id], [runs[3].id, runs[0].id]):
        [first] = store.compare_revisions(PUBLIC_INTEGRATOR, dict.fromkeys(ids, 1), 1).live
        assert first.id == ids[0], "the first in the order of the request"


def test_what_is_another_integrators_or_withdrawn_is_missing(store: Store) -> None:
    run = create_run(store)
    assert store.compare_revisions("somebody", {run.id: 1}, 1).missing == [run.id]
    store.withdraw(PUBLIC_INTEGRATOR, run.id)
    assert store.compare_revisions(PUBLIC_INTEGRATOR, {run.id: 1}, 1).missing == [run.id]
    assert store.read_many(PUBLIC_INTEGRATOR, [run.id, UNKNOWN_ID], 1) == RecordBatch([], [])


def test_whole_records_end_once_there_are_bytes_enough(store: Store) -> None:
    runs = []
    for number in range(4):
        run = create_run(store, number)
        running = claim_run(store, run)
        lease = running.lease_of("only")
        done = complete_decision(running, b'{"text":"' + b"x" * 1_000 + b'"}')
        runs.append(store.save(running, done, lease=lease).execution.id)
    assert {record.execution.id for record in store.read_many(PUBLIC_INTEGRATOR, runs, 1_000_000).records} == set(runs)
    assert len(store.read_many(PUBLIC_INTEGRATOR, runs, 1_500).records) == 2
    (one,) = store.read_many(PUBLIC_INTEGRATOR, runs, 1).records
    assert one == store.read(PUBLIC_INTEGRATOR, one.execution.id)


def test_a_batch_is_stored_run_by_run(store: Store) -> None:
    batch = [accept_decision(id=new_execution_id(NOON)) for _ in range(20)]
    assert list(store.create_many(batch)) == [decision.execution for decision in batch]
    assert store.read(PUBLIC_INTEGRATOR, batch[7].execution.id) == batch[7].initial_record
    assert store.create_many([]) == []


def test_one_of_a_batch_that_cannot_be_stored_leaves_the_others_alone(store: Store) -> None:
    key = Idempotency("taken", "print")
    holder = store.create(accept_decision(idempotency=key))
    gone = accept_decision()
    store.withdraw(PUBLIC_INTEGRATOR, gone.execution.id)
    fresh = [accept_decision(idempotency=Idempotency("free", "print")), accept_decision()]
    first, taken, withdrawn, last = store.create_many([fresh[0], accept_decision(idempotency=key), gone, fresh[1]])
    assert (first, last) == (fresh[0].execution, fresh[1].execution)
    assert taken == holder
    assert isinstance(withdrawn, OutcomeUnknown)
    assert len(store.list_page(PUBLIC_INTEGRATOR, ListQuery(), 100)) == 3


def test_one_write_of_several_tells_the_places_of_those_that_were_refused(store: Store) -> None:
    key = Idempotency("taken", "print")
    holder = store.create(accept_decision(idempotency=key))
    again = accept_decision(idempotency=key)
    assert set(store.insert_all([accept_decision(), again, accept_decision()])) == {1}
    assert store.read(PUBLIC_INTEGRATOR, again.execution.id) is None
    assert store.find_by_idempotency_key(PUBLIC_INTEGRATOR, "taken") == holder
    assert len(store.list_page(PUBLIC_INTEGRATOR, ListQuery(), 100)) == 3
    assert list(store.insert_all([accept_decision()])) == []


def test_holders_are_found_for_a_day_by_their_own_integrator(store: Store, clock: ManualClock) -> None:
    holders = [store.create(accept_decision(idempotency=Idempotency(f"key-{number}", "print"))) for number in range(2)]
    store.create(accept_decision())
    keys = ["key-0", "key-1", "key-2"]
    assert store.find_by_idempotency_keys(PUBLIC_INTEGRATOR, keys) == {"key-0": holders[0], "key-1": holders[1]}
    assert store.find_by_idempotency_keys("somebody", keys) == {}
    clock.advance(24 * 3600)
    assert store.find_by_idempotency_keys(PUBLIC_INTEGRATOR, keys) == {}


def test_a_key_that_was_free_again_after_a_day_is_taken_by_a_batch(store: Store, clock: ManualClock) -> None:
    key = Idempotency("key", "print")
    store.create(accept_decision(idempotency=key))
    clock.advance(24 * 3600)
    again = accept_decision(idempotency=key)
    assert list(store.create_many([again])) == [again.execution]
    assert store.load(PUBLIC_INTEGRATOR, again.execution.id) == again.execution


def test_the_newest_executions_come_first(store: Store) -> None:
    for hours in range(3):
        at = NOON + timedelta(hours=hours)
        store.create(accept_decision(id=new_execution_id(at), created_at=at))
    assert [record.execution.created_at.hour for record in store.read_newest(PUBLIC_INTEGRATOR, 2, 100)] == [14, 13]


def test_of_the_newest_executions_no_more_are_read_once_there_are_lines_enough(store: Store) -> None:
    for hours in range(4):
        at = NOON + timedelta(hours=hours)
        store.create(
            accept_decision(id=new_execution_id(at), created_at=at)
        )  # each with one log line, of its acceptance
    assert [record.execution.created_at.hour for record in store.read_newest(PUBLIC_INTEGRATOR, 4, 2)] == [15, 14]


def test_each_query_sees_one_integrator_or_all_of_them(store: Store) -> None:
    ours, theirs = create_run(store, 0), create_run(store, 1, integrator="acme")
    everybody = [theirs.id, ours.id]
    for scope, expected in ((PUBLIC_INTEGRATOR, [ours.id]), ("acme", [theirs.id]), ("nobody", []), (None, everybody)):
        assert [row.execution.id for row in store.list_page(scope, ListQuery(), 10)] == expected
        assert [record.execution.id for record in store.read_newest(scope, 10, 100)] == expected
        assert {record.execution.id for record in store.read_many(scope, everybody, 1_000).records} == set(expected)
        assert set(store.read_rows(scope, dict.fromkeys(everybody, 1))) == set(expected)
        compared = store.compare_revisions(scope, dict.fromkeys(everybody, 1), 10)
        assert {run.id for run in compared.live} == set(expected)
        assert set(compared.missing) == set(everybody) - set(expected)
        assert [run for run in everybody if store.load(scope, run)] == expected
        assert [run for run in everybody if store.read(scope, run)] == expected
    assert [store.find_integrator(run) for run in everybody] == ["acme", PUBLIC_INTEGRATOR]
    assert store.find_integrator(UNKNOWN_ID) is None
