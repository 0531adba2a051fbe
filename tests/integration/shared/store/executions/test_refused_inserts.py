"""Bulk inserts of runs that another writer has stored meanwhile: resolved quickly, whatever the store does."""

from __future__ import annotations

from collections.abc import Mapping

from shared.domain.execution import Execution, Idempotency
from shared.domain.lifecycle.decision import Decision
from shared.errors import Unavailable
from shared.ids import new_execution_id
from shared.store.database import Database
from shared.store.executions.queries import MongoExecutionQueries
from shared.store.executions.store import MongoExecutionStore
from tests.builders import NOON, SECOND, ManualClock, accept_decision

COUNT = 20


def batch() -> list[Decision]:
    return [
        accept_decision("a", id=new_execution_id(NOON), idempotency=Idempotency(f"key-{number}", ""))
        for number in range(COUNT)
    ]


class Store(MongoExecutionStore):
    """Counts the runs that it must store alone; if ``is_gone`` it fails them all."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, ManualClock())
        self.asked = 0
        self.is_gone = False

    def create(self, accepted: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        self.asked += 1
        if self.is_gone:
            raise Unavailable
        return super().create(accepted, outputs)


def test_the_same_batch_twice_at_once_is_resolved_by_one_query(database: Database) -> None:
    store = Store(database)
    many = MongoExecutionQueries(database, ManualClock(), store)
    first, second = batch(), batch()
    many.create_many(first)
    results = many.create_many(second)
    assert [run.id for run in results if not isinstance(run, Exception)] == [run.execution.id for run in first]
    assert store.asked == 0


def test_a_store_that_goes_away_is_not_called_for_each_run(database: Database) -> None:
    store = Store(database)
    many = MongoExecutionQueries(database, ManualClock(), store)
    many.create_many(batch())
    store.is_gone = True
    a_day_later = MongoExecutionQueries(
        database, ManualClock(NOON + 25 * 3_600 * SECOND), store
    )  # no key is kept any more
    assert all(isinstance(result, Unavailable) for result in a_day_later.create_many(batch()))
    assert store.asked == 1
