"""The count of unfinished runs is shared by all who ask, also if it fails: a slow one must not be repeated by each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from api.fleet import fleet_stats
from api.fleet.fleet_stats import FleetStats
from shared.errors import Unavailable
from shared.store.fleet.backlog import Backlog


class Counts:
    """A backlog that fails while a test says so."""

    def __init__(self) -> None:
        self.reads, self.is_away = 0, True

    def read(self) -> Backlog:
        self.reads += 1
        if self.is_away:
            raise Unavailable("a test has taken the store away")
        return Backlog()


def test_a_count_that_failed_is_not_repeated_by_each_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counts()
    services: Any = SimpleNamespace(backlog=counts)
    stats = FleetStats(services, monitor=SimpleNamespace())  # type: ignore[arg-type]
    for _ in range(5):
        with pytest.raises(Unavailable, match="could not be counted"):
            stats.backlog()
    assert counts.reads == 1
    counts.is_away = False
    now = fleet_stats.time.monotonic() + fleet_stats.CACHE_MIN_S
    monkeypatch.setattr(fleet_stats.time, "monotonic", lambda: now + 0.1)
    assert [stats.backlog() for _ in range(2)] == [Backlog(), Backlog()]
    assert counts.reads == 2
