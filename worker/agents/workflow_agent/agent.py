"""Orders tasks by their needs: when each can start, its slack, the critical path, and which deadlines are missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from worker.agent_parts.iso_dates import parse_date
from worker.agent_parts.task_order import order_by_needs
from worker.agent_parts.whole_numbers import with_integers
from worker.agent_parts.working_time import (
    DAYS_DEFAULT,
    HOURS_DEFAULT,
    WorkingTime,
    describe_minutes,
    working_time_of,
)
from worker.context import AgentContext

SCHEDULE_DAYS_MAX: Final = 366
LATE_NAMED_MAX: Final = 20
CHAIN_NAMED_MAX: Final = 5


@dataclass(slots=True)
class _Place:
    """A task and its place, in minutes of work after the start."""

    task: Mapping[str, Any]
    needs: tuple[str, ...]
    starts: int
    latest_finish: int = 0

    @property
    def finishes(self) -> int:
        minutes: int = self.starts + self.task["duration_minutes"]
        return minutes

    @property
    def slack(self) -> int:
        return self.latest_finish - self.finishes


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return the tasks in order, the critical path, late tasks and suggestions; with it, what schedule_agent takes."""
    given = with_integers(given)
    working_time = working_time_of(given)
    places = _places_of(given["tasks"])
    makespan = max((place.finishes for place in places.values()), default=0)
    work = sum(task["duration_minutes"] for task in given["tasks"])
    path = _critical_path(places, makespan)
    order = sorted(places.values(), key=lambda place: (place.starts, place.slack))
    tasks = [_describe(place, working_time) for place in order]
    late = [task for task in tasks if task["late"]]
    ctx.log("ordered the tasks", tasks=len(tasks), makespan_minutes=makespan, late=len(late))
    return {
        "tasks": tasks,
        "critical_path": path,
        "makespan_minutes": makespan,
        "work_minutes": work,
        "finishes_at": working_time.end_of(makespan).isoformat(timespec="minutes") if makespan else None,
        "late": [task["id"] for task in late],
        "suggestions": list(_suggestions(places, path, makespan, work, late)),
        "start_date": given["start_date"],
        "working_hours": given.get("working_hours", HOURS_DEFAULT),
        "working_days": given.get("working_days", DAYS_DEFAULT),
        "days": min(SCHEDULE_DAYS_MAX, 2 * -(-work // working_time.minutes_a_day) or 1),
        "basis": "Earliest times if any number of tasks may run at once; only working hours count. The slack is how "
        "much later a task may finish without delaying the whole.",
    }


def _places_of(tasks: list[Mapping[str, Any]]) -> dict[str, _Place]:
    """Return each task's place by id, each after those it needs (critical path method: forward, then backward)."""
    by_id = {task["id"]: task for task in tasks}
    places: dict[str, _Place] = {}
    for name in order_by_needs(tasks):
        needs = tuple(dict.fromkeys(by_id[name].get("needs", ())))
        places[name] = _Place(by_id[name], needs, max((places[need].finishes for need in needs), default=0))
    makespan = max((place.finishes for place in places.values()), default=0)
    for place in places.values():
        place.latest_finish = makespan
    for place in reversed(places.values()):
        latest_start = place.latest_finish - place.task["duration_minutes"]
        for need in place.needs:
            places[need].latest_finish = min(places[need].latest_finish, latest_start)
    return places


def _critical_path(places: Mapping[str, _Place], makespan: int) -> list[str]:
    """Return one longest chain from the start to the end; of several the one that comes first in order."""
    last = next((name for name, place in places.items() if place.finishes == makespan), None)
    return _chain_to(last, places)


def _chain_to(name: str | None, places: Mapping[str, _Place]) -> list[str]:
    """Return the chain of tasks, without gaps, that decides when a task finishes."""
    path: list[str] = []
    while name is not None:
        path.append(name)
        place = places[name]
        name = next((need for need in place.needs if places[need].finishes == place.starts), None)
    return path[::-1]


def _describe(place: _Place, working_time: WorkingTime) -> dict[str, Any]:
    task, finish = place.task, working_time.end_of(place.finishes)
    deadline = task.get("deadline")
    return {
        "id": task["id"],
        "title": task.get("title", task["id"]),
        "duration_minutes": task["duration_minutes"],
        "needs": list(place.needs),
        "splittable": task.get("splittable", True),
        **({"deadline": deadline} if deadline else {}),
        "starts_at": working_time.begin_of(place.starts).isoformat(timespec="minutes"),
        "finishes_at": finish.isoformat(timespec="minutes"),
        "slack_minutes": place.slack,
        "critical": place.slack == 0,
        # A deadline is a whole day, and 24:00 is its end.
        "late": deadline is not None
        and working_time.day((place.finishes - 1) // working_time.minutes_a_day)
        > parse_date(deadline, f"the deadline of {task['id']!r}"),
    }


def _suggestions(
    places: Mapping[str, _Place], path: list[str], makespan: int, work: int, late: list[dict[str, Any]]
) -> Iterator[str]:
    for task in late[:LATE_NAMED_MAX]:
        chain = _chain_to(task["id"], places)[-CHAIN_NAMED_MAX:]
        way = f" What decides that: {' > '.join(map(repr, chain))}." if len(chain) > 1 else ""
        yield f"{task['id']!r} finishes at {task['finishes_at']}, after its deadline {task['deadline']}.{way}"
    if len(late) > LATE_NAMED_MAX:
        yield f"{len(late) - LATE_NAMED_MAX} more tasks are late."
    if len(places) > 1:
        longest = max(path, key=lambda name: places[name].task["duration_minutes"])
        minutes = places[longest].task["duration_minutes"]
        yield (
            f"{longest!r} is the longest task of the critical path ({describe_minutes(minutes)} of "
            f"{describe_minutes(makespan)}): shorten it, or let parts of it run at the same time. "
            "Shortening tasks outside that path gains nothing."
        )
        people = -(-work // makespan)
        if people > 1:
            yield (
                f"All tasks together are {describe_minutes(work)} of work: at least {people} people are needed to "
                f"finish in {describe_minutes(makespan)}."
            )
    relaxed = max(places.values(), key=lambda place: place.slack, default=None)
    if relaxed is not None and relaxed.slack:
        yield f"{relaxed.task['id']!r} may finish {describe_minutes(relaxed.slack)} later without delaying the whole."
