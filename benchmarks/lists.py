"""``python -m benchmarks.lists``: the cost of the indexes of ``GET /executions`` for a run, and their gain for a list.

Costs: mongod's CPU for inserting runs and writing each of them twice, in bulk and unjournalled, because the journal's
work would hide that of an index; with no list index, with each alone, with all, alternately. Pages: each filter with
few and many stored runs, with the keys and documents that mongod examined. It fails only if something broke.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pymongo import UpdateOne, WriteConcern
from pymongo.collection import Collection
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness.cpu_time import cpu_time_by_pid
from benchmarks.harness.http_dialects import BUCKET
from benchmarks.harness.load_generator import BenchmarkError
from benchmarks.harness.mongod_profiler import plan_of, recording
from benchmarks.harness.report import print_progress
from benchmarks.harness.sample_executions import accept_run, insert_finished
from benchmarks.harness.systems import SystemUnderTest
from compose.embedded.group_reaper import GroupReaper
from compose.operator_error import OperatorError
from shared.bootstrap import Services, bootstrap
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.list_query import ListOrder, ListQuery
from shared.domain.status import ExecutionStatus
from shared.errors import BucketError
from shared.settings import Settings
from shared.store.executions.documents import new_document
from shared.store.indexes import INDEXES

FEW: Final = 1_000
_RARE: Final = 50
_PAGE: Final = 100
_STEPS: Final = ("cashflow_analyzer", "goal_recommender")
_LIST_INDEXES: Final = {
    index.document["name"]: index for index in INDEXES["executions"] if index.document["name"].startswith("list")
}
_UNJOURNALLED: Final = WriteConcern(w=1, j=False)
_US: Final = 1_000_000


def measure_index_costs(side: SystemUnderTest, runs: int, rounds: int) -> Mapping[str, Sequence[float]]:
    """Return µs of mongod's CPU for a run, in each round, for each set of list indexes."""
    sets = {"none of them": [], **{name: [name] for name in _LIST_INDEXES}, "all": list(_LIST_INDEXES)}
    costs: dict[str, list[float]] = {name: [] for name in sets}
    databases = {
        name: _collection_with_indexes(side, f"cost{number}", index_names)
        for number, (name, index_names) in enumerate(sets.items())
    }
    for number in range(rounds):
        for name in sets if number % 2 == 0 else reversed(sets):
            costs[name].append(_measure_write_us(side, *databases[name], runs))
        print_progress(f"costs, round {number + 1}")
    return costs


def _services(side: SystemUnderTest, database: str) -> Services:
    return bootstrap(Settings(redis_url=side.redis_url, mongodb_url=side.mongodb_url_of(database)), "worker")


def _collection_with_indexes(
    side: SystemUnderTest, database: str, index_names: Sequence[str]
) -> tuple[Services, Collection[Any]]:
    services = _services(side, database)
    services.prepare()
    executions = services.database.collection("executions").with_options(write_concern=_UNJOURNALLED)
    for name in _LIST_INDEXES.keys() - set(index_names):
        executions.drop_index(name)
    return services, executions


def _measure_write_us(side: SystemUnderTest, services: Services, executions: Collection[Any], runs: int) -> float:
    now = services.clock.now()
    ages = [timedelta(milliseconds=number) for number in range(runs)]
    documents = [new_document(accept_run(now + age, services.timings, *_STEPS), {}) for age in ages]
    writes = [[_update_of(each, status) for each in documents] for status in ("running", "completed")]
    pid = side.pids()["mongod"]
    before = cpu_time_by_pid([pid])[pid]
    executions.insert_many(documents, ordered=False)
    for updates in writes:
        executions.bulk_write(updates, ordered=False)
    return (cpu_time_by_pid([pid])[pid] - before).total_s * _US / runs


def _update_of(document: Mapping[str, Any], status: str) -> UpdateOne:
    later = document["due_by"] + timedelta(seconds=9)
    lines = {"events": {"$each": document["events"], "$slice": -1_000}}
    to_set = {"status": status, "due_by": later}
    return UpdateOne({"_id": document["_id"]}, {"$set": to_set, "$push": lines, "$currentDate": {"updated_at": True}})


class ListDatabase:
    """One database with finished runs of one kind, and a few runs that differ in every field that lists filter by."""

    def __init__(self, side: SystemUnderTest, database: str, documents: int) -> None:
        self.services = _services(side, database)
        self.services.prepare()
        self._executions = self.services.database.collection("executions")
        now = self.services.clock.now()
        insert_finished(self._executions, documents, now, self.services.timings)
        self._add_rare(now, documents)
        middle = now - timedelta(seconds=documents // 2)
        self.queries = _list_queries(now, middle, documents)

    def _add_rare(self, now: datetime, documents: int) -> None:
        for number in range(_RARE):
            at = now - timedelta(seconds=(number + 1) * documents // (_RARE + 1))
            decision = accept_run(at, self.services.timings, *_STEPS)
            basket = replace(decision.execution.basket, name="rare")
            changed = replace(decision.execution, basket=basket, tags=("rare",), request_id="rare", retry_of="rare")
            failed = {"status": str(ExecutionStatus.FAILED), "due_by": None, "updated_at": now + timedelta(hours=1)}
            self._executions.insert_one(new_document(replace(decision, execution=changed), {}) | failed)

    def measure(self, rounds: int) -> Mapping[str, tuple[float, str, int, int]]:
        """Return, for each list, the median µs of a page, its plan's stages, and the keys and documents examined."""
        results = {}
        for name, query in self.queries.items():
            first = self.services.queries.list_page(PUBLIC_INTEGRATOR, query, _PAGE)
            after = first[-1].position if "second page" in name else None
            with recording(self._executions.database) as entries:
                rows = self.services.queries.list_page(PUBLIC_INTEGRATOR, query, _PAGE, after)
            if not rows:
                raise BenchmarkError(f"nothing was found: {name}")
            plans = [plan_of(self._executions.database, each) for each in entries if each["op"] == "query"]
            times = []
            for _ in range(rounds):
                began = time.perf_counter()
                self.services.queries.list_page(PUBLIC_INTEGRATOR, query, _PAGE, after)
                times.append(time.perf_counter() - began)
            stages = ", ".join(sorted({plan.stages for plan in plans}))
            examined = sum(plan.keys for plan in plans), sum(plan.documents for plan in plans)
            results[name] = (statistics.median(times) * _US, stages, *examined)
        return results


def _list_queries(now: datetime, middle: datetime, documents: int) -> Mapping[str, ListQuery]:
    rare = (ExecutionStatus.FAILED,)
    return {
        "all": ListQuery(),
        "all, second page": ListQuery(),
        "all, oldest first": ListQuery(order=ListOrder.OLDEST),
        "basket": ListQuery(basket="rare"),
        "a frequent basket": ListQuery(basket="chained_test"),
        "tag": ListQuery(tag="rare"),
        "a frequent tag, second page": ListQuery(tag="nightly"),
        "request_id": ListQuery(request_id="rare"),
        "retry_of": ListQuery(retry_of="rare"),
        "status": ListQuery(statuses=rare),
        "three statuses": ListQuery(statuses=(*rare, ExecutionStatus.QUEUED, ExecutionStatus.RUNNING)),
        "a frequent status": ListQuery(statuses=(ExecutionStatus.COMPLETED,)),
        "status and basket": ListQuery(statuses=rare, basket="rare"),
        "created between": ListQuery(created_after=middle, created_before=middle + timedelta(hours=1)),
        "updated lately": ListQuery(updated_since=now + timedelta(minutes=1)),
        "updated since long ago": ListQuery(updated_since=now - timedelta(days=100)),
        "the last tenth changed, second page": ListQuery(
            updated_since=now - timedelta(seconds=documents // 10), order=ListOrder.UPDATED
        ),
    }


def main() -> int:
    """Measure and print; return 0, or 1 if something broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lists", description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000, help="how many stored runs are many (1000000)")
    parser.add_argument("--runs", type=int, default=3_000, help="the number of runs that a cost is the mean of (3000)")
    parser.add_argument("--rounds", type=int, default=9, help="how often each is measured (9)")
    parser.add_argument("--only", choices=("costs", "pages"), help="one half of it")
    options = parser.parse_args()
    console = Console(width=118, highlight=False)
    try:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
            side = SystemUnderTest(BUCKET, root, stack.enter_context(GroupReaper()))
            stack.callback(side.close)
            side.run_only_stores()
            if options.only != "pages":
                console.print(_costs_table(measure_index_costs(side, options.runs, options.rounds)))
            if options.only != "costs":
                few = ListDatabase(side, "few", FEW).measure(options.rounds)
                many = ListDatabase(side, "many", options.documents).measure(options.rounds)
                console.print(_pages_table(options.documents, few, many))
    except (BenchmarkError, OperatorError, BucketError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"lists: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    return 0


def _costs_table(costs: Mapping[str, Sequence[float]]) -> Table:
    table = Table(title="mongod's CPU, µs a run: inserted, and written twice", box=box.SIMPLE, title_justify="left")
    for heading in ("list indexes", "a run", "more than none (quartiles)"):
        table.add_column(heading, justify="left" if heading == "list indexes" else "right")
    none = costs["none of them"]
    for name, each in costs.items():
        more = [one - other for one, other in zip(each, none, strict=True)]
        low, middle, high = statistics.quantiles(more, n=4)
        difference = "" if each is none else f"{middle:.0f} ({low:.0f} to {high:.0f})"
        table.add_row(name, f"{statistics.median(each):.0f}", difference)
    return table


def _pages_table(documents: int, few: Mapping[str, Any], many: Mapping[str, Any]) -> Table:
    table = Table(title=f"A page of {_PAGE}: {FEW:,} and {documents:,} stored", box=box.SIMPLE, title_justify="left")
    for heading in ("a list by", f"{FEW:,}: µs", f"{documents:,}: µs", "found by", "keys", "documents"):
        table.add_column(heading, justify="left" if heading in {"a list by", "found by"} else "right")
    for name, (few_us, *_) in few.items():
        many_us, stages, keys, documents_examined = many[name]
        table.add_row(name, f"{few_us:,.0f}", f"{many_us:,.0f}", stages, f"{keys:,}", f"{documents_examined:,}")
    return table


if __name__ == "__main__":
    sys.exit(main())
