"""Agents call a provider that fails: seen by the poller, and counted over the four processes of a real worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.api_client import AGENTS, RunClient
from tests.provider_stub import ProviderStub, Received, Reply
from tests.stack import Stack
from tests.waiting import wait_until

WORKERS = 4


@pytest.fixture(scope="module")
def stub() -> Iterator[ProviderStub]:
    with ProviderStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], stub: ProviderStub) -> Stack:
    return make_stack(
        BUCKET_AGENTS_DIR=str(AGENTS),
        BUCKET_WORKER_CONCURRENCY=str(WORKERS),
        BUCKET_OUTBOUND_HOSTS=f"{stub.url}, https://never.called.example",
    )


@pytest.fixture(autouse=True)
def _closed_circuit(stack: Stack) -> None:
    client = stack.redis()
    client.delete("metrics:circuits", *client.keys("provider:*"))


def submit(runs: RunClient, url: str, **given: Any) -> str:
    body = {"agent_name": "fetcher", "input_data": {"url": url} | given}
    response = requests.post(f"{runs.stack.url}/run-agent", json=body, timeout=10)
    assert response.status_code == 202, response.text
    return str(response.json()["execution_id"])


def fetch(runs: RunClient, url: str, **given: Any) -> dict[str, Any]:
    return runs.wait_done(submit(runs, url, **given), 30)


def provider_in_health(runs: RunClient, stub: ProviderStub) -> dict[str, Any]:
    [found] = [each for each in health(runs)["dependencies"] if each["name"] == stub.name]
    return dict(found)


def health(runs: RunClient) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{runs.stack.url}/health", timeout=5).json()
    return found


def test_two_repeats_are_in_the_log_of_a_run_that_completed(runs: RunClient, stub: ProviderStub) -> None:
    poll = fetch(runs, f"{stub.url}/sequence/503,503,200")
    assert (poll["status"], poll["result"]["body"]) == ("completed", {"call": 3})
    logs = requests.get(f"{runs.stack.url}/logs?execution_id={poll['execution_id']}", timeout=5).json()["logs"]
    lines = [line["data"] for line in logs if line["event"] == "agent.log"]
    assert [(line["provider"], line["reason"], line["status"]) for line in lines] == [
        (stub.name, "server_error", 503)
    ] * 2


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/status/400", "client_error: "),
        ("/not-json", "bad_response: "),
        ("/huge", "too_large: "),
        ("/redirect/302?to=https://elsewhere.example/", "not_allowed: https://elsewhere.example "),
    ],
)
def test_what_a_repeat_cannot_mend_fails_after_one_attempt(
    runs: RunClient, stub: ProviderStub, path: str, words: str
) -> None:
    seen = len(stub.requests)
    poll = fetch(runs, stub.url + path)
    assert poll["status"] == "failed"
    assert words in poll["error"]["message"]
    assert poll["error"]["retryable"] is False
    assert len(stub.requests) == seen + 1
    metrics = requests.get(f"{runs.stack.url}/metrics", timeout=5).text
    assert f'bucket_provider_errors_total{{kind="{words.partition(":")[0]}",provider=' in metrics


def test_a_provider_that_is_down_costs_nothing_and_one_probe_of_all_workers_brings_it_back(
    runs: RunClient, stub: ProviderStub
) -> None:
    url = f"{stub.url}/down"
    stub.reply("/down", lambda _: Reply(503))
    seen = stub.count("/down")
    for _ in range(2):
        poll = fetch(runs, url, options={"critical": True})
    assert stub.count("/down") == seen + 5, "five failures in a row open the circuit"
    assert "circuit_open: " in poll["error"]["message"]
    opened_at = time.monotonic()
    refused = fetch(runs, url, catch=True)["result"]
    assert (refused["kind"], refused["seconds"] < 0.1) == ("circuit_open", True)
    wait_until(lambda: provider_in_health(runs, stub)["state"] == "open", 2)
    assert provider_in_health(runs, stub)["critical"] is True
    wait_until(lambda: health(runs)["status"] == "degraded", 4, "each process of the API says so soon")

    is_recovered = threading.Event()

    def recover(_: Received) -> Reply:
        is_recovered.wait(20)
        return Reply()

    stub.reply("/down", recover)
    wait_until(lambda: provider_in_health(runs, stub)["state"] == "half-open", 10)
    assert time.monotonic() - opened_at > 4
    executions = [submit(runs, url, catch=True, options={"retry": False}) for _ in range(12)]
    wait_until(lambda: sum(runs.poll(each).body["status"] == "completed" for each in executions) == 11, 20)
    assert stub.count("/down") == seen + 6, "one probe"
    is_recovered.set()
    results = [runs.wait_done(each)["result"] for each in executions]
    assert (
        sorted(str(result.get("kind", result.get("status"))) for result in results) == ["200"] + ["circuit_open"] * 11
    )
    assert len({result["pid"] for result in results}) == WORKERS
    assert fetch(runs, url)["status"] == "completed"
    wait_until(lambda: health(runs)["status"] == "healthy", 2)


def test_hosts_that_may_be_called_are_dependencies_before_they_are(runs: RunClient) -> None:
    assert {"name": "never.called.example", "state": "closed", "critical": False} in health(runs)["dependencies"]


def test_a_worker_does_not_load_the_http_library_before_an_agent_calls(runs: RunClient) -> None:
    runs.stack.kill("worker")
    runs.stack.start("worker")
    body = {"agent_name": "fetcher", "input_data": {"catch": True}}
    execution_id = requests.post(f"{runs.stack.url}/run-agent", json=body, timeout=10).json()["execution_id"]
    assert runs.wait_done(execution_id)["result"]["had_library"] is False
