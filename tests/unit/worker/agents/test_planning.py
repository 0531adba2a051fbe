"""Workflows and schedules: the critical path by hand, no overlap in any plan, and circles that are told by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from worker.agent_errors import InvalidInputError

Run = Callable[[str, dict[str, Any]], dict[str, Any]]
MONDAY = "2026-03-02"
HOURS = {"start": "09:00", "end": "17:00"}


def task(name: str, minutes: int, *needs: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "duration_minutes": minutes, "needs": list(needs), **more}


@pytest.fixture
def order(run_agent: Run) -> Callable[..., dict[str, Any]]:
    return lambda *tasks, **more: run_agent("workflow_agent", {"start_date": MONDAY, "tasks": list(tasks), **more})


@pytest.fixture
def plan(run_agent: Run) -> Callable[..., dict[str, Any]]:
    return lambda *tasks, **more: run_agent("schedule_agent", {"start_date": MONDAY, "tasks": list(tasks), **more})


Build = Callable[..., dict[str, Any]]


def placed(output: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(entry["id"], entry["start"][8:], entry["end"][8:]) for entry in output["plan"]]


def test_the_critical_path_the_slack_and_the_times_are_those_of_the_handbook(order: Build) -> None:
    output = order(task("d", 60, "b", "c"), task("c", 100, "a"), task("b", 400, "a"), task("a", 200))
    assert output["critical_path"] == ["a", "b", "d"]
    assert (output["makespan_minutes"], output["work_minutes"]) == (660, 760)
    assert {entry["id"]: entry["slack_minutes"] for entry in output["tasks"]} == {"a": 0, "b": 0, "c": 300, "d": 0}
    assert [entry["id"] for entry in output["tasks"]] == ["a", "b", "c", "d"]
    # A day has 480 minutes: a until 12:20, b for 280 minutes of this day and 120 of the next, d until 12:00.
    assert [entry["finishes_at"][5:] for entry in output["tasks"]] == [
        "03-02T12:20", "03-03T11:00", "03-02T14:00", "03-03T12:00"
    ]  # fmt: skip
    assert output["finishes_at"] == "2026-03-03T12:00"
    assert any("at least 2 people" in suggestion for suggestion in output["suggestions"])


def test_a_deadline_is_missed_only_after_its_day(order: Build) -> None:
    on_time, late = order(
        task("a", 480, deadline=MONDAY), task("b", 481, deadline=MONDAY), working_days=["mon", "wed"]
    )["tasks"]
    assert (on_time["late"], late["late"]) == (True, False) if on_time["id"] == "b" else (False, True)
    assert {on_time["finishes_at"], late["finishes_at"]} == {"2026-03-02T17:00", "2026-03-04T09:01"}


def test_what_makes_a_task_late_is_named(order: Build) -> None:
    output = order(task("a", 480), task("b", 60, "a", deadline=MONDAY))
    assert output["late"] == ["b"]
    assert "What decides that: 'a' > 'b'." in output["suggestions"][0]


@pytest.mark.parametrize("agent", ["workflow_agent", "schedule_agent"])
@pytest.mark.parametrize(
    ("tasks", "fault"),
    [
        ([task("a", 1, "b"), task("b", 1, "c"), task("c", 1, "a")], "in a circle: '[abc]' needs '[abc]' needs '[abc]'"),
        ([task("a", 1, "a")], "in a circle: 'a' needs 'a'"),
        ([task("a", 1, "x")], "/tasks/0/needs: 'a' needs 'x', which is not a task"),
        ([task("a", 1), task("a", 1)], "/tasks/1/id: 'a' is the id of an earlier task"),
        ([task("a", 1, deadline="2026-02-30")], "the deadline of 'a': '2026-02-30' is not a day"),
    ],
)
def test_tasks_that_cannot_be_ordered_are_refused(
    run_agent: Run, agent: str, tasks: list[dict[str, Any]], fault: str
) -> None:
    with pytest.raises(InvalidInputError, match=fault):
        run_agent(agent, {"start_date": MONDAY, "tasks": tasks})


def test_the_circle_is_told_in_the_direction_of_the_needs(order: Build) -> None:
    with pytest.raises(InvalidInputError, match=r"'a' needs 'b'|'b' needs 'c'|'c' needs 'a'"):
        order(task("a", 1, "b"), task("b", 1, "c"), task("c", 1, "a"))


@pytest.mark.parametrize("agent", ["workflow_agent", "schedule_agent"])
def test_hours_that_end_before_they_begin_are_refused(run_agent: Run, agent: str) -> None:
    given = {"start_date": MONDAY, "tasks": [], "working_hours": {"start": "17:00", "end": "09:00"}}
    with pytest.raises(InvalidInputError, match="/working_hours: they end at 09:00"):
        run_agent(agent, given)


def test_no_tasks_are_an_empty_plan(order: Build, plan: Build) -> None:
    assert (order()["makespan_minutes"], order()["finishes_at"], order()["critical_path"]) == (0, None, [])
    assert plan()["plan"] == plan()["unplaced"] == []


def test_a_plan_beyond_the_calendar_is_refused(order: Build) -> None:
    tasks = [task(str(n), 100_000, *([str(n - 1)] if n else [])) for n in range(1000)]
    with pytest.raises(InvalidInputError, match="after the year 9999"):
        order(*tasks, working_hours={"start": "09:00", "end": "09:01"})


def test_tasks_fill_the_gaps_that_breaks_and_events_leave(plan: Build) -> None:
    output = plan(
        task("long", 180),
        task("short", 60),
        days=1,
        breaks=[{"start": "12:00", "end": "13:00"}],
        events=[{"id": "talk", "start": f"{MONDAY}T10:00", "duration_minutes": 60}],
    )
    assert placed(output) == [
        ("short", "02T09:00", "02T10:00"), ("talk", "02T10:00", "02T11:00"), ("long", "02T13:00", "02T16:00")
    ]  # fmt: skip
    assert output["free_minutes"] == 60 + 60


def test_a_deadline_comes_before_a_priority_and_that_before_the_place_in_the_list(plan: Build) -> None:
    output = plan(
        task("last", 60), task("urgent", 60, priority=5), task("due", 60, deadline=MONDAY, priority=1), days=1
    )
    assert [name for name, _, _ in placed(output)] == ["due", "urgent", "last"]


def test_what_an_urgent_task_needs_is_as_urgent(plan: Build) -> None:
    output = plan(task("other", 400), task("base", 240), task("due", 240, "base", deadline=MONDAY))
    assert [name for name, _, _ in placed(output)] == ["base", "due", "other"]
    assert output["unplaced"] == []


def test_a_task_comes_after_its_needs_and_not_before_its_earliest_day(plan: Build) -> None:
    output = plan(task("b", 60, "a", deadline="2026-03-03"), task("a", 60, earliest="2026-03-03"))
    assert placed(output) == [("a", "03T09:00", "03T10:00"), ("b", "03T10:00", "03T11:00")]


def test_a_task_that_may_be_split_goes_over_days_and_skips_the_weekend(plan: Build) -> None:
    output = plan(task("a", 500, splittable=True), start_date="2026-03-06", working_hours=HOURS)
    assert placed(output) == [("a", "06T09:00", "06T17:00"), ("a", "09T09:00", "09T09:20")]
    assert [(entry["part"], entry["parts"]) for entry in output["plan"]] == [(1, 2), (2, 2)]


def test_a_buffer_stays_free(plan: Build) -> None:
    assert placed(plan(task("a", 30), task("b", 30), buffer_minutes=15))[1] == ("b", "02T09:45", "02T10:15")


def test_what_does_not_fit_is_told_with_its_reason(plan: Build) -> None:
    events = [
        {"start": f"{MONDAY}T09:00", "duration_minutes": 60},
        {"start": f"{MONDAY}T09:30", "duration_minutes": 60},
        {"start": "2026-03-09T09:00", "duration_minutes": 60},
    ]
    output = plan(
        task("big", 421), task("after", 1, "big"), task("late", 1, deadline="2026-03-01"), events=events, days=1
    )
    reasons = {entry["id"]: entry["reason"] for entry in output["unplaced"]}
    assert list(reasons) == ["event-2", "event-3", "late", "big", "after"]
    assert reasons["event-2"].startswith("it overlaps 'event-1'")
    assert "outside the planned days" in reasons["event-3"]
    assert "up to its deadline 2026-03-01" in reasons["late"]
    assert reasons["big"] == (
        "there is no room for 7 h 1 min in the planned days: 7 h are free in all, the longest gap has 7 h"
    )
    assert reasons["after"] == "it needs 'big', which does not fit"


def test_a_time_that_does_not_exist_is_refused(plan: Build) -> None:
    with pytest.raises(InvalidInputError, match="/events/0/start: there is no such time"):
        plan(events=[{"start": "2026-02-30T09:00", "duration_minutes": 1}])


@pytest.mark.timeout(20)
def test_a_thousand_tasks_never_overlap_and_follow_their_needs(plan: Build) -> None:
    chance = random.Random(3)
    tasks = [
        task(str(n), chance.randint(1, 200), *{str(chance.randrange(n)) for _ in range(2) if n},
             splittable=chance.random() < 0.5, priority=chance.randint(1, 5))
        for n in range(1000)
    ]  # fmt: skip
    output = plan(*tasks, days=366, buffer_minutes=5, breaks=[{"start": "12:00", "end": "13:00"}])
    assert output["unplaced"] == []
    ends = [entry["end"] for entry in output["plan"]]
    assert all(end <= entry["start"] for end, entry in zip(ends, output["plan"][1:], strict=False))
    first = {entry["id"]: entry["start"] for entry in reversed(output["plan"])}
    last = {entry["id"]: entry["end"] for entry in output["plan"]}
    assert all(last[need] <= first[each["id"]] for each in tasks for need in each["needs"])


def test_a_workflow_is_what_the_schedule_takes(run_agent: Run, order: Build) -> None:
    workflow = order(task("b", 300, "a"), task("a", 400), working_hours={"start": "08:00", "end": "16:00"})
    output = run_agent("schedule_agent", workflow)
    assert output["unplaced"] == []
    assert placed(output) == [
        ("a", "02T08:00", "02T14:40"),
        ("b", "02T14:40", "02T16:00"),
        ("b", "03T08:00", "03T11:40"),
    ]
