"""A feed over a real MongoDB, relays that a test runs by hand or in threads, and whoever changes executions."""

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
from tests.builders import NOON, HandClock, accepted
from tests.waiting import wait_until
from worker.maintenance.feed_relay import FeedRelay


@dataclass
class FeedBench:
    """Everything that a test of the feed has in its hands."""

    database: Database
    hand: HandClock

    def __post_init__(self) -> None:
        self.store = MongoExecutionStore(self.database, self.hand)
        self.log = FeedWriter(self.database, self.hand)
        self.feed = FeedReader(self.database)

    def collection(self, name: str) -> Any:
        """Answer a collection as it is."""
        return self.database.collection(name)

    def accept(self, **changes: Any) -> Execution:
        """Store a run, which is a change."""
        return self.store.create(accepted(id=new_execution_id(datetime.now(UTC)), **changes))

    def change(self, run: Execution) -> None:
        """Cancel a run, which is another."""
        advance = cancel(run, NOON)
        assert advance is not None
        self.store.save(run, advance)

    def relay(self, database: Database | None = None) -> FeedRelay:
        """Answer a relay of its own, which always leads."""
        used = database or self.database
        return FeedRelay(used, FeedWriter(used, self.hand), self.hand, lambda: True)

    @contextmanager
    def relaying(self, relay: FeedRelay | None = None) -> Iterator[None]:
        """Let a relay run while the block does."""
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
        """Write what the stream holds right now to the feed."""
        last = self.log.ensure_started()
        with ChangeStream(self.database, last.token) as stream:
            news = stream.open_cursor()
            while news.execution_ids:
                last = self.log.append(last, news, as_of=self.hand.now()) or self.log.ensure_started()
                news = stream.wait_for_changes(0.05)

    def page(self, start: FeedPosition | None = None, limit: int = 100, **wanted: str) -> FeedPage:
        """Read a page."""
        return self.feed.read_page(PUBLIC_INTEGRATOR, start, FeedQuery(limit, **wanted))

    def walk(self, start: FeedPosition | None = None, limit: int = 100, **wanted: str) -> list[str]:
        """Read all pages; answer the executions that they show, one after the other."""
        seen = []
        while True:
            page = self.page(start, limit, **wanted)
            seen += [changed.execution_id for changed in page.changes]
            assert len(page.changes) <= limit
            if page.is_last:
                return seen
            start = page.next_position

    def wait_for(self, ids: set[str], start: FeedPosition | None = None, within_s: float = 15) -> None:
        """Wait until all of these have come, read page after page as a consumer does."""
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
        bench = FeedBench(database, HandClock())
        bench.log.ensure_started()
        yield bench


@pytest.fixture
def another(mongodb_url: str) -> Iterator[Database]:
    """Answer the connection of another process."""
    with closing(Database(mongodb_url, "test", deadline_s=5)) as database:
        yield database
