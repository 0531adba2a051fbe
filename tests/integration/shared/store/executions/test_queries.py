"""Hundreds of executions cost one reply: a batch that is just full, or mongod's own of 101, would cost another."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.domain.execution import PUBLIC, Idempotency
from shared.domain.list_query import Wanted
from shared.ids import new_execution_id
from shared.store.database import Database
from shared.store.executions.queries import MongoMany
from shared.store.executions.store import MongoStore
from tests.builders import NOON, HandClock, accepted

COUNT = 150


@pytest.fixture
def more_replies(database: Database) -> Callable[[], int]:
    """Answer how many replies mongod was asked for beside the first of each query."""
    admin = database.collection("executions").database.client.admin
    return lambda: int(admin.command("serverStatus")["opcounters"]["getmore"])


def test_lists_comparisons_and_keys_are_answered_in_one_reply(
    database: Database, more_replies: Callable[[], int]
) -> None:
    clock = HandClock()
    many = MongoMany(database, clock, MongoStore(database, clock))
    keys = [f"key-{number}" for number in range(COUNT)]
    runs = [accepted("a", id=new_execution_id(NOON), idempotency=Idempotency(key, "")) for key in keys]
    ids = [run.id for run in many.create_many(runs) if not isinstance(run, Exception)]
    before = more_replies()
    assert len(many.compare(PUBLIC, dict.fromkeys(ids), 10).changed) == COUNT
    assert len(many.page(PUBLIC, Wanted(), COUNT)) == COUNT
    assert len(many.holders(PUBLIC, keys)) == COUNT
    assert more_replies() == before
