"""The count of an integrator's runs of a day: each run once, also over midnight and after a step of the clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from api.limits.quotas import _DayCount
from tests.builders import NOON

MIDNIGHT = NOON.replace(hour=0) + timedelta(days=1)


@dataclass
class Usage:
    """Runs by the moments at which they were created, and which spans were counted."""

    created: list[datetime] = field(default_factory=list)
    spans: list[timedelta] = field(default_factory=list)

    def count_created(self, _: str, since: datetime, before: datetime | None = None) -> int:
        self.spans.append((before or max([since, *self.created])) - since)
        return sum(since <= each and (before is None or each < before) for each in self.created)


def count(day: _DayCount, usage: Usage, now: datetime) -> int:
    return day.count(usage, "acme", now)  # type: ignore[arg-type]


def test_each_run_of_the_day_is_counted_once_and_old_ones_are_not_read_again() -> None:
    usage, day = Usage([NOON - timedelta(days=1)]), _DayCount()
    for minute in range(60):
        usage.created.append(NOON + timedelta(minutes=minute))
        assert count(day, usage, usage.created[-1]) == minute + 1
    usage.spans.clear()
    count(day, usage, usage.created[-1])
    assert sum(usage.spans, timedelta()) < timedelta(minutes=10)


def test_a_run_that_is_stored_a_little_late_is_counted() -> None:
    usage, day = Usage([NOON]), _DayCount()
    assert count(day, usage, NOON) == 1
    usage.created.append(NOON - timedelta(seconds=30))
    assert count(day, usage, NOON) == 2


def test_a_new_day_begins_at_nothing_and_a_clock_that_is_set_back_counts_anew() -> None:
    before = [MIDNIGHT - timedelta(minutes=minute) for minute in (50, 30, 10)]
    usage, day = Usage([*before]), _DayCount()
    assert count(day, usage, MIDNIGHT - timedelta(minutes=1)) == 3
    assert count(day, usage, MIDNIGHT) == 0
    usage.created.append(MIDNIGHT + timedelta(minutes=20))
    assert count(day, usage, MIDNIGHT + timedelta(minutes=30)) == 1
    usage.created.append(MIDNIGHT + timedelta(minutes=5))  # the clock was set back
    assert count(day, usage, MIDNIGHT + timedelta(minutes=5)) == 2
