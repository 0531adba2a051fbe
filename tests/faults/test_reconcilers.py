"""Stopped reconcilers, several at once, and long queues: scenarios 33 and 34."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tests.api_client import ApiResponse, RunClient
from tests.faults.inspection import assert_completed_once, count_messages
from tests.stack import Stack
from tests.waiting import wait_until

CALLERS = 8


def submit_runs(runs: RunClient, number: int, **options: float) -> list[str]:
    """Submit ``number`` runs of the counter and return their ids."""
    return [response.execution_id for response in submit_and_collect(runs, number, **options)]


def submit_and_collect(runs: RunClient, number: int, **options: float) -> list[ApiResponse]:
    """Submit ``number`` runs of the counter and return the responses."""
    with ThreadPoolExecutor(CALLERS) as callers:
        return list(callers.map(lambda _: runs.submit(**options), range(number)))


def offers_of(stack: Stack, ids: Iterable[str]) -> int:
    """Return how often the steps of these runs were offered in total."""
    documents = stack.mongo().executions.find({"_id": {"$in": list(ids)}}, {"steps.counter.offers": 1})
    return sum(run["steps"]["counter"]["offers"] for run in documents)


def test_34_of_two_reconcilers_one_acts_and_the_other_takes_over(stack: Stack, runs: RunClient) -> None:
    stack.stop("worker")
    with stack.second_process("reconciler") as second:
        run = runs.submit().execution_id

        def rescues() -> list[int]:
            logs = (stack.logs("reconciler"), second.output())
            return [log.count(f'"a step was rescued","execution_id":"{run}"') for log in logs]

        counts = [[0, 0]]
        for times in (1, 2):
            stack.redis().flushall()
            # Not already when the offer is stored: its message is sent after that and must not survive the next flush.
            wait_until(lambda: sum(rescues()) >= times, 15, "it was offered again")  # noqa: B023
            counts.append(rescues())
        # If the first paused for longer than its leadership lasts, each has acted once, but not at the same time.
        assert (sum(counts[2]), offers_of(stack, [run])) == (2, 3), "only one of them acts"
        if counts[2][0] > counts[1][0]:
            stack.kill("reconciler")
        else:
            second.kill()
        stack.start("worker")
        stack.redis().flushall()
        assert runs.wait_done(run)["status"] == "completed"
    assert len(runs.counter_lines()) == 1


def test_33_runs_wait_for_a_stopped_reconciler_and_none_is_lost(stack: Stack, runs: RunClient) -> None:
    stack.stop("reconciler")
    stack.stop("worker")
    queued = [runs.submit().execution_id for _ in range(5)]
    stack.redis().flushall()
    stack.start("worker")
    time.sleep(3)  # three hand-offs
    assert {runs.poll(run).body["status"] for run in queued} == {"queued"}
    stack.start("reconciler")
    assert {poll["status"] for poll in runs.wait_all_done(queued)} == {"completed"}
    assert len(runs.counter_lines()) == 5


def test_34_three_reconcilers_offer_each_of_500_stale_runs_once_in_a_handoff(stack: Stack, runs: RunClient) -> None:
    stack.stop("reconciler")
    stack.stop("worker")
    stale = submit_runs(runs, 500)
    stack.redis().flushall()
    time.sleep(2.5)  # longer than the second in which they were stored plus a hand-off
    with stack.second_process("reconciler"), stack.second_process("reconciler"):
        stack.start("reconciler")
        wait_until(lambda: offers_of(stack, stale) >= 1_000, 30, "each was offered again")
        time.sleep(2.5)  # two hand-offs in which nothing may be offered, because the messages wait
        assert (offers_of(stack, stale), count_messages(stack)) == (1_000, 500)
        stack.start("worker")
        assert_completed_once(runs, stale)
    assert count_messages(stack) == 0


def test_a_rescue_never_multiplies_the_messages_of_a_long_queue(stack: Stack, runs: RunClient) -> None:
    responses = submit_and_collect(runs, 5_000, seconds=0.2)
    started_at, most = time.monotonic(), 0
    while time.monotonic() - started_at < 8:  # eight hand-offs, two workers at five runs a second each
        most = max(most, count_messages(stack))
        time.sleep(0.1)
    assert most <= 5_000
    # Under this load MongoDB may not reply in time to one of 5,000: it was refused. And a message sent a hand-off after
    # its time stamp stands behind younger ones and counts as lost when they go.
    in_time = [each.execution_id for each in responses if each.status == 202 and each.seconds < 0.8]
    assert len(in_time) > 4_000
    assert offers_of(stack, in_time) == len(in_time), "none was offered twice"
    stack.mongo().executions.delete_many({})
    stack.redis().flushall()
