"""When to poll again, and what a run waits for: reckoned at each poll, never a date."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from api.hints import LEAST_MS, MOST_MS, OVER, Hints, hints_for, poll_after_ms
from shared.live.pulse import Look
from shared.live.render import Head, Rest
from shared.store.clock import StoreClock

BEGAN = datetime.fromtimestamp(1_763_700_000, UTC)
ID = "1763700000_89ce24ad1b2c3d4e"
RUNNING = Head(ID, "running", done=False, rev=3)
BUSY = Look(connected=True, backlog=1, workers=2)


def clock_at(age_s: float) -> StoreClock:
    clock = StoreClock(lambda: BEGAN + timedelta(seconds=age_s), every_s=math.inf)
    clock.sync()
    return clock


@pytest.mark.parametrize(
    ("age_s", "least", "most"),
    [(0, LEAST_MS, LEAST_MS), (1, 250, 250), (10, 1_800, 2_200), (60, 10_800, 13_200), (3_600, MOST_MS, MOST_MS)],
)
def test_a_fifth_of_the_age_with_jitter_within_bounds(age_s: float, least: int, most: int) -> None:
    told = [poll_after_ms(timedelta(seconds=age_s)) for _ in range(200)]
    assert least <= min(told) <= max(told) <= most
    assert (len(set(told)) > 1) is (least < most)


def test_the_age_is_told_by_the_id_and_the_stores_clock() -> None:
    told = hints_for(RUNNING, None, clock_at(20), BUSY).poll_after_ms
    assert told is not None
    assert 3_600 <= told <= 4_600


def test_an_id_from_the_future_and_a_clock_that_was_never_set_give_the_least() -> None:
    assert hints_for(RUNNING, None, clock_at(-50), BUSY).poll_after_ms == LEAST_MS
    unset = StoreClock(lambda: BEGAN, every_s=math.inf)
    assert hints_for(RUNNING, None, unset, BUSY).poll_after_ms == LEAST_MS


def test_a_final_run_has_no_hints() -> None:
    assert hints_for(Head(ID, "failed", done=True, rev=9), None, clock_at(5), BUSY) is OVER
    assert orjson.loads(b'{"a":1' + OVER.tail) == {"a": 1, "waiting_for": None}
    assert OVER.retry_after_s is None


@pytest.mark.parametrize(
    ("look", "rest", "reason"),
    [
        (BUSY, Rest("queue"), "queue"),
        (BUSY, None, None),
        (Look(connected=True, workers=0), Rest("queue"), "no_worker"),
        (Look(connected=True, workers=0), None, None),
        (Look(connected=False), Rest("queue"), "queue"),  # who works is not known: Redis would tell
    ],
)
def test_a_resting_run_says_what_it_waits_for(look: Look, rest: Rest | None, reason: str | None) -> None:
    hints = hints_for(RUNNING, rest, clock_at(1), look)
    shown = orjson.loads(b'{"a":1' + hints.tail)
    assert shown["poll_after_ms"] == hints.poll_after_ms
    assert shown["waiting_for"] == (reason and {"reason": reason, "position": None, "eta_ms": None})


@pytest.mark.parametrize("reason", ["retry", "schedule"])
def test_a_run_that_rests_until_a_moment_is_best_polled_then(reason: str) -> None:
    until_ms = int(BEGAN.timestamp() * 1_000) + 7_000
    hints = hints_for(RUNNING, Rest(reason, until_ms), clock_at(5), Look(connected=True, workers=0))
    assert hints.poll_after_ms is not None
    assert 1_900 <= hints.poll_after_ms <= 2_000
    assert hints.waiting_for is not None
    assert (hints.waiting_for["reason"], hints.waiting_for["eta_ms"]) == (reason, hints.poll_after_ms)


@pytest.mark.parametrize(("ms", "seconds"), [(250, 1), (1_000, 1), (1_001, 2), (29_999, 30), (30_000, 30)])
def test_retry_after_is_the_same_in_whole_seconds_rounded_up(ms: int, seconds: int) -> None:
    assert Hints(ms, None).retry_after_s == seconds
