"""A trusted proxy that publishes Bucket under a path prefix (X-Forwarded-Prefix): its clients get URLs that work."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.client import ApiClient
from tests.stack import Stack

FORWARDED = {"X-Forwarded-Prefix": "/jobs"}


@pytest.fixture(scope="module")
def caller(make_stack: Callable[..., Stack]) -> ApiClient:
    return ApiClient(make_stack(BUCKET_TRUSTED_PROXIES="192.0.2.0/24, 127.0.0.1"))


@pytest.mark.parametrize("version", ["", "/api/v1"])
def test_each_url_of_a_reply_has_the_prefix(caller: ApiClient, version: str) -> None:
    body = {"basket_name": "working_test", "run_after_s": 3600}
    submitted = caller.post(f"{version}/run-basket", body, **FORWARDED)
    accepted = submitted.json()
    prefix = f"/jobs{version}"
    assert (
        accepted["status_url"] == submitted.headers["Location"] == f"{prefix}/execution-logs/{accepted['execution_id']}"
    )
    pending = caller.get(f"{version}/executions/{accepted['execution_id']}/result", headers=FORWARDED)
    assert pending.headers["Location"] == f"{prefix}/executions/{accepted['execution_id']}/result"
    batch = caller.post(f"{version}/run-basket/batch", {"items": [body]}, **FORWARDED).json()
    assert batch["items"][0]["status_url"].startswith(f"{prefix}/execution-logs/")
    assert caller.post(f"{version}/run-basket", body).json()["status_url"].startswith(f"{version}/execution-logs/")


def test_a_repeat_through_the_proxy_is_the_same_request(caller: ApiClient) -> None:
    body, key = {"basket_name": "working_test"}, {"Idempotency-Key": "prefix-1"}
    direct = caller.post("/run-basket", body, **key)
    repeated = caller.post("/api/v1/run-basket", body, **key, **FORWARDED)
    assert (repeated.status_code, repeated.headers.get("Idempotency-Replayed")) == (202, "true")
    assert repeated.json()["execution_id"] == direct.json()["execution_id"]
    assert repeated.json()["status_url"].startswith("/jobs/api/v1/")


def test_no_header_of_a_caller_changes_the_path(caller: ApiClient) -> None:
    """A proxy that decides by the path must see the one that is served; the peer is this machine, as it may be."""
    assert caller.get("/api/v1/ready", headers={"SCRIPT_NAME": "/api"}).status_code == 200
