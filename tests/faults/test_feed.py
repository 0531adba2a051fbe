"""The feed while its relay dies, freezes, is doubled or finds its store gone: late at most, never short of a change."""

from __future__ import annotations

import os
import signal

import pytest

from tests.api_client import Runs
from tests.faults.feed_verifier import Reader, is_whole
from tests.stack import Stack
from tests.waiting import wait_until


def some(runs: Runs, number: int = 10) -> list[str]:
    """Submit so many quick runs."""
    return [runs.submit("echo").execution_id for _ in range(number)]


def are_accepted(runs: Runs) -> bool:
    """True where every process of the API takes runs again: it is chance which of them answers."""
    return all(runs.submit("echo").status == 202 for _ in range(16))


@pytest.mark.parametrize("point", ["relay.read", "relay.written"])
def test_a_relay_killed_between_stream_and_feed_is_followed_without_a_gap(stack: Stack, runs: Runs, point: str) -> None:
    reader = Reader(runs)
    stack.stop("reconciler")
    stack.start("reconciler", BUCKET_FAULTS=f"{point}=kill")
    ids = some(runs)
    wait_until(lambda: not stack.is_alive("reconciler"), 15, "it died")
    ids += some(runs)
    stack.start("reconciler")
    reader.sees(ids)
    is_whole(stack)


def test_one_relay_after_the_other_killed_under_load_leaves_nothing_out(stack: Stack, runs: Runs) -> None:
    reader, ids = Reader(runs), []
    for _ in range(4):
        with stack.another("reconciler") as second:
            ids += some(runs)
            stack.kill("reconciler")
            ids += some(runs)
            stack.start("reconciler")
            ids += some(runs)
            second.kill()
    reader.sees(ids)
    is_whole(stack)


def test_a_relay_that_was_frozen_while_another_took_over_writes_nothing_twice(stack: Stack, runs: Runs) -> None:
    reader = Reader(runs)
    wait_until(reader.has_caught_up, 15, "this one relays")
    with stack.another("reconciler") as second:
        stack.pause("reconciler")
        ids = some(runs)
        reader.sees(ids)
        ids += some(runs)
        stack.resume("reconciler")
        ids += some(runs)
        reader.sees(ids)
        assert second.pid is not None
        os.kill(second.pid, signal.SIGTERM)
    ids = some(runs)
    reader.sees(ids)
    is_whole(stack)


def test_without_a_relay_nobody_is_told_that_this_is_all(stack: Stack, runs: Runs) -> None:
    reader = Reader(runs)
    wait_until(reader.has_caught_up, 15, "it is at rest")
    stack.kill("reconciler")
    ids = some(runs)
    runs.all_done(ids)
    wait_until(lambda: not reader.has_caught_up(), 10, "the feed says that there may be more")
    assert not set(ids) <= set(reader.ends)
    stack.start("reconciler")
    reader.sees(ids)
    wait_until(reader.has_caught_up, 10, "and then that this is all")


def test_a_mongod_that_is_killed_and_comes_back_loses_no_change(stack: Stack, runs: Runs) -> None:
    reader = Reader(runs)
    for _ in range(2):
        ids = some(runs)
        stack.kill("mongod")
        wait_until(lambda: runs.get("/executions/changes").status == 503, 5, "it is refused")
        stack.start("mongod")
        wait_until(lambda: are_accepted(runs), 20, "runs are accepted")
        ids += some(runs)
        reader.sees(ids)
    is_whole(stack)


def test_a_redis_that_is_away_or_frozen_costs_the_feed_no_change(stack: Stack, runs: Runs) -> None:
    reader = Reader(runs)
    ids = [runs.submit("counter", seconds=2).execution_id for _ in range(2)]
    for each in ids:
        runs.begun(each)  # while Redis is away nobody hears of the one that no worker has taken
    stack.kill("redis")
    reader.sees(ids)
    stack.start("redis")
    wait_until(lambda: are_accepted(runs), 20, "runs are accepted")
    reader.sees(some(runs))
