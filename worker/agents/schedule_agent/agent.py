"""Plans events and tasks for one person into working hours, without overlap, and tells what does not fit."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Any, Final

from worker.agent_errors import InvalidInputError
from worker.agent_parts.iso_dates import parse_date
from worker.agent_parts.task_order import order_by_needs
from worker.agent_parts.whole_numbers import with_integers
from worker.agent_parts.working_time import WorkingTime, describe_minutes, minute_of, working_time_of
from worker.context import AgentContext

from .free_time import FreeTime

DAYS_DEFAULT: Final = 5
DAY_MINUTES: Final = 24 * 60
PRIORITY_DEFAULT: Final = 3


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{"plan": [...], "unplaced": [...], ...}``: events where they are, then tasks in the earliest gaps."""
    given = with_integers(given)
    working_time = working_time_of(given)
    planner = _Planner(working_time, given)
    for number, event in enumerate(given.get("events", ())):
        planner.add_event(number, event)
    planner.block_events()
    for task in _in_order(given["tasks"]):
        planner.add_task(task)
    ctx.log("planned", planned=len(planner.plan), unplaced=len(planner.unplaced))
    return planner.result()


def _in_order(tasks: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Order tasks by deadline, priority and place in the list, but each after the ones that it needs.

    What an urgent task needs is as urgent as that task (priority inheritance).
    """
    ranks = {
        task["id"]: (task.get("deadline", "9999-12-31"), -task.get("priority", PRIORITY_DEFAULT), number)
        for number, task in enumerate(tasks)
    }
    by_id = {task["id"]: task for task in tasks}
    for name in reversed(order_by_needs(tasks)):
        for need in by_id[name].get("needs", ()):
            ranks[need] = min(ranks[need], (*ranks[name][:2], ranks[need][2]))
    missing = {task["id"]: len(set(task.get("needs", ()))) for task in tasks}
    followers: dict[str, list[str]] = {}
    for task in tasks:
        for need in set(task.get("needs", ())):
            followers.setdefault(need, []).append(task["id"])
    ready = [ranks[name] for name, count in missing.items() if not count]
    heapq.heapify(ready)
    ordered = []
    while ready:
        task = tasks[heapq.heappop(ready)[2]]
        ordered.append(task)
        for name in followers.get(task["id"], ()):
            missing[name] -= 1
            if not missing[name]:
                heapq.heappush(ready, ranks[name])
    return ordered


class _Planner:
    """The plan as it grows; its times are minutes after the midnight that begins the first day."""

    def __init__(self, working_time: WorkingTime, given: Mapping[str, Any]) -> None:
        self.plan: list[dict[str, Any]] = []
        self.unplaced: list[dict[str, Any]] = []
        self._midnight = datetime.combine(working_time.first_day, time())
        self._days = [working_time.day(number) for number in range(given.get("days", DAYS_DEFAULT))]
        self._events: list[tuple[int, int, int, Mapping[str, Any]]] = []
        self._ends: dict[str, int] = {}
        self._buffer = given.get("buffer_minutes", 0)
        self._free = FreeTime()
        for day in self._days:
            begin = (day - working_time.first_day).days * DAY_MINUTES
            self._free.add(begin + working_time.opens, begin + working_time.closes)
            for number, pause in enumerate(given.get("breaks", ())):
                start, end = minute_of(pause["start"]), minute_of(pause["end"])
                if start >= end:
                    raise InvalidInputError(f"/breaks/{number}: it ends at {pause['end']}, not after {pause['start']}")
                self._free.block(begin + start, begin + end)

    def add_event(self, number: int, event: Mapping[str, Any]) -> None:
        """Note an event at its own time."""
        try:
            start = datetime.fromisoformat(event["start"])
        except ValueError as error:
            raise InvalidInputError(f"/events/{number}/start: there is no such time: {event['start']!r}") from error
        begin = int((start - self._midnight) / timedelta(minutes=1))
        self._events.append((begin, begin + event["duration_minutes"], number, event))

    def block_events(self) -> None:
        """Place the events by their starts; not one that overlaps an earlier one, or lies outside the planned days."""
        until, before = None, ""
        limit = ((self._days[-1] - self._midnight.date()).days + 1) * DAY_MINUTES
        for begin, end, number, event in sorted(self._events, key=lambda entry: entry[:3]):
            name = event.get("id", f"event-{number + 1}")
            if until is not None and begin < until:
                self._reject(name, event, f"it overlaps {before!r}, which begins earlier or comes first in the list")
            elif begin < 0 or begin >= limit:
                self._reject(name, event, f"it is outside the planned days, which end on {self._days[-1].isoformat()}")
            else:
                until, before = end, name
                self._free.block(begin, end + self._buffer)
                self._place(name, "event", event, [(begin, end)])

    def add_task(self, task: Mapping[str, Any]) -> None:
        """Place a task in the earliest gap after its needs and before its deadline, or say why there is none."""
        name, minutes = task["id"], task["duration_minutes"]
        lost = [need for need in task.get("needs", ()) if need not in self._ends]
        if lost:
            self._reject(name, task, f"it needs {lost[0]!r}, which does not fit")
            return
        first = max((self._ends[need] for need in task.get("needs", ())), default=0)
        if "earliest" in task:
            first = max(first, self._day_minute(task["earliest"], f"the earliest day of {name!r}"))
        last = None
        if "deadline" in task:
            last = self._day_minute(task["deadline"], f"the deadline of {name!r}") + DAY_MINUTES
        parts = self._free.find(minutes, first, last, splittable=task.get("splittable", False))
        if parts is None:
            longest, total = self._free.left(first, last)
            bound = f" up to its deadline {task['deadline']}" if last is not None else " in the planned days"
            left = f"{describe_minutes(total)} are free in all, the longest gap has {describe_minutes(longest)}"
            self._reject(name, task, f"there is no room for {describe_minutes(minutes)}{bound}: {left}")
            return
        for begin, end in parts:
            self._free.block(begin, end + self._buffer)
        self._ends[name] = parts[-1][1]
        self._place(name, "task", task, parts)

    def _day_minute(self, text: str, pointer: str) -> int:
        return (parse_date(text, pointer) - self._midnight.date()).days * DAY_MINUTES

    def _place(self, name: str, kind: str, entry: Mapping[str, Any], parts: list[tuple[int, int]]) -> None:
        for number, (begin, end) in enumerate(parts, 1):
            self.plan.append(
                {
                    "id": name,
                    "kind": kind,
                    "title": entry.get("title", name),
                    "start": self._moment(begin),
                    "end": self._moment(end),
                    "part": number,
                    "parts": len(parts),
                }
            )

    def _reject(self, name: str, entry: Mapping[str, Any], reason: str) -> None:
        self.unplaced.append({"id": name, "title": entry.get("title", name), "reason": reason})

    def _moment(self, minute: int) -> str:
        return (self._midnight + timedelta(minutes=minute)).isoformat(timespec="minutes")

    def result(self) -> dict[str, Any]:
        """Return the plan in the order of time."""
        self.plan.sort(key=lambda entry: (entry["start"], entry["end"]))
        return {
            "plan": self.plan,
            "unplaced": self.unplaced,
            "first_day": self._days[0].isoformat(),
            "last_day": self._days[-1].isoformat(),
            "free_minutes": self._free.left(0, None)[1],
            "basis": "One person, one thing at a time, local times. Events keep their time; tasks follow by deadline, "
            "priority (5 first) and place in the list, each in the earliest gap after what it needs; what an urgent "
            "task needs is as urgent.",
        }
