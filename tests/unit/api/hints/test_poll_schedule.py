"""Poll schedules, and a simulation of callers that follow them, for runs of different duration distributions."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import mean, median
from typing import Final

import pytest

from api.hints.poll_schedule import HORIZON_S, POLL_DELAY_MAX_S, POLL_DELAY_MIN_S, PollSchedule, build_schedule

Distribution = Callable[[random.Random], float]

DISTRIBUTIONS: Final[dict[str, Distribution]] = {
    "0.2 s": lambda rng: 0.2 + rng.random() * 0.02,
    "2 s": lambda rng: 2 + rng.random() * 0.05,
    "20 s": lambda rng: 20 + rng.random() * 0.2,
    "mixed": lambda rng: rng.choice([0.2, 2, 20]) * (1 + rng.random() * 0.02),
    "bimodal": lambda rng: rng.choice([1, 1, 1, 30]) * rng.lognormvariate(0, 0.1),
    "lognormal": lambda rng: rng.lognormvariate(1.6, 0.5),
    "exponential": lambda rng: rng.expovariate(1 / 5),
    "heavy tail": lambda rng: min(rng.paretovariate(1.1), 120.0),
}
RUNS: Final = 400


def simulate_polling(schedule: PollSchedule, duration_s: float, rng: random.Random) -> tuple[int, float]:
    """Return how often a caller polls a run if it follows the hints, and how late it learns of its end, in seconds.

    A request takes 10 ms.
    """
    age_s, polls = 0.0, 0
    while age_s < duration_s:
        age_s += schedule.next_delay_s(age_s) * rng.uniform(1, 1.05) + 0.01
        polls += 1
    return polls, age_s - duration_s


def simulate_runs(distribution: Distribution, learned_from: int) -> tuple[list[int], list[float]]:
    """Return polls and lateness of many runs of a basket with ``learned_from`` past runs.

    Lateness is in units of the tolerance: a fifth of the duration, but at least half a second.
    """
    rng = random.Random(7)
    schedule = build_schedule([distribution(rng) for _ in range(learned_from)])
    polls, late = [], []
    for _ in range(RUNS):
        duration_s = distribution(rng)
        polled, late_s = simulate_polling(schedule, duration_s, rng)
        polls.append(polled)
        late.append(late_s / max(0.5, 0.2 * duration_s))
    return sorted(polls), late


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_caller_that_follows_the_hints_learns_of_the_end_in_time_and_polls_seldom(distribution: str) -> None:
    polls, late = simulate_runs(DISTRIBUTIONS[distribution], learned_from=100)
    assert median(late) <= 1, "a fifth of the duration, or half a second"
    assert mean(polls) <= 6


@pytest.mark.parametrize("distribution", ["0.2 s", "2 s", "20 s", "mixed", "bimodal"])
def test_nearly_every_run_takes_at_most_six_polls_if_durations_repeat(distribution: str) -> None:
    polls, _ = simulate_runs(DISTRIBUTIONS[distribution], learned_from=100)
    assert polls[int(0.95 * RUNS)] <= 6


@pytest.mark.parametrize("distribution", ["2 s", "20 s", "mixed"])
def test_ten_past_runs_are_enough_to_learn_from(distribution: str) -> None:
    polls, late = simulate_runs(DISTRIBUTIONS[distribution], learned_from=10)
    assert median(late) <= 1
    assert mean(polls) <= 6


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_basket_without_past_runs_is_polled_ever_less_often(distribution: str) -> None:
    polls, late = simulate_runs(DISTRIBUTIONS[distribution], learned_from=0)
    assert max(polls) <= 16
    assert median(late) <= 3


def test_three_modes_are_polled_one_after_the_other_and_not_between() -> None:
    schedule = build_schedule([0.2, 2.0, 20.0] * 30)
    poll_times = []
    age_s = 0.0
    while age_s < 20:
        age_s += schedule.next_delay_s(age_s)
        poll_times.append(round(age_s, 1))
    assert poll_times == [0.2, 2.1, 20.4]


def test_a_run_older_than_all_past_runs_is_polled_after_a_share_of_its_age() -> None:
    schedule = build_schedule([2.0] * 50)
    waits = [schedule.next_delay_s(age_s) for age_s in (3, 10, 40)]
    assert waits == sorted(waits)
    assert all(0.1 <= wait / age_s <= 1 for wait, age_s in zip(waits, (3, 10, 40), strict=True))


@pytest.mark.parametrize("past", [(), (2.0,) * 50, (HORIZON_S * 2,) * 50])
def test_a_run_of_hours_is_polled_no_more_often_than_one_of_minutes(past: tuple[float, ...]) -> None:
    schedule = build_schedule(past)
    age_s, waits = 0.0, []
    while age_s < 3 * 3_600:
        waits.append(schedule.next_delay_s(age_s))
        age_s += waits[-1]
    assert len(waits) < 1.2 * 3 * 3_600 / POLL_DELAY_MAX_S + 16
    assert set(waits[-200:]) == {POLL_DELAY_MAX_S}


@pytest.mark.parametrize("past", [(), (0.0,) * 5, (1e-3, 1e9), (HORIZON_S * 2,) * 50, (300.0,) * 100])
@pytest.mark.parametrize("age_s", [-5.0, 0.0, 0.1, 1.0, 299.9, 1e4, 1e9])
def test_every_delay_is_within_the_bounds_of_a_hint(past: tuple[float, ...], age_s: float) -> None:
    assert POLL_DELAY_MIN_S <= build_schedule(past).next_delay_s(age_s) <= POLL_DELAY_MAX_S


def test_one_outlier_does_not_change_the_schedule() -> None:
    usual, with_outlier = build_schedule([2.0] * 99), build_schedule([2.0] * 99 + [86_400.0])
    assert with_outlier.next_delay_s(0) == usual.next_delay_s(0)
