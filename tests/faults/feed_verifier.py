"""Verifies the feed as a consumer: each change is stored once, each end is seen and no batch is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.api_client import RunClient
from tests.stack import Stack
from tests.waiting import wait_until


class FeedConsumer:
    """A consumer that reads the feed from now on and keeps its cursor if a read fails."""

    def __init__(self, runs: RunClient) -> None:
        self.runs = runs
        self.ends: dict[str, int] = {}
        self.since = "now"
        wait_until(lambda: self.read() is not None, 30, "the feed can be read")

    def read(self) -> dict[str, Any] | None:
        """Read a page and note the ends in it; return None if it was refused."""
        response = self.runs.get(f"/executions/changes?since={self.since}&limit=50")
        assert response.status in {200, 503}, response.body
        if response.status != 200:
            return None
        self.since = response.body["next_since"]
        self.ends |= {change["execution_id"]: change["rev"] for change in response.body["changes"] if change["done"]}
        return response.body

    def has_caught_up(self) -> bool:
        """Return whether the feed says that there are no more changes."""
        page = self.read()
        return page is not None and bool(page["caught_up"])

    def read_until_seen(self, ids: Iterable[str], within_s: float = 40) -> None:
        """Read until the ends of all of these runs were seen."""
        missing = set(ids)

        def all_seen() -> bool:
            self.read()
            return missing <= set(self.ends)

        try:
            wait_until(all_seen, within_s, "every end was seen in the feed")
        except AssertionError as late:
            late.add_note(self._what_is_known(missing - set(self.ends)))
            raise

    def _what_is_known(self, missing: Iterable[str]) -> str:
        """Return what tells whether the runs, their relay or the reading of the feed is late."""
        polls = {execution_id: self.runs.poll(execution_id).body.get("status") for execution_id in missing}
        feed = self.runs.get("/health").body["parts"].get("feed")
        return f"polls: {polls}\nfeed: {feed}\n{self.runs.stack.logs('reconciler')[-4_000:]}"


def assert_no_gaps(stack: Stack) -> None:
    """Check that the batches of the feed follow each other without a gap, all in one epoch."""
    batches = list(stack.mongo().changes.find().sort("_id", 1))
    assert [batch["_id"] for batch in batches] == list(range(1, len(batches) + 1))
    assert {batch["epoch"] for batch in batches} == {batches[0]["epoch"]}
