"""A MongoDB that is killed or frozen is told of in time, and in words that say whether something may be written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from compose.embedded import servers, socket_dir
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from shared.bootstrap import API_STORE_DEADLINE_S
from shared.clock import boottime_s
from shared.errors import BucketError, OutcomeUnknown, Unavailable
from shared.store.database import Database, db_call
from shared.store.server_clock import SYNC_RETRY_AFTER_S, ServerClock
from tests.pause_aware_timer import Stopwatch
from tests.waiting import wait_until

BUSY_S = 1.0


@dataclass
class Place:
    """A mongod of the test's own and the API's connection to it."""

    mongod: Child
    database: Database

    def write(self) -> type[BucketError] | None:
        return self._told(lambda: self.database.collection("tried").insert_one({}), writes=True)

    def read(self) -> type[BucketError] | None:
        return self._told(lambda: self.database.collection("tried").find_one({}), writes=False)

    def _told(self, ask: Callable[[], object], *, writes: bool) -> type[BucketError] | None:
        try:
            with db_call(self.database, writes=writes):
                ask()
        except BucketError as wrong:
            return type(wrong)
        return None


@pytest.fixture(scope="module")
def mongod(tmp_path_factory: pytest.TempPathFactory, guard: GroupReaper) -> Iterator[tuple[Child, str]]:
    sockets, data = socket_dir.make_socket_dir(), tmp_path_factory.mktemp("own")
    child = Child(servers.mongod_plan(sockets, data / "mongod"), data / "mongod.log", guard)
    child.start()
    child.wait_ready()
    yield child, servers.mongodb_url(sockets)
    child.kill()
    socket_dir.remove_socket_dir(sockets)


@pytest.fixture
def place(mongod: tuple[Child, str]) -> Iterator[Place]:
    child, url = mongod
    with closing(Database(url, "test", API_STORE_DEADLINE_S, retries=False)) as database:
        place = Place(child, database)
        assert (place.write(), place.read()) == (None, None)
        yield place
        child.resume()
        if not child.is_alive():
            child.start()
            child.wait_ready()


def at_once(ask: Callable[[], type[BucketError] | None]) -> tuple[set[type[BucketError] | None], float]:
    """What sixteen callers were told, and how long the last one waited."""
    with Stopwatch() as took, ThreadPoolExecutor(16) as callers:
        told = set(callers.map(lambda _: ask(), range(16)))
    return told, took.seconds


def test_a_killed_mongodb_is_told_of_within_the_deadline(place: Place) -> None:
    place.mongod.kill()
    for ask in (place.write, place.read, place.write):
        told, seconds = at_once(ask)
        assert told <= {Unavailable, OutcomeUnknown}
        assert seconds < API_STORE_DEADLINE_S + BUSY_S
    assert at_once(place.read)[0] == {Unavailable}


def test_a_frozen_mongodb_leaves_only_writes_unknown(place: Place) -> None:
    place.mongod.pause()
    for ask, told in ((place.write, {OutcomeUnknown, Unavailable}), (place.read, {Unavailable})):
        answer, seconds = at_once(ask)
        # Those that found no free connection have sent nothing.
        assert answer <= told
        assert seconds < API_STORE_DEADLINE_S + BUSY_S
    place.mongod.resume()
    wait_until(lambda: place.read() is None, what="it is back")
    place.mongod.pause()
    assert place.write() is OutcomeUnknown


def test_once_it_is_known_to_be_away_every_call_fails_at_once_but_the_look(place: Place) -> None:
    place.database.is_away = True
    told, seconds = at_once(place.write)
    assert (told, seconds < BUSY_S) == ({Unavailable}, True)
    assert place.database.is_connected()


def test_a_clock_that_is_not_answered_goes_on_and_is_asked_again_a_second_later(place: Place) -> None:
    asked: list[float] = []

    def ask() -> datetime:
        began = boottime_s()
        told = place.database.read_server_time()
        asked.append(boottime_s() - began)
        return told

    clock = ServerClock(ask, sync_every_s=0.01)
    place.database.on_failure = clock.invalidate
    began = boottime_s()
    before = clock.now()
    place.mongod.pause()
    time.sleep(0.02)
    with Stopwatch() as took:
        moments = [clock.now() for _ in range(50)]
    assert took.seconds < SYNC_RETRY_AFTER_S, "only the first one waited"
    assert before < moments[0] <= moments[-1] <= before + timedelta(seconds=boottime_s() - began + 0.001)
    place.mongod.resume()
    wait_until(lambda: clock.now() and len(asked) > 1, what="it is asked again")
    assert boottime_s() - clock._failed_at > SYNC_RETRY_AFTER_S
    jump = clock.sync()
    assert abs(jump) < timedelta(seconds=0.1 + sum(asked[-2:])), "each is wrong by half of what it took at most"
