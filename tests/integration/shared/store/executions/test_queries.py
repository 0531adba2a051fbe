"""Queries for hundreds of executions cost one reply; a batch that is exactly full, or mongod's 101, costs another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR, Idempotency, batch_item_key
from shared.domain.list_query import ListQuery
from shared.ids import new_execution_id
from shared.store.database import Database
from shared.store.executions.queries import MongoExecutionQueries
from shared.store.executions.store import MongoExecutionStore
from tests.builders import NOON, ManualClock, accept_decision

COUNT = 150


@pytest.fixture
def more_replies(database: Database) -> Callable[[], int]:
    """Return a function that counts the getMore commands, that is the replies after the first of each query."""
    admin = database.collection("executions").database.client.admin
    return lambda: int(admin.command("serverStatus")["opcounters"]["getmore"])


def test_lists_comparisons_and_key_lookups_take_one_reply(database: Database, more_replies: Callable[[], int]) -> None:
    clock = ManualClock()
    many = MongoExecutionQueries(database, clock, MongoExecutionStore(database, clock))
    keys = [f"key-{number}" for number in range(COUNT)]
    runs = [accept_decision("a", id=new_execution_id(NOON), idempotency=Idempotency(key, "")) for key in keys]
    ids = [run.id for run in many.create_many(runs) if not isinstance(run, Exception)]
    before = more_replies()
    assert len(many.compare_revisions(PUBLIC_INTEGRATOR, dict.fromkeys(ids), 10).changed) == COUNT
    assert len(many.list_page(PUBLIC_INTEGRATOR, ListQuery(), COUNT)) == COUNT
    assert len(many.find_by_idempotency_keys(PUBLIC_INTEGRATOR, keys)) == COUNT
    assert more_replies() == before


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ({"reference": "A-7"}, "list_by_reference"),
        ({"error.error_code": "timeout"}, "list_by_code"),
        ({"idempotency.key": {"$in": [batch_item_key("daily", index) for index in range(500)]}}, "idempotency_key"),
    ],
)
def test_lists_by_reference_and_by_key_are_read_by_their_index(
    database: Database, query: dict[str, Any], index: str
) -> None:
    clock = ManualClock()
    many = MongoExecutionQueries(database, clock, MongoExecutionStore(database, clock))
    many.create_many([accept_decision(id=new_execution_id(NOON)) for _ in range(200)])
    conditions = {"integrator": PUBLIC_INTEGRATOR, "status": {"$exists": True}} | query
    found = database.collection("executions").find(conditions)
    plan = found.sort([("created_at", -1), ("_id", -1)]).limit(101).explain()["queryPlanner"]["winningPlan"]
    assert f"'{index}'" in str(plan)
