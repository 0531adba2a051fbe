"""Long polls and held submits while a store goes away, the API stops (31) or a worker dies before it publishes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import requests

from shared.live.signals.pubsub import WAKEUP_CHANNEL
from tests.api_client import ApiResponse, RunClient, send_timed
from tests.faults.inspection import restart_with, stored_run
from tests.stack import Stack
from tests.step_gate import step_gate
from tests.waiting import wait_until

HELD = 4
# Longer than a request may take here: a test that waits for the whole time fails.
LONG_S = 25


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(HELD) as callers:
        yield callers


def not_begun(stack: Stack) -> str:
    """Submit a run that does not change during the test, and return its id."""
    body = {"basket_name": "working_test", "run_after_s": 3600}
    return str(requests.post(f"{stack.url}/run-basket", json=body, timeout=10).json()["execution_id"])


def begin_long_polls(callers: ThreadPoolExecutor, stack: Stack, runs: RunClient, run: str) -> list[Future[ApiResponse]]:
    """Begin long polls that are held until the end of a run."""
    redis = stack.redis()
    futures = [callers.submit(runs.get, f"/executions/{run}?wait={LONG_S}&until=done") for _ in range(HELD)]
    wait_until(lambda: dict(redis.pubsub_numsub(WAKEUP_CHANNEL))[WAKEUP_CHANNEL] > 0, 5, "they listen")
    time.sleep(0.3)
    assert not any(future.done() for future in futures)
    return futures


@pytest.mark.parametrize("way", ["kill", "pause"])
def test_held_polls_return_the_current_state_at_once_if_redis_goes_away(
    stack: Stack, runs: RunClient, callers: ThreadPoolExecutor, way: str
) -> None:
    run = not_begun(stack)
    futures = begin_long_polls(callers, stack, runs, run)
    getattr(stack, way)("redis")
    for future in futures:
        response = future.result()
        assert (response.status, response.body["status"], response.body["done"]) == (200, "scheduled", False)
    assert runs.get(f"/executions/{run}?wait={LONG_S}&until=done").status == 200, "no poll is held without Redis"
    stack.repair()


def test_held_polls_take_no_place_of_other_requests(stack: Stack, runs: RunClient, callers: ThreadPoolExecutor) -> None:
    restart_with(stack, "api", BUCKET_API_PROCESSES="1", BUCKET_API_THREADS="1", BUCKET_HELD_POLLS=str(HELD))
    futures = begin_long_polls(callers, stack, runs, run := not_begun(stack))
    assert runs.wait_done(runs.submit("echo").execution_id)["status"] == "completed"
    assert runs.get(f"/executions/{run}?wait={LONG_S}&until=done").status == 200, "one more is not held"
    assert not any(future.done() for future in futures)
    restart_with(stack, "api")
    assert [future.result().status for future in futures] == [200] * HELD


@pytest.mark.parametrize("signals", [signal.SIGTERM, signal.SIGQUIT])
def test_31_an_api_that_stops_returns_all_held_polls_without_waiting(
    stack: Stack, runs: RunClient, callers: ThreadPoolExecutor, signals: signal.Signals
) -> None:
    run = not_begun(stack)
    futures = begin_long_polls(callers, stack, runs, run)
    os.kill(stack.pid("api"), signals)
    assert [future.result().status for future in futures] == [200] * HELD
    wait_until(lambda: not stack.is_alive("api"), 8, "it has ended")
    assert stack.exit_code("api") == 0


def test_a_worker_that_dies_before_it_publishes_holds_polls_no_longer_than_a_view_is_valid(
    stack: Stack, runs: RunClient, callers: ThreadPoolExecutor
) -> None:
    restart_with(stack, "worker", BUCKET_FAULTS="worker.written=kill")
    run = runs.submit(seconds=1).execution_id
    runs.wait_begun(run)
    futures = [callers.submit(runs.get, f"/executions/{run}?wait={LONG_S}&until=done") for _ in range(HELD)]
    wait_until(lambda: stored_run(stack, run)["status"] == "completed", 10, "it is written")
    assert {future.result().body["status"] for future in futures} == {"completed"}
    restart_with(stack, "worker")


@pytest.mark.parametrize("way", ["kill", "pause"])
@pytest.mark.parametrize("away", [("redis",), ("mongod",), ("mongod", "redis")], ids="+".join)
def test_a_held_submit_returns_the_accepted_run_if_its_stores_go_away_and_the_run_completes(
    stack: Stack, runs: RunClient, callers: ThreadPoolExecutor, away: tuple[str, ...], way: str
) -> None:
    body = {"agent_name": "counter", "input_data": {"file": str(runs.file)}}
    headers = {"Prefer": f"wait={LONG_S}", "X-Request-ID": f"held.{way}.{'.'.join(away)}"}

    def submit() -> ApiResponse:
        return send_timed(lambda: requests.post(f"{stack.url}/run-agent", json=body, headers=headers, timeout=10))

    with step_gate(runs.file) as shut:
        future = callers.submit(submit)
        executions = stack.mongo().executions
        expected = {"request_id": headers["X-Request-ID"], "status": "running"}
        wait_until(lambda: executions.find_one(expected), 10, "it runs")
        wait_until(lambda: dict(stack.redis().pubsub_numsub(WAKEUP_CHANNEL))[WAKEUP_CHANNEL] > 0, 5, "it is held")
        assert not future.done()
        for server in away:
            getattr(stack, way)(server)
        response = future.result()
        stack.repair()
        assert (response.status, response.error_code) == (202, None), (
            "the run is accepted, whatever happened to the wait"
        )
        assert response.body["done"] is False
        assert response.body["status"] in {"queued", "running"}, "the accepted state, or the last state that was seen"
        assert response.headers["Location"] == f"/execution-logs/{response.execution_id}"
        shut.open()
        assert runs.wait_done(response.execution_id)["status"] == "completed"
