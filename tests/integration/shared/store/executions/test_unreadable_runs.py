"""A run that cannot be read hides no other: pages stay whole, comparisons and batches have the rest."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.list_query import ListOrder, ListPosition, ListQuery
from shared.ids import new_execution_id
from shared.run_actions.matching_runs import list_positions
from shared.store.database import Database
from shared.store.executions.queries import MongoExecutionQueries
from shared.store.executions.store import MongoExecutionStore
from tests.builders import NOON, ManualClock, accept_decision

BREAKS: list[dict[str, Any]] = [
    {"$set": {"status": "weird"}},
    {"$unset": {"created_at": ""}},
    {"$set": {"created_at": "x"}},
    {"$set": {"finished_at": "x"}},
    {"$set": {"created_at": DatetimeMS(253_402_300_800_000)}},
    {"$set": {"status": ["queued"]}},
    {"$set": {"status": {"is": "queued"}}},
    {"$set": {"basket": b"zz"}},
    {"$set": {"steps": 5}},
]


class Bench:
    """Twelve runs, of which the ``broken`` cannot be read."""

    def __init__(self, database: Database, changes: dict[str, Any], broken: range) -> None:
        clock = ManualClock()
        self.queries = MongoExecutionQueries(database, clock, MongoExecutionStore(database, clock))
        times = [NOON + timedelta(seconds=number) for number in range(12)]
        decisions = [accept_decision(id=new_execution_id(at), created_at=at) for at in times]
        self.ids = [decision.execution.id for decision in decisions]
        self.queries.create_many(decisions)
        self.broken = [self.ids[number] for number in broken]
        self.readable = [each for each in self.ids if each not in self.broken]
        database.collection("executions").update_many({"_id": {"$in": self.broken}}, changes)

    def pages(self, query: ListQuery) -> list[list[str]]:
        pages: list[list[str]] = []
        after: ListPosition | None = None
        while page := self.queries.list_page(PUBLIC_INTEGRATOR, query, 3, after):
            pages.append([row.execution.id for row in page])
            after = page[-1].position
        return pages


@pytest.mark.parametrize("order", ListOrder)
@pytest.mark.parametrize("broken", [range(4, 5), range(2, 9), range(12)])
@pytest.mark.parametrize("changes", BREAKS)
def test_pages_of_a_list_stay_whole(
    database: Database, changes: dict[str, Any], broken: range, order: ListOrder
) -> None:
    bench = Bench(database, changes, broken)
    pages = bench.pages(ListQuery(order=order))
    assert sorted(each for page in pages for each in page) == bench.readable
    assert all(len(page) == 3 for page in pages[:-1])


@pytest.mark.parametrize("changes", BREAKS)
def test_comparisons_rows_and_batches_have_the_others(database: Database, changes: dict[str, Any]) -> None:
    bench = Bench(database, changes, range(3, 5))
    compared = bench.queries.compare_revisions(PUBLIC_INTEGRATOR, dict.fromkeys(bench.ids), 10)
    assert [run.id for run in compared.changed] == bench.readable
    assert compared.missing == bench.broken
    unchanged = bench.queries.compare_revisions(PUBLIC_INTEGRATOR, dict.fromkeys(bench.ids, 1), 12)
    assert set(bench.readable) == {run.id for run in unchanged.live}
    assert set(bench.queries.read_rows(PUBLIC_INTEGRATOR, dict.fromkeys(bench.ids, 1))) == set(bench.readable)
    batch = bench.queries.read_many(PUBLIC_INTEGRATOR, bench.ids, 10**6)
    assert sorted(record.execution.id for record in batch.records) == bench.readable
    assert sorted(batch.unreadable) == bench.broken


def test_the_archive_of_log_lines_has_the_others(database: Database) -> None:
    bench = Bench(database, {"$set": {"events": [{"bad": 1}]}}, range(3, 5))
    records = bench.queries.read_newest(PUBLIC_INTEGRATOR, 100, 1_000)
    assert sorted(record.execution.id for record in records) == bench.readable


def test_a_bulk_action_finds_the_others(database: Database) -> None:
    bench = Bench(database, {"$unset": {"created_at": ""}}, range(5))
    query = ListQuery(order=ListOrder.OLDEST)
    first = list_positions(database, PUBLIC_INTEGRATOR, query, 4)
    second = list_positions(database, PUBLIC_INTEGRATOR, query, 4, first[-1])
    assert [position.id for position in [*first, *second]] == bench.readable
