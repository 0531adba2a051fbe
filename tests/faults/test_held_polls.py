"""Polls and submits that are held while a store goes, the API ends (31) or a worker dies before it has told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import requests

from shared.live.pubsub import WAKEUP_CHANNEL
from tests.api_client import Answer, Runs, asked
from tests.faults.inspection import restart_with, stored
from tests.stack import Stack
from tests.step_gate import gate
from tests.waiting import wait_until

HELD = 4
# Longer than a request may take here: whoever waits for it to be over fails.
LONG_S = 25


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(HELD) as callers:
        yield callers


def not_begun(stack: Stack) -> str:
    """A run that does not move while a test looks on."""
    body = {"basket_name": "working_test", "run_after_s": 3600}
    return str(requests.post(f"{stack.url}/run-basket", json=body, timeout=10).json()["execution_id"])


def hold(callers: ThreadPoolExecutor, stack: Stack, runs: Runs, run: str) -> list[Future[Answer]]:
    """Begin polls that are held until the end of a run."""
    redis = stack.redis()
    futures = [callers.submit(runs.get, f"/executions/{run}?wait={LONG_S}&until=done") for _ in range(HELD)]
    wait_until(lambda: dict(redis.pubsub_numsub(WAKEUP_CHANNEL))[WAKEUP_CHANNEL] > 0, 5, "they listen")
    time.sleep(0.3)
    assert not any(future.done() for future in futures)
    return futures


@pytest.mark.parametrize("way", ["kill", "pause"])
def test_where_redis_goes_the_held_are_told_the_truth_at_once(
    stack: Stack, runs: Runs, callers: ThreadPoolExecutor, way: str
) -> None:
    run = not_begun(stack)
    futures = hold(callers, stack, runs, run)
    getattr(stack, way)("redis")
    for future in futures:
        answer = future.result()
        assert (answer.status, answer.body["status"], answer.body["done"]) == (200, "scheduled", False)
    assert runs.get(f"/executions/{run}?wait={LONG_S}&until=done").status == 200, "nobody is held without Redis"
    stack.mend()


@pytest.mark.parametrize("signals", [signal.SIGTERM, signal.SIGQUIT])
def test_31_an_api_that_ends_answers_the_held_and_waits_for_none_of_them(
    stack: Stack, runs: Runs, callers: ThreadPoolExecutor, signals: signal.Signals
) -> None:
    run = not_begun(stack)
    futures = hold(callers, stack, runs, run)
    os.kill(stack.pid("api"), signals)
    assert [future.result().status for future in futures] == [200] * HELD
    wait_until(lambda: not stack.is_alive("api"), 8, "it has ended")
    assert stack.exit_code("api") == 0


def test_a_worker_that_dies_before_it_told_keeps_nobody_held_beyond_the_bound_of_a_view(
    stack: Stack, runs: Runs, callers: ThreadPoolExecutor
) -> None:
    restart_with(stack, "worker", BUCKET_FAULTS="worker.written=kill")
    run = runs.submit(seconds=1).execution_id
    runs.begun(run)
    futures = [callers.submit(runs.get, f"/executions/{run}?wait={LONG_S}&until=done") for _ in range(HELD)]
    wait_until(lambda: stored(stack, run)["status"] == "completed", 10, "it is written")
    assert {future.result().body["status"] for future in futures} == {"completed"}
    restart_with(stack, "worker")


@pytest.mark.parametrize("way", ["kill", "pause"])
@pytest.mark.parametrize("away", [("redis",), ("mongod",), ("mongod", "redis")], ids="+".join)
def test_a_held_submit_whose_stores_go_away_is_answered_as_it_was_accepted_and_its_run_completes(
    stack: Stack, runs: Runs, callers: ThreadPoolExecutor, away: tuple[str, ...], way: str
) -> None:
    body = {"agent_name": "counter", "input_data": {"file": str(runs.file)}}
    headers = {"Prefer": f"wait={LONG_S}", "X-Request-ID": f"held.{way}.{'.'.join(away)}"}

    def submit() -> Answer:
        return asked(lambda: requests.post(f"{stack.url}/run-agent", json=body, headers=headers, timeout=10))

    with gate(runs.file) as shut:
        future = callers.submit(submit)
        executions = stack.mongo().executions
        wanted = {"request_id": headers["X-Request-ID"], "status": "running"}
        wait_until(lambda: executions.find_one(wanted), 10, "it runs")
        wait_until(lambda: dict(stack.redis().pubsub_numsub(WAKEUP_CHANNEL))[WAKEUP_CHANNEL] > 0, 5, "it is held")
        assert not future.done()
        for server in away:
            getattr(stack, way)(server)
        answer = future.result()
        stack.mend()
        assert (answer.status, answer.error_code) == (202, None), "the run is accepted, whatever became of the wait"
        assert answer.body["done"] is False
        assert answer.body["status"] in {"queued", "running"}, "as it was accepted, or as it was seen last"
        assert answer.headers["Location"] == f"/execution-logs/{answer.execution_id}"
        shut.open()
        assert runs.done(answer.execution_id)["status"] == "completed"
