"""Redis that forgets, dies, freezes or loses what it was about to say: scenarios 7 to 12."""

from __future__ import annotations

import time

from tests.api_client import EVERY_PROCESS, Runs, at_once
from tests.faults.inspection import all_completed_once, restart_with, stored
from tests.faults.proxy import Proxy
from tests.stack import Stack
from tests.waiting import wait_until


def test_07_queued_runs_survive_that_redis_forgets_everything(stack: Stack, runs: Runs) -> None:
    stack.stop("worker")
    queued = [runs.submit().execution_id for _ in range(200)]
    stack.redis().flushall()
    stack.start("worker")
    assert {poll["status"] for poll in runs.all_done(queued)} == {"completed"}
    assert sorted(line.split(":")[0] for line in runs.counted()) == sorted(queued), "each ran once"


def test_07_running_steps_are_not_disturbed_where_redis_forgets_everything(stack: Stack, runs: Runs) -> None:
    under_way = [runs.submit("counter", "counter", seconds=1).execution_id for _ in range(2)]
    for run in under_way:
        runs.begun(run)
    queued = [runs.submit().execution_id for _ in range(10)]
    stack.redis().flushall()
    polls = runs.all_done([*under_way, *queued])
    assert {poll["status"] for poll in polls} == {"completed"}
    assert {step["attempts"] for poll in polls for step in poll["steps"]} == {1}


def test_09_a_redis_frozen_as_a_step_ends_keeps_its_worker_from_nothing_after(stack: Stack, runs: Runs) -> None:
    restart_with(stack, "worker", BUCKET_WORKER_CONCURRENCY="1")
    run = runs.submit(seconds=1).execution_id
    runs.begun(run)
    stack.pause("redis")
    time.sleep(13)  # longer than any timeout of a client
    stack.resume("redis")
    began = time.monotonic()
    wait_until(
        lambda: {answer.status for answer in at_once(runs.submit, EVERY_PROCESS)} == {202}, 10, "runs are accepted"
    )
    assert runs.done(run)["steps"][0]["attempts"] == 1
    assert runs.done(runs.submit().execution_id)["status"] == "completed"
    assert time.monotonic() - began < 15
    assert stack.is_alive("worker")


def test_10_a_worker_whose_connections_are_all_frozen_consumes_again(stack: Stack, runs: Runs) -> None:
    with Proxy(stack.sockets / "proxy.sock", stack.sockets / "redis.sock") as proxy:
        restart_with(stack, "worker", REDIS_URL=proxy.redis_url)
        assert runs.done(runs.submit().execution_id)["status"] == "completed"
        assert proxy.freeze() > 0
        run = runs.submit().execution_id

        def is_done() -> bool:
            if not stack.is_alive("worker"):
                assert stack.exit_code("worker") == 70, "its watchdog has ended it"
                stack.start("worker", REDIS_URL=proxy.redis_url)
            return bool(runs.poll(run).body["done"])

        wait_until(is_done, 90, "a worker consumes again")
        assert runs.done(run)["steps"][0]["attempts"] == 1
        stack.kill("worker")
    stack.start("worker")


def test_11_five_restarts_of_redis_one_after_the_other_stop_no_worker(stack: Stack, runs: Runs) -> None:
    main = stack.pid("worker")
    for _ in range(5):
        stack.kill("redis")
        stack.start("redis")
        time.sleep(0.7)
    began = time.monotonic()
    wait_until(lambda: {answer.status for answer in at_once(runs.submit, EVERY_PROCESS)} == {202}, 10, "it accepts")
    assert runs.done(runs.submit().execution_id)["status"] == "completed"
    assert time.monotonic() - began < 15
    assert stack.pid("worker") == main


def test_12_a_message_that_died_with_the_worker_which_took_it_is_offered_again(stack: Stack, runs: Runs) -> None:
    stack.pause("worker")  # idle: it waits in BRPOP, and Redis hands its socket whatever comes
    lost = [runs.submit().execution_id for _ in range(3)]
    stack.kill("worker")
    stack.start("worker")
    all_completed_once(runs, lost)
    assert {stored(stack, run)["steps"]["counter"]["losses"] for run in lost} == {0}
