"""Dead letters on a real MongoDB: failed runs and unreadable messages in one list, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.dead_letter import DeadLetterKind, DeadLetterPosition
from shared.domain.execution import PUBLIC_INTEGRATOR, ErrorKind, Execution, ExecutionRecord, RunError
from shared.domain.lifecycle.rerun import RetryFrom, RetryRequest, retry_execution
from shared.domain.lifecycle.transitions import fail, start
from shared.store.database import Database
from shared.store.executions.dead_letter_store import MESSAGE_MAX_BYTES, MongoDeadLetterStore
from shared.store.executions.store import MongoExecutionStore
from tests.builders import NOON, TERMS, HandClock, accepted, claimed


class Bench:
    """A database with a clock, and what fails in it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = HandClock()
        self.store = MongoExecutionStore(database, self.clock)
        self.letters = MongoDeadLetterStore(database, self.clock)

    def failed(self, kind: ErrorKind = ErrorKind.TRANSIENT, **changes: Any) -> Execution:
        """A run that failed for good, one second after the last."""
        now = self.clock.forward(1)
        run = self.store.create(accepted(**changes))
        run = self.store.save(run, claimed(run, "only")).execution
        lease = run.lease_of("only")
        error = RunError("agent_error", "no", kind, "only", "only", 1)
        advance = fail(replace(run, basket=_without_retries(run)), lease, error, now)
        return self.store.save(run, replace(advance, execution=replace(advance.execution, basket=run.basket)),
                               lease=lease).execution  # fmt: skip

    def pages(self, limit: int) -> list[str]:
        """The ids of all letters, read page by page."""
        ids: list[str] = []
        after: DeadLetterPosition | None = None
        while page := self.letters.page(PUBLIC_INTEGRATOR, limit, after):
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


def test_a_run_whose_retries_are_used_up_is_a_dead_letter_and_one_that_broke_by_itself_is_none(bench: Bench) -> None:
    dead = bench.failed()
    bench.failed(ErrorKind.PERMANENT)
    bench.store.create(accepted())
    bench.failed(integrator="somebody")
    (letter,) = bench.letters.page(PUBLIC_INTEGRATOR, 10)
    assert (letter.id, letter.kind, letter.execution_id, letter.basket_name) == (
        dead.id, DeadLetterKind.EXECUTION, dead.id, "boring",
    )  # fmt: skip
    assert (letter.error, letter.finished_at) == (dead.error, dead.finished_at)
    assert bench.letters.find(PUBLIC_INTEGRATOR, dead.id) == letter
    assert bench.letters.find("somebody", dead.id) is None
    assert bench.letters.find(PUBLIC_INTEGRATOR, "1763700000_0000000000000000") is None


def test_its_retries_are_named_in_their_order(bench: Bench) -> None:
    dead = bench.failed()
    made = []
    for number in range(2):
        asked = RetryRequest(f"1763700000_000000000000000{number}", NOON + timedelta(seconds=number), "req")
        made.append(
            bench.store.create(
                start(retry_execution(ExecutionRecord(dead), asked, RetryFrom.FAILED)[0], asked.at, TERMS)
            ).id
        )
    (letter,) = bench.letters.page(PUBLIC_INTEGRATOR, 10)
    assert list(letter.retried_as) == made


def test_a_message_is_kept_once_counted_and_cut(bench: Bench) -> None:
    for _ in range(3):
        bench.clock.forward(1)
        bench.letters.add_message(PUBLIC_INTEGRATOR, "ü" * 10_000 + "\ud800")
    (letter,) = bench.letters.page(PUBLIC_INTEGRATOR, 10)
    assert (letter.kind, letter.occurrences, letter.finished_at) == (DeadLetterKind.MESSAGE, 3, bench.clock.now())
    assert letter.message is not None
    assert len(letter.message.encode()) <= MESSAGE_MAX_BYTES
    assert letter.execution_id is None
    assert bench.letters.find(PUBLIC_INTEGRATOR, letter.id) == letter


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_pages_hold_every_letter_once_the_newest_first_also_where_moments_are_equal(bench: Bench, limit: int) -> None:
    expected = []
    for number in range(6):
        if number == 3:
            bench.clock.forward(-1)  # the next one falls into the same moment
        expected.append((bench.clock.at + timedelta(seconds=1), bench.failed().id))
        bench.letters.add_message(PUBLIC_INTEGRATOR, f"message {number}")
        expected.append(
            (
                bench.clock.at,
                next(x.id for x in bench.letters.page(PUBLIC_INTEGRATOR, 100) if x.message == f"message {number}"),
            )
        )
    assert bench.pages(limit) == [letter_id for _, letter_id in sorted(expected, reverse=True)]


def test_a_page_is_read_by_its_index_however_many_runs_there_are(bench: Bench) -> None:
    """The flag alone leads there: neither a scan nor a sort in memory."""
    bench.failed()
    wanted = {"integrator": PUBLIC_INTEGRATOR, "dead_letter": True, "finished_at": {"$lte": NOON + timedelta(days=1)}}
    found = bench.database.collection("executions").find(wanted).sort([("finished_at", -1), ("_id", -1)]).limit(10)
    plan = str(found.explain()["queryPlanner"]["winningPlan"])
    assert "dead_letter_pages" in plan
    assert "'SORT'" not in plan
    retries = bench.database.collection("executions").find(
        {"integrator": PUBLIC_INTEGRATOR, "retry_of": {"$in": ["a", "b"]}}
    )
    assert "'retry_of'" in str(retries.explain()["queryPlanner"]["winningPlan"])
