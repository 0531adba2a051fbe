"""Dead letters on a real MongoDB: failed runs and unreadable messages in one list, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.dead_letter import DeadLetterKind, DeadLetterPosition
from shared.domain.execution import PUBLIC_INTEGRATOR, ErrorKind, Execution, ExecutionRecord, Idempotency, RunError
from shared.domain.lifecycle.rerun import RetryFrom, RetryRequest, retry_execution
from shared.domain.lifecycle.transitions import fail, start
from shared.errors import AlreadyRequeued
from shared.store.database import Database
from shared.store.executions.dead_letter_store import MESSAGE_MAX_BYTES, MongoDeadLetterStore
from shared.store.executions.store import MongoExecutionStore
from tests.builders import NOON, TIMINGS, ManualClock, accept_decision, claim_decision


class Bench:
    """A database with a clock set by the test, and the failed runs in it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self.store = MongoExecutionStore(database, self.clock)
        self.letters = MongoDeadLetterStore(database, self.clock)

    def failed(self, kind: ErrorKind = ErrorKind.TRANSIENT, **changes: Any) -> Execution:
        """Store a run that failed for good, one second after the last one."""
        now = self.clock.advance(1)
        run = self.store.create(accept_decision(**changes))
        run = self.store.save(run, claim_decision(run, "only")).execution
        lease = run.lease_of("only")
        error = RunError("agent_error", "no", kind, "only", "only", 1)
        decision = fail(replace(run, basket=_without_retries(run)), lease, error, now)
        return self.store.save(run, replace(decision, execution=replace(decision.execution, basket=run.basket)),
                               lease=lease).execution  # fmt: skip

    def pages(self, limit: int) -> list[str]:
        """Return the ids of all dead letters, read page by page."""
        ids: list[str] = []
        after: DeadLetterPosition | None = None
        while page := self.letters.list_page(PUBLIC_INTEGRATOR, limit, after):
            assert len(page) <= limit
            ids += [letter.id for letter in page]
            after = page[-1].position
        return ids


def _without_retries(run: Execution) -> Any:
    only = run.basket.steps[0]
    return replace(run.basket, steps=(replace(only, retry=replace(only.retry, attempts=1)),))


@pytest.fixture
def bench(mongodb_url: str) -> Iterator[Bench]:
    with closing(Database(mongodb_url, "test", deadline_s=5)) as database:
        database.ensure_indexes()
        yield Bench(database)


def test_a_run_without_retries_left_is_a_dead_letter_and_one_with_a_permanent_error_is_not(bench: Bench) -> None:
    dead = bench.failed()
    bench.failed(ErrorKind.PERMANENT)
    bench.store.create(accept_decision())
    bench.failed(integrator="somebody")
    (letter,) = bench.letters.list_page(PUBLIC_INTEGRATOR, 10)
    assert (letter.id, letter.kind, letter.execution_id, letter.basket_name) == (
        dead.id, DeadLetterKind.EXECUTION, dead.id, "boring",
    )  # fmt: skip
    assert (letter.error, letter.finished_at) == (dead.error, dead.finished_at)
    assert bench.letters.find(PUBLIC_INTEGRATOR, dead.id) == letter
    assert bench.letters.find("somebody", dead.id) is None
    assert bench.letters.find(PUBLIC_INTEGRATOR, "1763700000_0000000000000000") is None


def test_the_retries_of_a_dead_letter_are_named_in_order(bench: Bench) -> None:
    dead = bench.failed()
    run_ids = []
    for number in range(2):
        request = RetryRequest(f"1763700000_000000000000000{number}", NOON + timedelta(seconds=number), "req")
        run_ids.append(
            bench.store.create(
                start(retry_execution(ExecutionRecord(dead), request, RetryFrom.FAILED)[0], request.created_at, TIMINGS)
            ).id
        )
    (letter,) = bench.letters.list_page(PUBLIC_INTEGRATOR, 10)
    assert list(letter.retried_as) == run_ids


def test_a_message_is_stored_once_counted_and_cut(bench: Bench) -> None:
    for _ in range(3):
        bench.clock.advance(1)
        bench.letters.add_message(PUBLIC_INTEGRATOR, "ü" * 10_000 + "\ud800")
    (letter,) = bench.letters.list_page(PUBLIC_INTEGRATOR, 10)
    assert (letter.kind, letter.occurrences, letter.finished_at) == (DeadLetterKind.MESSAGE, 3, bench.clock.now())
    assert letter.message is not None
    assert len(letter.message.encode()) <= MESSAGE_MAX_BYTES
    assert letter.execution_id is None
    assert bench.letters.find(PUBLIC_INTEGRATOR, letter.id) == letter


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_pages_have_every_dead_letter_once_newest_first_also_with_equal_times(bench: Bench, limit: int) -> None:
    expected = []
    for number in range(6):
        if number == 3:
            bench.clock.advance(-1)  # the next one gets the same time
        expected.append((bench.clock.current + timedelta(seconds=1), bench.failed().id))
        bench.letters.add_message(PUBLIC_INTEGRATOR, f"message {number}")
        expected.append(
            (
                bench.clock.current,
                next(x.id for x in bench.letters.list_page(PUBLIC_INTEGRATOR, 100) if x.message == f"message {number}"),
            )
        )
    assert bench.pages(limit) == [letter_id for _, letter_id in sorted(expected, reverse=True)]


def test_a_page_is_read_by_its_index_however_many_runs_there_are(bench: Bench) -> None:
    """The index on the flag is enough: neither a collection scan nor a sort in memory."""
    bench.failed()
    query = {"integrator": PUBLIC_INTEGRATOR, "dead_letter": True, "finished_at": {"$lte": NOON + timedelta(days=1)}}
    cursor = bench.database.collection("executions").find(query).sort([("finished_at", -1), ("_id", -1)]).limit(10)
    plan = str(cursor.explain()["queryPlanner"]["winningPlan"])
    assert "dead_letter_pages" in plan
    assert "'SORT'" not in plan
    retries = bench.database.collection("executions").find(
        {"integrator": PUBLIC_INTEGRATOR, "retry_of": {"$in": ["a", "b"]}}
    )
    assert "'retry_of'" in str(retries.explain()["queryPlanner"]["winningPlan"])


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({"error.error_code": "agent_error"}, "dead_letters_by_code"),
        ({"error.agent": "only"}, "dead_letters_by_agent"),
        ({"basket_name": "boring"}, "dead_letters_by_basket"),
    ],
)
def test_a_filtered_page_is_read_by_an_index_of_its_own(bench: Bench, filters: dict[str, str], index: str) -> None:
    bench.failed()
    query = {"integrator": PUBLIC_INTEGRATOR, "dead_letter": True} | filters
    cursor = bench.database.collection("executions").find(query).sort([("finished_at", -1), ("_id", -1)])
    plans = str(cursor.hint(index).explain()["queryPlanner"]["winningPlan"])
    assert "'SORT'" not in plans
    messages = bench.database.collection("dead_letters").find({"integrator": PUBLIC_INTEGRATOR, "dismissed_at": None})
    plan = str(messages.sort([("finished_at", -1), ("_id", -1)]).explain()["queryPlanner"]["winningPlan"])
    assert ("open_pages" in plan, "'SORT'" in plan) == (True, False)


def requeue_of(letter: Execution, run_id: str, *, key: str | None = None) -> Any:
    idempotency = None if key is None else Idempotency(key, "the same body")
    request = RetryRequest(run_id, NOON, "req", is_requeue=True, idempotency=idempotency)
    return start(retry_execution(ExecutionRecord(letter), request, RetryFrom.FAILED)[0], NOON, TIMINGS)


def test_the_insert_of_a_run_decides_a_requeue_and_the_list_needs_no_second_write(bench: Bench) -> None:
    """As if the process had died after the insert: the flag of the letter is still there."""
    letters = [bench.failed() for _ in range(5)]
    for number in (4, 2, 3):
        bench.store.create(requeue_of(letters[number], f"1763700000_000000000000000{number}"))
    assert bench.pages(1) == bench.pages(2) == bench.pages(9) == [letters[1].id, letters[0].id]
    found = bench.letters.find(PUBLIC_INTEGRATOR, letters[3].id)
    assert found is not None
    assert found.requeued_as == "1763700000_0000000000000003"
    with pytest.raises(AlreadyRequeued) as refused:
        bench.store.create(requeue_of(letters[3], "1763700000_0000000000000009"))
    assert refused.value.extension_members == {"requeued_as": "1763700000_0000000000000003"}
    bench.letters.remove_requeued(PUBLIC_INTEGRATOR, letters[3].id)
    assert bench.database.collection("executions").count_documents({"dead_letter": True}) == 4


def test_the_same_requeue_with_the_same_key_finds_its_run(bench: Bench) -> None:
    letter = bench.failed()
    first = bench.store.create(requeue_of(letter, "1763700000_0000000000000001", key="k"))
    assert bench.store.create(requeue_of(letter, "1763700000_0000000000000002", key="k")).id == first.id
    with pytest.raises(AlreadyRequeued):
        bench.store.create(requeue_of(letter, "1763700000_0000000000000003", key="other"))


def test_a_withdrawn_requeue_leaves_the_letter_to_be_requeued(bench: Bench) -> None:
    letter = bench.failed()
    bench.store.create(requeue_of(letter, "1763700000_0000000000000001"))
    assert bench.store.withdraw(PUBLIC_INTEGRATOR, "1763700000_0000000000000001")
    assert bench.pages(2) == [letter.id]
    bench.store.create(requeue_of(letter, "1763700000_0000000000000002"))
    assert bench.pages(2) == []


def test_a_requeued_run_that_fails_is_a_dead_letter_whatever_its_error(bench: Bench) -> None:
    letter = bench.failed()
    second = bench.failed(ErrorKind.PERMANENT, requeue_of=letter.id, retry_of=letter.id)
    assert bench.pages(3) == [second.id]


@pytest.mark.parametrize("changes", [{"$set": {"error": {"kind": "weird"}}}, {"$unset": {"basket_name": ""}}])
def test_a_letter_that_cannot_be_read_hides_no_other(bench: Bench, changes: dict[str, Any]) -> None:
    ids = [bench.failed().id for _ in range(7)]
    executions = bench.database.collection("executions")
    executions.update_many({"_id": {"$in": ids[2:5]}}, changes)
    bench.letters.add_message(PUBLIC_INTEGRATOR, "broken")
    bench.database.collection("dead_letters").update_many({}, {"$unset": {"times": ""}})
    for limit in (1, 2, 10):
        assert bench.pages(limit) == [*ids[:4:-1], *ids[1::-1]]
    assert bench.letters.find(PUBLIC_INTEGRATOR, ids[3]) is None
