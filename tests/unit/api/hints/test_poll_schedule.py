"""Timetables, and what a caller who obeys them sees: a simulation of runs whose durations follow a law."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import mean, median
from typing import Final

import pytest

from api.hints.poll_schedule import HORIZON_S, POLL_DELAY_MAX_S, POLL_DELAY_MIN_S, PollSchedule, build_schedule

Law = Callable[[random.Random], float]

LAWS: Final[dict[str, Law]] = {
    "0.2 s": lambda chance: 0.2 + chance.random() * 0.02,
    "2 s": lambda chance: 2 + chance.random() * 0.05,
    "20 s": lambda chance: 20 + chance.random() * 0.2,
    "mixed": lambda chance: chance.choice([0.2, 2, 20]) * (1 + chance.random() * 0.02),
    "bimodal": lambda chance: chance.choice([1, 1, 1, 30]) * chance.lognormvariate(0, 0.1),
    "lognormal": lambda chance: chance.lognormvariate(1.6, 0.5),
    "exponential": lambda chance: chance.expovariate(1 / 5),
    "heavy tail": lambda chance: min(chance.paretovariate(1.1), 120.0),
}
RUNS: Final = 400


def obeyed(timetable: PollSchedule, duration_s: float, chance: random.Random) -> tuple[int, float]:
    """How often an obedient caller polls a run, and how late it learns of its end; a request takes 10 ms."""
    age_s, polls = 0.0, 0
    while age_s < duration_s:
        age_s += timetable.next_delay_s(age_s) * chance.uniform(1, 1.05) + 0.01
        polls += 1
    return polls, age_s - duration_s


def played(law: Law, learnt_from: int) -> tuple[list[int], list[float]]:
    """Polls and lateness, in units of what is tolerated, of many runs of a basket with so many past runs."""
    chance = random.Random(7)
    timetable = build_schedule([law(chance) for _ in range(learnt_from)])
    polls, late = [], []
    for _ in range(RUNS):
        duration_s = law(chance)
        polled, late_s = obeyed(timetable, duration_s, chance)
        polls.append(polled)
        late.append(late_s / max(0.5, 0.2 * duration_s))
    return sorted(polls), late


@pytest.mark.parametrize("law", LAWS)
def test_who_obeys_learns_of_the_end_in_time_and_polls_seldom(law: str) -> None:
    polls, late = played(LAWS[law], learnt_from=100)
    assert median(late) <= 1, "a fifth of the duration, or half a second"
    assert mean(polls) <= 6


@pytest.mark.parametrize("law", ["0.2 s", "2 s", "20 s", "mixed", "bimodal"])
def test_where_durations_repeat_nearly_every_run_is_learnt_in_six_polls(law: str) -> None:
    polls, _ = played(LAWS[law], learnt_from=100)
    assert polls[int(0.95 * RUNS)] <= 6


@pytest.mark.parametrize("law", ["2 s", "20 s", "mixed"])
def test_ten_past_runs_are_enough_to_learn_from(law: str) -> None:
    polls, late = played(LAWS[law], learnt_from=10)
    assert median(late) <= 1
    assert mean(polls) <= 6


@pytest.mark.parametrize("law", LAWS)
def test_a_basket_that_nobody_has_seen_is_polled_ever_less_often(law: str) -> None:
    polls, late = played(LAWS[law], learnt_from=0)
    assert max(polls) <= 16
    assert median(late) <= 3


def test_three_modes_are_looked_at_one_after_the_other_and_not_between() -> None:
    timetable = build_schedule([0.2, 2.0, 20.0] * 30)
    looks = []
    age_s = 0.0
    while age_s < 20:
        age_s += timetable.next_delay_s(age_s)
        looks.append(round(age_s, 1))
    assert looks == [0.2, 2.1, 20.4]


def test_a_run_older_than_all_before_it_is_looked_at_by_a_share_of_its_age() -> None:
    timetable = build_schedule([2.0] * 50)
    waits = [timetable.next_delay_s(age_s) for age_s in (3, 10, 40)]
    assert waits == sorted(waits)
    assert all(0.1 <= wait / age_s <= 1 for wait, age_s in zip(waits, (3, 10, 40), strict=True))


@pytest.mark.parametrize("past", [(), (2.0,) * 50, (HORIZON_S * 2,) * 50])
def test_a_run_of_hours_is_looked_at_no_more_often_than_one_of_minutes(past: tuple[float, ...]) -> None:
    timetable = build_schedule(past)
    age_s, waits = 0.0, []
    while age_s < 3 * 3_600:
        waits.append(timetable.next_delay_s(age_s))
        age_s += waits[-1]
    assert len(waits) < 1.2 * 3 * 3_600 / POLL_DELAY_MAX_S + 16
    assert set(waits[-200:]) == {POLL_DELAY_MAX_S}


@pytest.mark.parametrize("past", [(), (0.0,) * 5, (1e-3, 1e9), (HORIZON_S * 2,) * 50, (300.0,) * 100])
@pytest.mark.parametrize("age_s", [-5.0, 0.0, 0.1, 1.0, 299.9, 1e4, 1e9])
def test_every_look_is_within_the_bounds_of_a_hint(past: tuple[float, ...], age_s: float) -> None:
    assert POLL_DELAY_MIN_S <= build_schedule(past).next_delay_s(age_s) <= POLL_DELAY_MAX_S


def test_one_run_that_never_ended_in_time_does_not_spoil_the_rest() -> None:
    usual, spoilt = build_schedule([2.0] * 99), build_schedule([2.0] * 99 + [86_400.0])
    assert spoilt.next_delay_s(0) == usual.next_delay_s(0)
