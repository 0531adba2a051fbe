"""The feed while its relay dies, freezes, is doubled or loses its store: changes may be late but are never missing."""

from __future__ import annotations

import os
import signal

import pytest

from tests.api_client import RunClient
from tests.faults.feed_verifier import FeedConsumer, assert_no_gaps
from tests.stack import Stack
from tests.waiting import wait_until


def submit_quick_runs(runs: RunClient, number: int = 10) -> list[str]:
    """Submit ``number`` quick runs and return their ids."""
    return [runs.submit("echo").execution_id for _ in range(number)]


def are_accepted(runs: RunClient) -> bool:
    """Return whether every process of the API accepts runs again; requests reach them at random."""
    return all(runs.submit("echo").status == 202 for _ in range(16))


@pytest.mark.parametrize("point", ["relay.read", "relay.written"])
def test_a_relay_killed_between_stream_and_feed_is_replaced_without_a_gap(
    stack: Stack, runs: RunClient, point: str
) -> None:
    reader = FeedConsumer(runs)
    stack.stop("reconciler")
    stack.start("reconciler", BUCKET_FAULTS=f"{point}=kill")
    ids = submit_quick_runs(runs)
    wait_until(lambda: not stack.is_alive("reconciler"), 15, "it died")
    ids += submit_quick_runs(runs)
    stack.start("reconciler")
    reader.read_until_seen(ids)
    assert_no_gaps(stack)


def test_relays_killed_one_after_another_under_load_leave_no_change_out(stack: Stack, runs: RunClient) -> None:
    reader, ids = FeedConsumer(runs), []
    for _ in range(4):
        with stack.second_process("reconciler") as second:
            ids += submit_quick_runs(runs)
            stack.kill("reconciler")
            ids += submit_quick_runs(runs)
            stack.start("reconciler")
            ids += submit_quick_runs(runs)
            second.kill()
    reader.read_until_seen(ids)
    assert_no_gaps(stack)


def test_a_frozen_relay_that_was_replaced_writes_nothing_twice(stack: Stack, runs: RunClient) -> None:
    reader = FeedConsumer(runs)
    wait_until(reader.has_caught_up, 15, "this process is the relay")
    with stack.second_process("reconciler") as second:
        stack.pause("reconciler")
        ids = submit_quick_runs(runs)
        reader.read_until_seen(ids)
        ids += submit_quick_runs(runs)
        stack.resume("reconciler")
        ids += submit_quick_runs(runs)
        reader.read_until_seen(ids)
        assert second.pid is not None
        os.kill(second.pid, signal.SIGTERM)
    ids = submit_quick_runs(runs)
    reader.read_until_seen(ids)
    assert_no_gaps(stack)


def test_without_a_relay_the_feed_never_says_caught_up(stack: Stack, runs: RunClient) -> None:
    reader = FeedConsumer(runs)
    wait_until(reader.has_caught_up, 15, "it has caught up")
    stack.kill("reconciler")
    ids = submit_quick_runs(runs)
    runs.wait_all_done(ids)
    wait_until(lambda: not reader.has_caught_up(), 10, "the feed says that it has not caught up")
    assert not set(ids) <= set(reader.ends)
    stack.start("reconciler")
    reader.read_until_seen(ids)
    wait_until(reader.has_caught_up, 10, "and then that it has caught up")


def test_a_killed_and_restarted_mongod_loses_no_change(stack: Stack, runs: RunClient) -> None:
    reader = FeedConsumer(runs)
    for _ in range(2):
        ids = submit_quick_runs(runs)
        stack.kill("mongod")
        wait_until(lambda: runs.get("/executions/changes").status == 503, 5, "it is refused")
        stack.start("mongod")
        wait_until(lambda: are_accepted(runs), 20, "runs are accepted")
        ids += submit_quick_runs(runs)
        reader.read_until_seen(ids)
    assert_no_gaps(stack)


def test_an_outage_of_redis_loses_no_change_of_the_feed(stack: Stack, runs: RunClient) -> None:
    reader = FeedConsumer(runs)
    ids = [runs.submit("counter", seconds=2).execution_id for _ in range(2)]
    for execution_id in ids:
        runs.wait_begun(execution_id)  # while Redis is away no worker receives the run that has not been claimed
    stack.kill("redis")
    reader.read_until_seen(ids)
    stack.start("redis")
    wait_until(lambda: are_accepted(runs), 20, "runs are accepted")
    reader.read_until_seen(submit_quick_runs(runs))
