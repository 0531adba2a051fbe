"""Each part that fails is named within 20 s, with what to do, and is healthy again once it is mended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.api_client import AGENTS, RunClient
from tests.ops.operator import MANY, Operator
from tests.provider_stub import ProviderStub, Reply
from tests.stack import Stack
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def stub() -> Iterator[ProviderStub]:
    with ProviderStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], stub: ProviderStub) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_OUTBOUND_HOSTS=stub.url)


@pytest.fixture
def operator(stack: Stack, runs: RunClient) -> Operator:
    operator = Operator(stack)
    operator.wait_until_healthy()
    return operator


def test_a_pool_of_long_workers_that_is_stopped_is_named_and_its_runs_wait_for_no_worker(
    operator: Operator, runs: RunClient
) -> None:
    operator.stack.stop("worker")
    with operator.pool("default"):
        with operator.pool("long"):
            assert runs.wait_done(runs.submit("sleeper_long").execution_id)["status"] == "completed"
        waiting = runs.submit("sleeper_long").execution_id
        detail = operator.wait_for_part("queue_long", "degraded")
        assert "no worker takes from it; start one with `python -m worker --queues long`" in detail
        health = operator.get("/health")
        assert (health["status"], health["reasons"]) == ("degraded", [detail])
        assert health["services"]["workers"] == "connected", "those of the other queue are there"
        wait_until(lambda: runs.poll(waiting).body["waiting_for"]["reason"] == "no_worker", 2, "the poll says so too")
        assert runs.wait_done(runs.submit("echo").execution_id)["status"] == "completed", "the other queue goes on"
        assert operator.queue("long")["workers"] == 0
        assert operator.queue("long")["wanted_workers"] == 1
        with operator.pool("long"):
            assert runs.wait_done(waiting)["status"] == "completed"
            operator.wait_until_healthy()


@pytest.mark.parametrize("way", ["stop", "kill", "pause"])
def test_a_reconciler_that_is_stopped_killed_or_frozen_is_named_and_the_feed_that_lags(
    operator: Operator, way: str
) -> None:
    getattr(operator.stack, way)("reconciler")
    assert "start one with `python -m worker.reconciler`" in operator.wait_for_part("reconciler", "degraded")
    assert operator.get("/health")["status"] == "degraded"
    assert "the feed lags" in operator.wait_for_part("feed", "degraded")
    wait_until(lambda: operator.get("/workers")["reconcilers"] == [], 20, "it is no longer listed")
    operator.stack.repair()
    operator.wait_until_healthy()
    wait_until(
        lambda: [each["leading"] for each in operator.get("/workers")["reconcilers"]] == [True], 10, "it leads again"
    )


def test_a_redis_that_is_full_is_named(operator: Operator) -> None:
    client = operator.stack.redis()
    client.config_set("maxmemory", "1")
    try:
        assert "refuses writes" in operator.wait_for_part("redis", "degraded")
        health = operator.get("/health")
        assert (health["status"], health["services"]["workers"]) == ("degraded", "disconnected")
        assert health["parts"]["workers"]["status"] == "unknown"
        runs = requests.get(f"{operator.stack.url}/ui/runs", timeout=30)
        assert (runs.status_code, 'class="count"' in runs.text) == (200, False), (
            "shown, without counts that are not known"
        )
        refused = requests.get(f"{operator.stack.url}/executions/stats", timeout=5)
        assert (refused.status_code, refused.json()["error_code"]) == (503, "unavailable"), "zeros would be wrong"
    finally:
        client.config_set("maxmemory", "0")
    operator.wait_until_healthy()


def test_mongodb_that_is_away_makes_the_whole_unhealthy(operator: Operator) -> None:
    operator.stack.pause("mongod")
    try:
        operator.wait_for_part("mongodb", "unhealthy")
        reply = requests.get(f"{operator.stack.url}/health", timeout=5)
        assert reply.elapsed.total_seconds() < 3
        assert (reply.json()["status"], reply.json()["parts"]["feed"]["status"]) == ("unhealthy", "unknown")
    finally:
        operator.stack.resume("mongod")
    operator.wait_until_healthy()


def test_a_breaker_that_is_open_is_named(operator: Operator, runs: RunClient, stub: ProviderStub) -> None:
    is_down = True
    stub.reply("/shaky", lambda _: Reply(503 if is_down else 200))
    url = f"{stub.url}/shaky"

    def call() -> str:
        body = {"agent_name": "fetcher", "input_data": {"url": url, "options": {"retry": False}}}
        accepted = requests.post(f"{operator.stack.url}/run-agent", json=body, timeout=5).json()
        return str(runs.wait_done(accepted["execution_id"], 30)["status"])

    for _ in range(5):
        call()
    detail = operator.wait_for_part("breakers", "degraded", 4)
    assert f"{stub.name} (open)" in detail
    assert operator.get("/health")["status"] == "degraded"
    is_down = False
    wait_until(lambda: call() == "completed", 20, "the probe succeeds")
    operator.wait_until_healthy()


def test_a_worker_is_listed_with_what_it_runs_and_one_that_is_frozen_disappears(
    operator: Operator, runs: RunClient
) -> None:
    sleeping = runs.submit("sleeper", seconds=60).execution_id

    def shown() -> list[tuple[str, str]]:
        return [(each["execution_id"], each["agent"]) for worker in operator.workers() for each in worker["running"]]

    # What the test before has run may still be shown: it is as old as the last heartbeat.
    wait_until(lambda: shown() == [(sleeping, "sleeper")], 12, "what runs is shown, and nothing else")
    [worker] = operator.workers()
    [running] = worker["running"]
    assert worker["started_at"] < running["since"] <= worker["heartbeat_at"]
    assert (worker["pid"], worker["slots"], worker["slots_busy"]) == (operator.stack.pid("worker"), 2, 1)
    assert worker["queues"] == ["default", "long"]
    requests.post(f"{operator.stack.url}/executions/{sleeping}/cancel", timeout=5)
    wait_until(lambda: operator.workers()[0]["running"] == [], 6, "it runs nothing now")
    os.kill(operator.stack.pid("worker"), signal.SIGSTOP)
    try:
        operator.wait_for_part("workers", "degraded")
        assert operator.workers() == []
        # The frozen worker has taken the message out of its list, and nobody offers it again.
        operator.stack.pause("reconciler")
        waiting = runs.submit("echo").execution_id
        client = operator.stack.redis()
        client.delete("default", "default\x06\x163")
        assert "no worker takes from it" in operator.wait_for_part("queue_default", "degraded")
    finally:
        operator.stack.resume("reconciler")
        os.kill(operator.stack.pid("worker"), signal.SIGCONT)
    assert runs.wait_done(waiting, 30)["status"] == "completed"
    wait_until(lambda: all(len(operator.workers()) == 1 for _ in range(MANY)), 10, "it is back")
