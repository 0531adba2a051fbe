"""The store's time, carried on: no small step back is ever seen, a jump is."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import pytest

from shared.errors import Unavailable
from shared.store.server_clock import ServerClock
from tests.builders import NOON

MS = timedelta(milliseconds=1)


class Told:
    """A store whose clock says what a test says."""

    def __init__(self) -> None:
        self.at = NOON
        self.asked = 0
        self.away = False

    def __call__(self) -> datetime:
        self.asked += 1
        if self.away:
            raise Unavailable
        return self.at


@pytest.fixture
def told() -> Told:
    return Told()


def test_it_is_asked_once_and_carried_on(told: Told) -> None:
    clock = ServerClock(told, sync_every_s=math.inf)
    moments = [clock.now() for _ in range(100)]
    assert told.asked == 1
    assert moments == sorted(moments)
    assert NOON - MS <= moments[0] < NOON + timedelta(seconds=5)


def test_a_small_step_back_is_not_seen(told: Told) -> None:
    clock = ServerClock(told, sync_every_s=math.inf)
    before = clock.now()
    told.at = NOON - 20 * MS
    assert clock.sync() < timedelta(0)
    assert clock.now() >= before


def test_a_look_that_took_long_moves_the_clock_no_further_than_it_must(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = 100.0
    monkeypatch.setattr("shared.store.server_clock.boottime_s", lambda: boot)

    def ask() -> datetime:
        nonlocal boot
        boot += stood_still_s  # after the store had answered
        return told()

    stood_still_s = 0.0
    clock = ServerClock(ask, sync_every_s=math.inf)
    assert clock.now() == NOON
    boot, told.at, stood_still_s = 101.0, NOON + timedelta(seconds=1), 3.0
    assert clock.sync() == timedelta(0), "it was right before, and still is"
    assert clock.now() == NOON + timedelta(seconds=4)
    boot, told.at = 110.0, NOON + timedelta(seconds=12)
    assert clock.sync() == timedelta(0), "12 to 15 s after noon, and it was carried to 13"
    told.at = NOON + timedelta(seconds=20)
    assert clock.sync() == timedelta(seconds=4), "it is 20 s after noon or more, and it was carried to 16"
    told.at = NOON + timedelta(seconds=10)
    assert clock.sync() == timedelta(seconds=-10), "it is 13 s after noon or less, and it was carried to 23"


def test_a_jump_back_is_told_and_seen(told: Told) -> None:
    clock = ServerClock(told, sync_every_s=math.inf)
    before = clock.now()
    told.at = NOON - timedelta(hours=1)
    assert timedelta(hours=-1, seconds=-1) < clock.sync() < timedelta(minutes=-59)
    assert clock.now() < before


def test_a_store_that_is_away_is_carried_on_from_what_it_said(told: Told) -> None:
    clock = ServerClock(told, sync_every_s=0)
    before = clock.now()
    told.away = True
    assert clock.now() >= before
    asked = told.asked
    assert clock.now() >= before
    assert told.asked == asked, "it is not asked again at once"


def test_one_that_was_never_read_cannot_tell(told: Told) -> None:
    told.away = True
    clock = ServerClock(told, sync_every_s=math.inf)
    assert clock.now_or_none() is None
    with pytest.raises(Unavailable):
        clock.now()
