"""Alerts of a real Prometheus over a real stack: each fires if its fault is provoked, and none in a quiet time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from compose.embedded.group_reaper import GroupReaper
from tests.api_client import AGENTS, RunClient
from tests.ops.operator import Operator
from tests.ops.prometheus import BOARD, METRIC, RULES, Prometheus, running_prometheus
from tests.provider_stub import ProviderStub, Reply
from tests.stack import Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def stub() -> Iterator[ProviderStub]:
    with ProviderStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], stub: ProviderStub) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_OUTBOUND_HOSTS=stub.url)


@pytest.fixture(scope="module")
def prometheus(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory, group_reaper: GroupReaper
) -> Iterator[Prometheus]:
    with running_prometheus(stack, tmp_path_factory.mktemp("prometheus"), group_reaper) as prometheus:
        yield prometheus


@pytest.fixture
def operator(stack: Stack, runs: RunClient, prometheus: Prometheus) -> Operator:
    operator = Operator(stack)
    operator.wait_until_healthy()
    prometheus.wait_until_quiet()
    return operator


def cancel_all(operator: Operator) -> None:
    rows = operator.get("/executions?status=queued,running,scheduled&fields=status")["executions"]
    for row in rows:
        requests.post(f"{operator.stack.url}/executions/{row['execution_id']}/cancel", timeout=5)


def names_in(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    if path == BOARD:
        text = "\n".join(_expressions(json.loads(text)))
    return set(METRIC.findall(text))


def _expressions(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "expr")
        for value in node.values():
            yield from _expressions(value)
    elif isinstance(node, list):
        for item in node:
            yield from _expressions(item)


def test_prometheus_has_each_metric_of_the_rules_and_of_the_board_and_nothing_fires(
    operator: Operator, runs: RunClient, prometheus: Prometheus, stub: ProviderStub
) -> None:
    url = operator.stack.url
    for _ in range(20):
        assert runs.wait_done(runs.submit("echo").execution_id)["status"] == "completed"
    runs.wait_done(runs.submit("flaky", fails=1).execution_id)
    runs.wait_done(runs.submit("raiser", kind="ValueError").execution_id)
    body = {"agent_name": "fetcher", "input_data": {"url": f"{stub.url}/well"}}
    runs.wait_done(requests.post(f"{url}/run-agent", json=body, timeout=5).json()["execution_id"])
    requests.put(f"{url}/consumers/billing", json={}, timeout=5)
    operator.stack.redis().hincrby("metrics:rescues", "lease_over", 0)  # a family without a sample has no name
    wanted = names_in(RULES) | names_in(BOARD)
    wait_until(lambda: wanted <= prometheus.names(), 10, f"it has {wanted - prometheus.names()} too")
    requests.delete(f"{url}/consumers/billing", timeout=5)
    old = {"request_rate_total", "latency_bucket", "latency_count", "latency_sum"}
    assert old <= prometheus.names(), "the names of earlier releases, for one release"
    assert prometheus.query('up{job="bucket"}')[0]["value"][1] == "1"
    quiet_until = time.monotonic() + 8
    while time.monotonic() < quiet_until:
        firing = set(prometheus.firing()) - {"BucketRunsFail"}  # one has, and it leaves the window last
        assert not firing, "nothing is provoked"
        time.sleep(0.5)


def test_a_pool_that_is_stopped_and_a_queue_that_grows_old(
    operator: Operator, runs: RunClient, prometheus: Prometheus
) -> None:
    operator.stack.stop("worker")
    with operator.pool("default"):
        waiting = runs.submit("sleeper_long").execution_id
        firing = prometheus.wait_for("BucketNoWorker", "BucketQueueOld", within_s=20)
        assert firing["BucketNoWorker"]["queue"] == firing["BucketQueueOld"]["queue"] == "long"
        with operator.pool("long"):
            runs.wait_done(waiting)
            prometheus.wait_until_quiet()


def test_a_reconciler_that_is_frozen_and_the_feed_that_lags(operator: Operator, prometheus: Prometheus) -> None:
    operator.stack.pause("reconciler")
    prometheus.wait_for("BucketReconcilerDown", "BucketFeedLags", within_s=20)
    operator.stack.resume("reconciler")
    prometheus.wait_until_quiet()


def test_a_redis_that_is_full_and_the_requests_that_it_fails(
    operator: Operator, runs: RunClient, prometheus: Prometheus
) -> None:
    client = operator.stack.redis()
    client.config_set("maxmemory", "1")
    try:

        def fails_and_fires() -> bool:
            for _ in range(5):
                runs.submit("echo")
            return {"BucketRedisDown", "BucketApiErrors"} <= set(prometheus.firing())

        wait_until(fails_and_fires, 20, "both fire")
    finally:
        client.config_set("maxmemory", "0")
    prometheus.wait_until_quiet()


def test_mongodb_that_is_frozen(operator: Operator, prometheus: Prometheus) -> None:
    operator.stack.pause("mongod")
    prometheus.wait_for("BucketMongoDBDown", within_s=20)
    operator.stack.resume("mongod")
    prometheus.wait_until_quiet()


def test_mongodb_that_is_slow(operator: Operator, runs: RunClient, prometheus: Prometheus) -> None:
    """It stands still for less than the 0.8 s after which it would be away, again and again."""
    has_fired = threading.Event()

    def slow_down() -> None:
        while not has_fired.wait(0.15):
            operator.stack.pause("mongod")
            has_fired.wait(0.65)
            operator.stack.resume("mongod")

    with ThreadPoolExecutor(1) as beside:
        slowed = beside.submit(slow_down)
        try:

            def is_slow_and_fires() -> bool:
                runs.submit("echo")
                return "BucketStoreSlow" in prometheus.firing()

            wait_until(is_slow_and_fires, 60, "the alert fires")
        finally:
            has_fired.set()
            slowed.result()
    prometheus.wait_until_quiet()


def test_a_circuit_that_is_open(
    operator: Operator, runs: RunClient, prometheus: Prometheus, stub: ProviderStub
) -> None:
    is_down = True
    stub.reply("/shaky", lambda _: Reply(503 if is_down else 200))

    def call() -> str:
        given = {"url": f"{stub.url}/shaky", "catch": True, "options": {"retry": False}}
        body = {"agent_name": "fetcher", "input_data": given}
        accepted = requests.post(f"{operator.stack.url}/run-agent", json=body, timeout=5).json()
        return str(runs.wait_done(accepted["execution_id"], 30)["result"].get("status"))

    def opens() -> bool:
        call()
        return "BucketCircuitOpen" in prometheus.firing()

    wait_until(opens, 20, "the alert fires")
    assert prometheus.firing()["BucketCircuitOpen"]["provider"] == stub.name
    is_down = False
    wait_until(lambda: call() == "200", 30, "the probe succeeds")
    prometheus.wait_until_quiet()


def test_runs_that_fail_for_good_and_their_dead_letters(
    operator: Operator, runs: RunClient, prometheus: Prometheus
) -> None:
    def fails_and_fires() -> bool:
        for _ in range(3):
            runs.wait_done(runs.submit("returner", kind="bad_schema").execution_id)
        return {"BucketRunsFail", "BucketDeadLetters"} <= set(prometheus.firing())

    wait_until(fails_and_fires, 40, "both fire")
    prometheus.wait_until_quiet()


def test_slots_that_are_all_busy_while_runs_wait(operator: Operator, runs: RunClient, prometheus: Prometheus) -> None:
    for _ in range(4):
        runs.submit("sleeper", seconds=60)
    firing = prometheus.wait_for("BucketSlotsFull", within_s=20)
    assert firing["BucketSlotsFull"]["queue"] == "default"
    cancel_all(operator)
    prometheus.wait_until_quiet()


def test_a_worker_that_is_killed_and_a_consumer_that_does_not_read(
    operator: Operator, runs: RunClient, prometheus: Prometheus
) -> None:
    requests.put(f"{operator.stack.url}/consumers/billing", json={}, timeout=5)
    for _ in range(3):
        runs.wait_done(runs.submit("echo").execution_id)
    assert prometheus.wait_for("BucketConsumerLags", within_s=20)["BucketConsumerLags"]["consumer"] == "billing"
    requests.delete(f"{operator.stack.url}/consumers/billing", timeout=5)
    runs.submit("sleeper", seconds=60)
    wait_until(lambda: operator.queue()["running"] == 1, 10, "it runs")
    operator.stack.kill("worker")
    prometheus.wait_for("BucketWorkersLost", within_s=30)
    operator.stack.start("worker")
    cancel_all(operator)
    prometheus.wait_until_quiet()


def test_an_api_that_is_gone(operator: Operator, prometheus: Prometheus) -> None:
    operator.stack.kill("api")
    prometheus.wait_for("BucketApiDown", within_s=20)
    operator.stack.start("api")
    prometheus.wait_until_quiet()
