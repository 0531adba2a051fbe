"""Reads the dates of inputs, which are ISO 8601, and counts months."""

from __future__ import annotations

import calendar
from datetime import date

from worker.agent_errors import InvalidInputError


def parse_date(text: str, pointer: str) -> date:
    """Return the date ``YYYY-MM-DD``; raises InvalidInputError that begins with ``pointer`` if there is no such day."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(f"{pointer}: {text[:32]!r} is not a day of the calendar: write YYYY-MM-DD") from error


def add_months(day: date, months: int) -> date:
    """Return the day ``months`` later; the last day of the month if that month is shorter. At most 9999-12-31."""
    years, month = divmod(day.month - 1 + months, 12)
    year = day.year + years
    if year > date.max.year:
        return date.max
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
