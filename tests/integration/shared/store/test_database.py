"""Calls to a killed or frozen MongoDB fail in time, with an error that says if something may have been written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient

from compose.embedded import server_plans, socket_dir
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from shared.bootstrap import API_STORE_DEADLINE_S
from shared.clock import boottime_s
from shared.errors import BucketError, OutcomeUnknown, Unavailable
from shared.store.database import Database, db_call
from shared.store.executions.usage import MongoUsage
from shared.store.feed.writer import FeedWriter
from shared.store.mongo_client import connect
from shared.store.server_clock import SYNC_RETRY_AFTER_S, ServerClock
from tests.mongod_connections import count_connections
from tests.pause_aware_timer import PauseAwareTimer
from tests.waiting import wait_until

BUSY_S = 1.0


@dataclass
class MongodUnderTest:
    """A mongod started by the test, and the API's connection to it."""

    mongod: Child
    database: Database

    def write(self) -> type[BucketError] | None:
        return self._error_of(lambda: self.database.collection("tried").insert_one({}), writes=True)

    def read(self) -> type[BucketError] | None:
        return self._error_of(lambda: self.database.collection("tried").find_one({}), writes=False)

    def _error_of(self, call: Callable[[], object], *, writes: bool) -> type[BucketError] | None:
        try:
            with db_call(self.database, writes=writes):
                call()
        except BucketError as wrong:
            return type(wrong)
        return None


@pytest.fixture(scope="module")
def mongod(tmp_path_factory: pytest.TempPathFactory, group_reaper: GroupReaper) -> Iterator[tuple[Child, str]]:
    sockets, data = socket_dir.make_socket_dir(), tmp_path_factory.mktemp("own")
    child = Child(server_plans.mongod_plan(sockets, data / "mongod"), data / "mongod.log", group_reaper)
    child.start()
    child.wait_ready()
    yield child, server_plans.mongodb_url(sockets)
    child.kill()
    socket_dir.remove_socket_dir(sockets)


@pytest.fixture
def server(mongod: tuple[Child, str]) -> Iterator[MongodUnderTest]:
    child, url = mongod
    with closing(Database(url, "test", API_STORE_DEADLINE_S, retries=False)) as database:
        server = MongodUnderTest(child, database)
        assert (server.write(), server.read()) == (None, None)
        yield server
        child.resume()
        if not child.is_alive():
            child.start()
            child.wait_ready()


def call_at_once(call: Callable[[], type[BucketError] | None]) -> tuple[set[type[BucketError] | None], float]:
    """Make the call in sixteen threads; return their errors and the seconds that the last one waited."""
    with PauseAwareTimer() as stopwatch, ThreadPoolExecutor(16) as callers:
        errors = set(callers.map(lambda _: call(), range(16)))
    return errors, stopwatch.seconds


def test_a_killed_mongodb_is_reported_within_the_deadline(server: MongodUnderTest) -> None:
    server.mongod.kill()
    for call in (server.write, server.read, server.write):
        errors, seconds = call_at_once(call)
        assert errors <= {Unavailable, OutcomeUnknown}
        assert seconds < API_STORE_DEADLINE_S + BUSY_S
    assert call_at_once(server.read)[0] == {Unavailable}


def test_a_frozen_mongodb_gives_an_unknown_outcome_only_to_writes(server: MongodUnderTest) -> None:
    server.mongod.pause()
    for call, errors in ((server.write, {OutcomeUnknown, Unavailable}), (server.read, {Unavailable})):
        answer, seconds = call_at_once(call)
        # Those without a free connection have sent nothing.
        assert answer <= errors
        assert seconds < API_STORE_DEADLINE_S + BUSY_S
    server.mongod.resume()
    wait_until(lambda: server.read() is None, what="it is back")
    server.mongod.pause()
    assert server.write() is OutcomeUnknown


def test_once_mongodb_is_known_to_be_away_every_call_except_the_check_fails_at_once(server: MongodUnderTest) -> None:
    server.database.is_away = True
    errors, seconds = call_at_once(server.write)
    assert (errors, seconds < BUSY_S) == ({Unavailable}, True)
    assert server.database.is_connected()


def test_a_clock_without_a_reply_continues_and_asks_again_a_second_later(server: MongodUnderTest) -> None:
    asked_at: list[float] = []

    def ask() -> datetime:
        started_at = boottime_s()
        errors = server.database.read_server_time()
        asked_at.append(boottime_s() - started_at)
        return errors

    clock = ServerClock(ask, sync_every_s=0.01)
    server.database.on_failure = clock.invalidate
    started_at = boottime_s()
    before = clock.now()
    server.mongod.pause()
    time.sleep(0.02)
    with PauseAwareTimer() as stopwatch:
        moments = [clock.now() for _ in range(50)]
    assert stopwatch.seconds < SYNC_RETRY_AFTER_S, "only the first one waited"
    assert before < moments[0] <= moments[-1] <= before + timedelta(seconds=boottime_s() - started_at + 0.001)
    server.mongod.resume()
    wait_until(lambda: clock.now() and len(asked_at) > 1, what="it asks again")
    assert boottime_s() - clock._failed_at > SYNC_RETRY_AFTER_S
    jump = clock.sync()
    assert abs(jump) < timedelta(seconds=0.1 + sum(asked_at[-2:])), "each is wrong by at most half of the round trip"


def test_each_call_is_observed_by_the_method_that_made_it(database: Database) -> None:
    calls: list[tuple[str, float]] = []
    database.observe = lambda verb, seconds: calls.append((verb, seconds))
    MongoUsage(database).integrators()
    [(verb, seconds)] = calls
    assert verb == "integrators"
    assert 0 < seconds < 5
    database.is_away = True
    with pytest.raises(Unavailable):
        MongoUsage(database).integrators()
    assert len(calls) == 1, "a call that is not made takes no time"
    database.is_away = False
    FeedWriter(database, ServerClock(database.read_server_time, sync_every_s=60)).ensure_started()
    assert calls[1][0] == "ensure_started", "not the private method that it calls"


def test_client_has_no_connection_that_only_measures_round_trips(mongod: tuple[Child, str]) -> None:
    _, url = mongod
    with connect(url, 5.0, appname="ours") as ours:
        wait_until(lambda: count_connections(ours, "ours") == 2, what="our client has calls and a monitor")
        with MongoClient[dict[str, Any]](url, appname="plain") as plain:
            wait_until(lambda: count_connections(plain, "plain") == 3, what="the driver's own client has a third")
        assert count_connections(ours, "ours") == 2, "ours, which is older, would have it too by now"


def test_housekeeping_of_a_client_wakes_less_often_than_the_driver_would(mongod: tuple[Child, str]) -> None:
    _, url = mongod
    with connect(url, 5.0) as ours, MongoClient[dict[str, Any]](url) as plain:
        # Not documented by the driver: without such an attribute there, what connect() sets has no effect.
        assert plain._kill_cursors_executor._min_interval < ours._kill_cursors_executor._min_interval
