"""Server clock: the store's time, carried on; a small step back is never visible, a jump is."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import pytest

from shared.errors import Unavailable
from shared.store.server_clock import ServerClock
from tests.builders import NOON

MS = timedelta(milliseconds=1)


class FakeServerClock:
    """A fake store whose time a test sets."""

    def __init__(self) -> None:
        self.at = NOON
        self.calls = 0
        self.away = False

    def __call__(self) -> datetime:
        self.calls += 1
        if self.away:
            raise Unavailable
        return self.at


@pytest.fixture
def server() -> FakeServerClock:
    return FakeServerClock()


def test_the_server_is_read_once_and_its_time_carried_on(server: FakeServerClock) -> None:
    clock = ServerClock(server, sync_every_s=math.inf)
    moments = [clock.now() for _ in range(100)]
    assert server.calls == 1
    assert moments == sorted(moments)
    assert NOON - MS <= moments[0] < NOON + timedelta(seconds=5)


def test_a_small_step_back_is_not_seen(server: FakeServerClock) -> None:
    clock = ServerClock(server, sync_every_s=math.inf)
    before = clock.now()
    server.at = NOON - 20 * MS
    assert clock.sync() < timedelta(0)
    assert clock.now() >= before


def test_a_slow_read_moves_the_clock_no_further_than_it_must(
    server: FakeServerClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = 100.0
    monkeypatch.setattr("shared.store.server_clock.boottime_s", lambda: boot)

    def ask() -> datetime:
        nonlocal boot
        boot += stood_still_s  # after the store had replied
        return server()

    stood_still_s = 0.0
    clock = ServerClock(ask, sync_every_s=math.inf)
    assert clock.now() == NOON
    boot, server.at, stood_still_s = 101.0, NOON + timedelta(seconds=1), 3.0
    assert clock.sync() == timedelta(0), "it was right before, and still is"
    assert clock.now() == NOON + timedelta(seconds=4)
    boot, server.at = 110.0, NOON + timedelta(seconds=12)
    assert clock.sync() == timedelta(0), "12 to 15 s after noon, and it was carried to 13"
    server.at = NOON + timedelta(seconds=20)
    assert clock.sync() == timedelta(seconds=4), "it is 20 s after noon or more, and it was carried to 16"
    server.at = NOON + timedelta(seconds=10)
    assert clock.sync() == timedelta(seconds=-10), "it is 13 s after noon or less, and it was carried to 23"


def test_a_jump_back_is_returned_and_seen(server: FakeServerClock) -> None:
    clock = ServerClock(server, sync_every_s=math.inf)
    before = clock.now()
    server.at = NOON - timedelta(hours=1)
    assert timedelta(hours=-1, seconds=-1) < clock.sync() < timedelta(minutes=-59)
    assert clock.now() < before


def test_the_time_of_a_store_that_is_away_is_carried_on(server: FakeServerClock) -> None:
    clock = ServerClock(server, sync_every_s=0)
    before = clock.now()
    server.away = True
    assert clock.now() >= before
    calls = server.calls
    assert clock.now() >= before
    assert server.calls == calls, "it is not called again at once"


def test_a_clock_that_was_never_read_has_no_time(server: FakeServerClock) -> None:
    server.away = True
    clock = ServerClock(server, sync_every_s=math.inf)
    assert clock.now_or_none() is None
    with pytest.raises(Unavailable):
        clock.now()
