"""Redis that is flushed, dies, freezes or loses a message that it was sending: scenarios 7 to 12."""

from __future__ import annotations

import time

import pytest
import requests

from shared.live.views import copy_key
from shared.queue.message import list_keys
from tests.api_client import EVERY_PROCESS, RunClient, send_in_parallel
from tests.faults.inspection import assert_completed_once, restart_with, stored_run
from tests.faults.proxy import Proxy
from tests.stack import Stack
from tests.waiting import wait_until


def test_07_queued_runs_survive_a_flush_of_redis(stack: Stack, runs: RunClient) -> None:
    stack.stop("worker")
    queued = [runs.submit().execution_id for _ in range(200)]
    stack.redis().flushall()
    stack.start("worker")
    assert {poll["status"] for poll in runs.wait_all_done(queued)} == {"completed"}
    assert sorted(line.split(":")[0] for line in runs.counter_lines()) == sorted(queued), "each ran once"


def test_07_running_steps_are_not_disturbed_by_a_flush_of_redis(stack: Stack, runs: RunClient) -> None:
    under_way = [runs.submit("counter", "counter", seconds=1).execution_id for _ in range(2)]
    for run in under_way:
        runs.wait_begun(run)
    queued = [runs.submit().execution_id for _ in range(10)]
    stack.redis().flushall()
    polls = runs.wait_all_done([*under_way, *queued])
    assert {poll["status"] for poll in polls} == {"completed"}
    assert {step["attempts"] for poll in polls for step in poll["steps"]} == {1}


@pytest.mark.parametrize("is_flushed", [True, False])
def test_07_idempotent_runs_survive_a_redis_that_loses_all_or_their_copies_before_they_are_taken(
    stack: Stack, runs: RunClient, *, is_flushed: bool
) -> None:
    stack.stop("worker")
    queued = [runs.submit("echo", "echo").execution_id for _ in range(20)]
    if is_flushed:
        stack.redis().flushall()
    else:
        assert stack.redis().delete(*map(copy_key, queued)) == len(queued), "they had copies, or this shows nothing"
    stack.start("worker")
    polls = runs.wait_all_done(queued)
    assert {poll["status"] for poll in polls} == {"completed"}
    assert {step["attempts"] for poll in polls for step in poll["steps"]} == {1}


def test_07_a_run_cancelled_behind_the_back_of_its_copy_stays_cancelled(stack: Stack, runs: RunClient) -> None:
    stack.pause("worker")  # idle: it takes no message, but may have one sent to its socket
    queued = [runs.submit("effect_idempotent").execution_id for _ in range(4)]
    client = stack.redis()
    assert all(client.copy(copy_key(run), f"kept:{run}") for run in queued)
    for run in queued:
        assert requests.post(f"{stack.url}/executions/{run}/cancel", timeout=10).status_code in {200, 202}
        client.rename(f"kept:{run}", copy_key(run))  # as if Redis had been away at the cancel
        client.pexpire(copy_key(run), 60_000)
    before = [runs.poll(run).body for run in queued]
    stack.resume("worker")
    wait_until(lambda: not any(map(client.llen, list_keys("default"))), 15, "the messages are taken")
    assert runs.wait_done(runs.submit("echo").execution_id)["status"] == "completed"
    after = [runs.poll(run).body for run in queued]
    assert [poll["status"] for poll in after] == ["cancelled"] * len(queued)
    assert [poll["rev"] for poll in after] == [poll["rev"] for poll in before]


def test_09_a_redis_frozen_at_the_end_of_a_step_does_not_block_its_worker_afterwards(
    stack: Stack, runs: RunClient
) -> None:
    restart_with(stack, "worker", BUCKET_WORKER_CONCURRENCY="1")
    run = runs.submit(seconds=1).execution_id
    runs.wait_begun(run)
    stack.pause("redis")
    time.sleep(13)  # longer than any timeout of a client
    stack.resume("redis")
    started_at = time.monotonic()
    wait_until(
        lambda: {response.status for response in send_in_parallel(runs.submit, EVERY_PROCESS)} == {202},
        10,
        "runs are accepted",
    )
    assert runs.wait_done(run)["steps"][0]["attempts"] == 1
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
    assert time.monotonic() - started_at < 15
    assert stack.is_alive("worker")


def test_10_a_worker_whose_connections_are_all_frozen_consumes_again(stack: Stack, runs: RunClient) -> None:
    with Proxy(stack.sockets / "proxy.sock", stack.sockets / "redis.sock") as proxy:
        restart_with(stack, "worker", REDIS_URL=proxy.redis_url)
        assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
        assert proxy.freeze() > 0
        run = runs.submit().execution_id

        def is_done() -> bool:
            if not stack.is_alive("worker"):
                assert stack.exit_code("worker") == 70, "its watchdog has ended it"
                stack.start("worker", REDIS_URL=proxy.redis_url)
            return bool(runs.poll(run).body["done"])

        wait_until(is_done, 90, "a worker consumes again")
        assert runs.wait_done(run)["steps"][0]["attempts"] == 1
        stack.kill("worker")
    stack.start("worker")


def test_11_five_restarts_of_redis_in_a_row_stop_no_worker(stack: Stack, runs: RunClient) -> None:
    main = stack.pid("worker")
    for _ in range(5):
        stack.kill("redis")
        stack.start("redis")
        time.sleep(0.7)
    started_at = time.monotonic()
    wait_until(
        lambda: {response.status for response in send_in_parallel(runs.submit, EVERY_PROCESS)} == {202},
        10,
        "it accepts",
    )
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
    assert time.monotonic() - started_at < 15
    assert stack.pid("worker") == main


def test_12_a_message_lost_with_the_worker_that_received_it_is_offered_again(stack: Stack, runs: RunClient) -> None:
    stack.pause("worker")  # idle: it waits in BRPOP, and Redis sends the next message to its socket
    run_ids = [runs.submit().execution_id for _ in range(3)]
    stack.kill("worker")
    stack.start("worker")
    assert_completed_once(runs, run_ids)
    assert {stored_run(stack, run)["steps"]["counter"]["losses"] for run in run_ids} == {0}
