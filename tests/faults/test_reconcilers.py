"""Reconcilers that are down, and several at once; long queues: scenarios 33 and 34."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tests.api_client import Answer, Runs
from tests.faults.inspection import all_completed_once, messages
from tests.stack import Stack
from tests.waiting import wait_until

CALLERS = 8


def submitted(runs: Runs, number: int, **given: float) -> list[str]:
    """Submit so many runs of the counter."""
    return [answer.execution_id for answer in answered(runs, number, **given)]


def answered(runs: Runs, number: int, **given: float) -> list[Answer]:
    """What the submits of so many runs of the counter are answered."""
    with ThreadPoolExecutor(CALLERS) as callers:
        return list(callers.map(lambda _: runs.submit(**given), range(number)))


def offers_of(stack: Stack, ids: Iterable[str]) -> int:
    """How often the steps of these runs were offered, all together."""
    found = stack.mongo().executions.find({"_id": {"$in": list(ids)}}, {"steps.counter.offers": 1})
    return sum(run["steps"]["counter"]["offers"] for run in found)


def test_34_of_two_reconcilers_one_acts_and_the_other_takes_over(stack: Stack, runs: Runs) -> None:
    stack.stop("worker")
    with stack.another("reconciler") as second:
        run = runs.submit().execution_id

        def rescues() -> list[int]:
            said = (stack.logs("reconciler"), second.said())
            return [log.count(f'"a step was rescued","execution_id":"{run}"') for log in said]

        seen = [[0, 0]]
        for times in (1, 2):
            stack.redis().flushall()
            # Not once it is stored: its bell rings after that, and must not outlive the next flush.
            wait_until(lambda: sum(rescues()) >= times, 15, "it was offered again")  # noqa: B023
            seen.append(rescues())
        # Where the first stood still for longer than it leads, each has acted once, and neither beside the other.
        assert (sum(seen[2]), offers_of(stack, [run])) == (2, 3), "one of them acts"
        if seen[2][0] > seen[1][0]:
            stack.kill("reconciler")
        else:
            second.kill()
        stack.start("worker")
        stack.redis().flushall()
        assert runs.done(run)["status"] == "completed"
    assert len(runs.counted()) == 1


def test_33_runs_wait_for_a_reconciler_that_is_down_and_none_is_lost(stack: Stack, runs: Runs) -> None:
    stack.stop("reconciler")
    stack.stop("worker")
    queued = [runs.submit().execution_id for _ in range(5)]
    stack.redis().flushall()
    stack.start("worker")
    time.sleep(3)  # three hand-offs
    assert {runs.poll(run).body["status"] for run in queued} == {"queued"}
    stack.start("reconciler")
    assert {poll["status"] for poll in runs.all_done(queued)} == {"completed"}
    assert len(runs.counted()) == 5


def test_34_three_reconcilers_offer_each_of_500_stale_runs_once_in_a_handoff(stack: Stack, runs: Runs) -> None:
    stack.stop("reconciler")
    stack.stop("worker")
    stale = submitted(runs, 500)
    stack.redis().flushall()
    time.sleep(2.5)  # past the second in which they were stored and a hand-off
    with stack.another("reconciler"), stack.another("reconciler"):
        stack.start("reconciler")
        wait_until(lambda: offers_of(stack, stale) >= 1_000, 30, "each was offered again")
        time.sleep(2.5)  # two hand-offs in which nothing may be offered: the messages wait
        assert (offers_of(stack, stale), messages(stack)) == (1_000, 500)
        stack.start("worker")
        all_completed_once(runs, stale)
    assert messages(stack) == 0


def test_a_rescue_never_multiplies_the_messages_of_a_long_queue(stack: Stack, runs: Runs) -> None:
    answers = answered(runs, 5_000, seconds=0.2)
    began, most = time.monotonic(), 0
    while time.monotonic() - began < 8:  # eight hand-offs, two workers at five runs a second each
        most = max(most, messages(stack))
        time.sleep(0.1)
    assert most <= 5_000
    slow = [answer.execution_id for answer in answers]
    # A message that came a hand-off after its stamp stands behind younger ones, and is taken for lost as they go.
    in_time = [answer.execution_id for answer in answers if answer.seconds < 0.8]
    assert len(in_time) > 4_000
    assert offers_of(stack, in_time) == len(in_time), "none was offered twice"
    stack.mongo().executions.delete_many({"_id": {"$in": slow}})
    stack.redis().flushall()
