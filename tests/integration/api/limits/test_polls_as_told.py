"""Who polls each run no earlier than ``poll_after_ms`` is never limited; who ignores it is. Two real API processes."""

from __future__ import annotations

import heapq
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from types import MappingProxyType
from typing import Any, Final

import pytest
import requests

from api.auth.key_service import KeyService
from bucket_client import Bucket
from shared.bootstrap import bootstrap
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.caller import Role
from shared.settings import Settings
from tests.integration.api.limits.conftest import PEPPER
from tests.stack import Stack
from tests.waiting import wait_until

FEW_POLLS: Final = '{"poll": {"per_s": 0.01, "burst": 3}, "list": {"per_s": 1, "burst": 1}}'
RUNS: Final = 30


@pytest.fixture(scope="module")
def limited_stack(make_stack: Callable[..., Stack]) -> Stack:
    """Return a stack of two API processes that permits hardly any poll but those that come as they were told to."""
    return make_stack(
        BUCKET_AUTH="required",
        BUCKET_KEY_PEPPER=PEPPER,
        BUCKET_LIMITS=FEW_POLLS,
        BUCKET_API_PROCESSES="2",
        BUCKET_WORKER_CONCURRENCY="8",
    )


class KeyHolder:
    """A caller with a key of its own; each request opens a connection, so it reaches any of the processes."""

    def __init__(self, stack: Stack) -> None:
        self._url = stack.url
        settings = Settings(
            redis_url=stack.redis_url, mongodb_url=stack.mongodb_url, auth="required", key_pepper=PEPPER
        )
        services = bootstrap(settings, "api")
        with closing(services.database), closing(services.redis):
            self.key = KeyService(services).create(KeyRequest(Role.INTEGRATOR, "acme"), "test")["key"]

    def send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> requests.Response:
        sent = {"Authorization": f"Bearer {self.key}", **headers}
        return requests.request(method, f"{self._url}{path}", json=body, headers=sent, timeout=10)

    def submit(self, seconds: float) -> dict[str, Any]:
        script = [f"running:{seconds:g}", "completed"]
        body = {"config": {"name": "told", "agents": ["simulate"]}, "input_data": {"script": script}}
        again = {"Idempotency-Key": uuid.uuid4().hex}
        replies: list[requests.Response] = []

        def is_answered() -> bool:
            replies.append(self.send("POST", "/run-basket", body, again))
            return replies[-1].status_code != 503  # a store that was away for a moment is no limit

        wait_until(is_answered, 30, "the store is there and the submit has its answer")
        response = replies[-1]
        assert response.status_code in {200, 202}, response.text
        accepted: dict[str, Any] = response.json()
        return accepted


def test_who_polls_as_told_is_never_limited(limited_stack: Stack) -> None:
    caller = KeyHolder(limited_stack)
    due: list[tuple[float, str]] = []
    for number in range(RUNS):
        accepted = caller.submit(0.2 + number / 10)
        heapq.heappush(due, (time.monotonic() + accepted["poll_after_ms"] / 1_000, accepted["execution_id"]))
    polls = 0
    while due:
        due_at, run = heapq.heappop(due)
        time.sleep(max(due_at - time.monotonic(), 0))
        reply = caller.send("GET", f"/execution-logs/{run}")
        polls += 1
        if reply.status_code == 503:
            heapq.heappush(due, (time.monotonic() + int(reply.headers["Retry-After"]), run))
            continue
        assert reply.status_code == 200, f"poll {polls}: {reply.text}"
        view = reply.json()
        if not view["done"]:
            heapq.heappush(due, (time.monotonic() + view["poll_after_ms"] / 1_000, run))
    assert polls >= RUNS


def test_who_ignores_the_hint_is_limited(limited_stack: Stack) -> None:
    caller = KeyHolder(limited_stack)
    run = caller.submit(60)["execution_id"]
    path = f"/execution-logs/{run}"
    replies: list[requests.Response] = []

    def is_refused() -> bool:
        replies.append(caller.send("GET", path))
        return replies[-1].status_code == 429

    wait_until(is_refused, 20, "polls without a pause are refused")
    assert int(replies[-1].headers["Retry-After"]) > 10
    cancelled = caller.send("POST", f"/executions/{run}/cancel", {})
    assert cancelled.status_code in {200, 202}, "other classes have other buckets"


def test_the_client_waits_as_a_refusal_says_and_tries_again(
    limited_stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bucket_client")
    with Bucket(limited_stack.url, api_key=KeyHolder(limited_stack).key) as client:
        for _ in range(3):
            client.baskets()
    assert [text for text in caplog.messages if "is sent again in" in text and "list requests a second" in text]
