"""Reads the feed as a consumer that trusts nothing: each change once in the store, each end seen, no batch left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.api_client import Runs
from tests.stack import Stack
from tests.waiting import wait_until


class Reader:
    """A consumer of the feed from now on; it keeps its cursor whatever it is answered."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.ends: dict[str, int] = {}
        self.since = "now"
        wait_until(lambda: self.read() is not None, 30, "the feed answers")

    def read(self) -> dict[str, Any] | None:
        """Read a page and note the ends in it; None where it was refused."""
        answer = self.runs.get(f"/executions/changes?since={self.since}&limit=50")
        assert answer.status in {200, 503}, answer.body
        if answer.status != 200:
            return None
        self.since = answer.body["next_since"]
        self.ends |= {each["execution_id"]: each["rev"] for each in answer.body["changes"] if each["done"]}
        return answer.body

    def has_caught_up(self) -> bool:
        """Answer whether the feed says that nothing lies beyond."""
        told = self.read()
        return told is not None and bool(told["caught_up"])

    def sees(self, ids: Iterable[str], within_s: float = 40) -> None:
        """Read on until all of these have been seen at their end."""
        missing = set(ids)

        def all_seen() -> bool:
            self.read()
            return missing <= set(self.ends)

        wait_until(all_seen, within_s, "every end was seen in the feed")


def is_whole(stack: Stack) -> None:
    """See that the feed's batches follow each other without a gap, all of one epoch."""
    found = list(stack.mongo().changes.find().sort("_id", 1))
    assert [batch["_id"] for batch in found] == list(range(1, len(found) + 1))
    assert {batch["epoch"] for batch in found} == {found[0]["epoch"]}
