"""Judges one service item: how much of its distance and of its time is used up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from worker.agent_parts.iso_dates import add_months

DUE_SOON: Final = 0.9
STATUSES: Final = ("overdue", "no_record", "due_soon", "ok", "unknown")


@dataclass(frozen=True, slots=True)
class Item:
    """What is to be done, and after which distance and how many months; None where one does not count."""

    type: str
    title: str
    distance: float | None
    months: int | None


@dataclass(frozen=True, slots=True)
class Service:
    """A service that was done; ``number`` is its position in the input."""

    number: int
    type: str
    day: date | None
    mileage: float | None


@dataclass(frozen=True, slots=True)
class Now:
    """Where the vehicle stands: the day and the mileage, as far as they are known, and its first day."""

    today: date | None
    mileage: float | None
    first_day: date


def judge(item: Item, services: Iterable[Service], now: Now) -> dict[str, Any]:
    """Return when the item is due; ``urgency`` is the used part of its interval, 1 when it is due, None if unknown."""
    done = [service for service in services if service.type == item.type]
    has_service = bool(done)
    days = [service.day for service in done if service.day]
    mileages = [service.mileage for service in done if service.mileage is not None]
    last_day = max(days, default=None if has_service else now.first_day)
    last_mileage = max(mileages, default=None if has_service else 0.0)
    due_mileage = None if item.distance is None or last_mileage is None else last_mileage + item.distance
    due_day = None if item.months is None or last_day is None else add_months(last_day, item.months)
    uses = {}
    if due_mileage is not None and last_mileage is not None and item.distance and now.mileage is not None:
        uses["distance"] = (now.mileage - last_mileage) / item.distance
    if due_day is not None and last_day is not None and now.today is not None:
        uses["time"] = max((now.today - last_day).days, 0) / max((due_day - last_day).days, 1)
    urgency = max(uses.values(), default=None)
    return {
        "type": item.type,
        "title": item.title,
        "status": _status_of(urgency, has_service=has_service),
        "urgency": None if urgency is None else round(urgency, 3),
        "by": max(uses, key=lambda name: uses[name]) if uses else None,
        "since": "service" if has_service else "new",
        "last_date": last_day.isoformat() if last_day and has_service else None,
        "last_mileage": last_mileage if has_service else None,
        "due_mileage": due_mileage,
        "due_date": due_day.isoformat() if due_day else None,
        "distance_left": None if due_mileage is None or now.mileage is None else round(due_mileage - now.mileage, 1),
        "days_left": None if due_day is None or now.today is None else (due_day - now.today).days,
    }


def _status_of(urgency: float | None, *, has_service: bool) -> str:
    if urgency is None:
        return "unknown"
    if urgency >= 1:
        # A long list that leaves a service out says little about whether it was done.
        return "overdue" if has_service else "no_record"
    return "due_soon" if urgency >= DUE_SOON else "ok"
