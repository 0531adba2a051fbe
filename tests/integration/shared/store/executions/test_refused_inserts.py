"""What a batch is told whose runs were stored meanwhile by another: soon, whatever the store does."""

from __future__ import annotations

from collections.abc import Mapping

from shared.domain.execution import Execution, Idempotency
from shared.domain.lifecycle.decision import Decision
from shared.errors import Unavailable
from shared.ids import new_execution_id
from shared.store.database import Database
from shared.store.executions.queries import MongoExecutionQueries
from shared.store.executions.store import MongoExecutionStore
from tests.builders import NOON, SECOND, HandClock, accepted

COUNT = 20


def batch() -> list[Decision]:
    return [
        accepted("a", id=new_execution_id(NOON), idempotency=Idempotency(f"key-{number}", ""))
        for number in range(COUNT)
    ]


class Store(MongoExecutionStore):
    """Counts the runs that it is to store alone; ``is_gone`` has it answer none of them."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, HandClock())
        self.asked = 0
        self.is_gone = False

    def create(self, accepted: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        self.asked += 1
        if self.is_gone:
            raise Unavailable
        return super().create(accepted, outputs)


def test_the_same_batch_twice_at_once_is_decided_in_one_look(database: Database) -> None:
    store = Store(database)
    many = MongoExecutionQueries(database, HandClock(), store)
    first, second = batch(), batch()
    many.create_many(first)
    found = many.create_many(second)
    assert [run.id for run in found if not isinstance(run, Exception)] == [run.execution.id for run in first]
    assert store.asked == 0


def test_a_store_that_goes_away_meanwhile_is_not_asked_for_each(database: Database) -> None:
    store = Store(database)
    many = MongoExecutionQueries(database, HandClock(), store)
    many.create_many(batch())
    store.is_gone = True
    a_day_later = MongoExecutionQueries(
        database, HandClock(NOON + 25 * 3_600 * SECOND), store
    )  # no key is held any more
    assert all(isinstance(each, Unavailable) for each in a_day_later.create_many(batch()))
    assert store.asked == 1
