"""BUCKET_ENCRYPT_PAYLOADS: MongoDB holds no payload in clear, and every reply is as without it."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.client import AGENTS, ApiClient
from tests.stack import Stack
from tests.stored_text import collections_with
from tests.waiting import wait_until

FIRST = f"first:{base64.b64encode(bytes(range(32))).decode()}"
SECOND = f"second:{base64.b64encode(bytes(range(1, 33))).decode()}"


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_ENCRYPTION_KEYS=FIRST, BUCKET_ENCRYPT_PAYLOADS="true")


@pytest.fixture
def caller(stack: Stack) -> ApiClient:
    return ApiClient(stack)


@pytest.fixture
def content() -> str:
    """Return a text that no other test stores."""
    return f"words-of-the-caller-{uuid.uuid4().hex}"


def submit(caller: ApiClient, content: str, **last: Any) -> str:
    """Return the id of a run with inline and external outputs, checkpoints of both kinds, log lines and a memory."""
    steps = [
        {"id": "memory", "agent": "memo", "input": {"text": {"from": "input", "pointer": "/text"}}},
        {"id": "small", "agent": "echo", "input": {"text": {"from": "input", "pointer": "/text"}}},
        {
            "id": "large",
            "agent": "repeater",
            "needs": ["small"],
            "input": {"text": {"from": "small", "pointer": "/text"}, "times": 40_000},
        },
        {"id": "last", "agent": "repeater", "needs": ["memory", "large"], "retry": "none",
         "input": {"text": {"from": "input", "pointer": "/text"}, **last}},
    ]  # fmt: skip
    body = {"config": {"name": "sealed", "steps": steps}, "input_data": {"text": content}}
    execution_id: str = caller.post("/run-basket", body).json()["execution_id"]
    return execution_id


def data_of(view: dict[str, Any]) -> list[Any]:
    return [line["data"]["text"] for line in view["logs"] if line["event"] == "agent.log"]


def without_redis(stack: Stack) -> None:
    """Empty Redis, so that the next poll comes from MongoDB."""
    stack.redis().flushall()


@pytest.mark.parametrize("is_large", [False, True])
def test_a_broken_seal_of_one_run_hides_no_other(
    caller: ApiClient, stack: Stack, content: str, *, is_large: bool
) -> None:
    """An output was exchanged for that of another run, in the run's document or in one of its own."""
    times = {"times": 25_000} if is_large else {}
    ids = [submit(caller, content, **times) for _ in range(2)]
    for execution_id in ids:
        assert caller.wait_done(execution_id)["status"] == "completed"
    broken, *others = ids
    runs, outputs = stack.mongo()["executions"], stack.mongo()["outputs"]
    if is_large:
        [foreign, *_] = outputs.find({"execution_id": others[0]})
        exchanged = outputs.update_many({"execution_id": broken}, {"$set": {"json": foreign["json"]}})
    else:
        [foreign] = runs.find({"_id": others[0]})
        exchanged = runs.update_one({"_id": broken}, {"$set": {"outputs.last": foreign["outputs"]["last"]}})
    assert exchanged.modified_count == (2 if is_large else 1)
    without_redis(stack)

    body = {"items": [{"execution_id": each} for each in ids], "view": "full"}
    reply = caller.post("/executions/poll", body).json()
    assert {view["execution_id"] for view in reply["changed"]} == {*others}, reply
    assert (reply["not_found"], reply.get("left_out")) == ([broken], None)
    rows = caller.get("/executions?fields=result&limit=2").json()["executions"]
    assert {row["execution_id"] for row in rows} == {*others}


def test_mongodb_has_no_payload_in_clear_and_polls_from_it_are_the_same(
    caller: ApiClient, stack: Stack, content: str
) -> None:
    execution_id = submit(caller, content)
    view = caller.wait_done(execution_id)
    assert view["status"] == "completed", view["error"]
    assert (view["outputs"]["small"], view["result"]) == ({"text": content}, {"last": {"text": content}})
    assert data_of(view) == [content] * 2
    assert collections_with(stack, content) == set()

    without_redis(stack)
    again = caller.poll(execution_id)
    assert again == view
    whole = caller.get(f"/executions/{execution_id}/outputs/large").json()
    assert whole == {"text": content * 40_000}
    row = caller.get("/executions?fields=result&limit=1").json()["executions"][0]
    assert row["result"] == {"last": {"text": content}}
    many = caller.post("/executions/poll", {"items": [{"execution_id": execution_id}], "view": "full"}).json()
    assert many["changed"][0]["outputs"]["small"] == {"text": content}


def test_a_chain_goes_on_after_its_checkpoint_and_a_retry_reuses_what_is_sealed(
    caller: ApiClient, stack: Stack, content: str
) -> None:
    first = submit(caller, content, fails=True, pad_bytes=100_000)
    assert caller.wait_done(first)["status"] == "failed"
    assert collections_with(stack, content) == set()
    second = caller.post(f"/executions/{first}/retry", {}).json()["execution_id"]
    view = caller.wait_done(second)
    assert (view["outputs"]["small"], view["error"]["message"]) == (
        {"text": content}, "ValueError: nothing to do, again",
    ), "it has found its checkpoint"  # fmt: skip
    assert caller.get(f"/executions/{second}/outputs/large").json() == {"text": content * 40_000}
    assert collections_with(stack, content) == set()


def test_a_batch_of_quick_runs_is_sealed_too(caller: ApiClient, stack: Stack, content: str) -> None:
    item = {"config": {"agents": ["echo", "echo"]}, "input_data": {"text": content}}
    accepted = caller.post("/run-basket/batch", {"items": [item] * 40}).json()["items"]
    for each in accepted:
        assert caller.wait_done(each["execution_id"])["result"] == {"text": content}
    assert collections_with(stack, content) == set()


def test_a_poll_of_content_whose_key_is_gone_says_so_and_an_erasure_still_works(
    caller: ApiClient, stack: Stack, content: str
) -> None:
    execution_id = submit(caller, content)
    caller.wait_done(execution_id)
    stack.stop("api")
    stack.start("api", BUCKET_ENCRYPTION_KEYS=SECOND)
    try:
        without_redis(stack)
        wait_until(lambda: caller.get("/ready").status_code == 200, 10, "the API is ready")
        response = caller.get(f"/execution-logs/{execution_id}")
        assert (response.status_code, response.json()["error_code"]) == (503, "encryption_key_missing")
        assert "'first'" in response.json()["detail"]
        assert caller.get("/executions?fields=status").status_code == 200
        assert "erased_at" in caller.request("DELETE", f"/executions/{execution_id}").json()
    finally:
        stack.stop("api")
        stack.start("api")


def test_what_was_stored_before_the_setting_is_read_as_ever(caller: ApiClient, stack: Stack, content: str) -> None:
    stack.stop("worker")
    stack.start("worker", BUCKET_ENCRYPT_PAYLOADS="false")
    execution_id = submit(caller, content)
    caller.wait_done(execution_id)
    stack.stop("worker")
    stack.start("worker")
    without_redis(stack)
    assert caller.poll(execution_id)["outputs"]["small"] == {"text": content}
