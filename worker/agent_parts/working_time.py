"""Working time: which minutes of which days are worked, without time zones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final

from worker.agent_errors import InvalidInputError
from worker.agent_parts.iso_dates import parse_date

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS_DEFAULT: Final = {"start": "09:00", "end": "17:00"}
DAYS_DEFAULT: Final = list(WEEKDAYS[:5])


@dataclass(frozen=True, slots=True)
class WorkingTime:
    """The same hours on each working day from ``first_day`` on; ``opens`` and ``closes`` are minutes of the day."""

    first_day: date
    weekdays: frozenset[int]
    opens: int
    closes: int

    @property
    def minutes_a_day(self) -> int:
        """How many minutes a working day has."""
        return self.closes - self.opens

    def day(self, number: int) -> date:
        """Return working day ``number``, counted from 0; raises InvalidInputError after the year 9999."""
        weeks, rest = divmod(number, len(self.weekdays))
        try:
            day = self.first_day + timedelta(weeks=weeks)
            while True:
                if day.weekday() in self.weekdays:
                    if not rest:
                        return day
                    rest -= 1
                day += timedelta(days=1)
        except OverflowError as error:
            raise InvalidInputError("/tasks: the plan would end after the year 9999") from error

    def begin_of(self, worked_minutes: int) -> datetime:
        """Return when work begins that has ``worked_minutes`` of working time before it."""
        number, rest = divmod(worked_minutes, self.minutes_a_day)
        return self._moment(number, rest)

    def end_of(self, worked_minutes: int) -> datetime:
        """Return when ``worked_minutes``, at least 1, of working time are over."""
        number, rest = divmod(worked_minutes - 1, self.minutes_a_day)
        return self._moment(number, rest + 1)

    def _moment(self, number: int, rest: int) -> datetime:
        return datetime.combine(self.day(number), time()) + timedelta(minutes=self.opens + rest)


def working_time_of(given: Mapping[str, Any]) -> WorkingTime:
    """Read ``start_date``, ``working_hours`` and ``working_days``; the last two have defaults."""
    hours = given.get("working_hours", HOURS_DEFAULT)
    opens, closes = minute_of(hours["start"]), minute_of(hours["end"])
    if opens >= closes:
        raise InvalidInputError(f"/working_hours: they end at {hours['end']}, which is not after {hours['start']}")
    weekdays = frozenset(WEEKDAYS.index(day) for day in given.get("working_days", DAYS_DEFAULT))
    return WorkingTime(parse_date(given["start_date"], "/start_date"), weekdays, opens, closes)


def minute_of(clock: str) -> int:
    """Return the minute of the day that ``HH:MM`` names; 24:00 is the end of the day."""
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def describe_minutes(minutes: int) -> str:
    """Return ``90`` as ``1 h 30 min``."""
    hours, rest = divmod(minutes, 60)
    return " ".join(
        part for part in (f"{hours:,} h" if hours else "", f"{rest} min" if rest or not hours else "") if part
    )
