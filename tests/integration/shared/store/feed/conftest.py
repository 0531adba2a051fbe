"""Fixtures of the feed tests: a feed on a real MongoDB, relays run by hand or in threads, and writers of executions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR, Execution
from shared.domain.feed_position import FeedPosition
from shared.domain.lifecycle.transitions import cancel
from shared.ids import new_execution_id
from shared.store.database import Database
from shared.store.executions.store import MongoExecutionStore
from shared.store.feed.change_stream import ChangeStream
from shared.store.feed.reader import FeedPage, FeedQuery, FeedReader
from shared.store.feed.writer import FeedWriter
from tests.builders import NOON, ManualClock, accept_decision
from tests.waiting import wait_until
from worker.maintenance.feed_relay import FeedRelay


@dataclass
class FeedBench:
    """The feed, its store, its clock and its relays for one test."""

    database: Database
    hand: ManualClock

    def __post_init__(self) -> None:
        self.store = MongoExecutionStore(self.database, self.hand)
        self.log = FeedWriter(self.database, self.hand)
        self.feed = FeedReader(self.database)

    def collection(self, name: str) -> Any:
        """Return a collection of the database."""
        return self.database.collection(name)

    def accept(self, **changes: Any) -> Execution:
        """Store a run; this makes one change."""
        return self.store.create(accept_decision(id=new_execution_id(datetime.now(UTC)), **changes))

    def change(self, run: Execution) -> None:
        """Cancel a run; this makes another change."""
        decision = cancel(run, NOON)
        assert decision is not None
        self.store.save(run, decision)

    def relay(self, database: Database | None = None) -> FeedRelay:
        """Return a new relay that always leads."""
        used = database or self.database
        return FeedRelay(used, FeedWriter(used, self.hand), self.hand, lambda: True)

    @contextmanager
    def relaying(self, relay: FeedRelay | None = None) -> Iterator[None]:
        """Run a relay in a thread while the block runs."""
        stop = threading.Event()
        thread = threading.Thread(target=(relay or self.relay()).run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(10)
            assert not thread.is_alive()

    def relay_all(self) -> None:
        """Write all current changes of the change stream to the feed."""
        last = self.log.ensure_started()
        with ChangeStream(self.database, last.token) as stream:
            batch = stream.open_cursor()
            while batch.execution_ids:
                last = self.log.append(last, batch, as_of=self.hand.now()) or self.log.ensure_started()
                batch = stream.wait_for_changes(0.05)

    def page(self, start: FeedPosition | None = None, limit: int = 100, **filters: str) -> FeedPage:
        """Read a page."""
        return self.feed.read_page(PUBLIC_INTEGRATOR, start, FeedQuery(limit, **filters))

    def walk(self, start: FeedPosition | None = None, limit: int = 100, **filters: str) -> list[str]:
        """Read all pages and return the ids of their executions in order."""
        execution_ids = []
        while True:
            page = self.page(start, limit, **filters)
            execution_ids += [changed.execution_id for changed in page.changes]
            assert len(page.changes) <= limit
            if page.is_last:
                return execution_ids
            start = page.next_position

    def wait_for(self, ids: set[str], start: FeedPosition | None = None, within_s: float = 15) -> None:
        """Read page after page, as a consumer does, until all of these runs have come."""
        missing = set(ids)

        def have_come() -> bool:
            nonlocal start
            page = self.page(start)
            start = page.next_position
            missing.difference_update(changed.execution_id for changed in page.changes)
            return not missing

        wait_until(have_come, within_s, "every change has come")


@pytest.fixture
def bench(mongodb_url: str) -> Iterator[FeedBench]:
    with closing(Database(mongodb_url, "test", deadline_s=5)) as database:
        database.ensure_indexes()
        bench = FeedBench(database, ManualClock())
        bench.log.ensure_started()
        yield bench


@pytest.fixture
def other_database(mongodb_url: str) -> Iterator[Database]:
    """Yield the database connection of another process."""
    with closing(Database(mongodb_url, "test", deadline_s=5)) as database:
        yield database
