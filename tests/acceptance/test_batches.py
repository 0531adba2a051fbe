"""Batch submits: one result for each item, in order, the same as the single submit would return."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.acceptance.client import INCOME, ApiClient

PREFIXES = ["", "/api/v1"]
PROBLEM = {"type", "title", "status", "detail", "error_code", "message", "details", "timestamp", "request_id"}
NAMED = {"basket_name": "working_test", "input_data": INCOME}


def submit_batch(caller: ApiClient, *items: Any, prefix: str = "", **headers: str) -> dict[str, Any]:
    response = caller.post(f"{prefix}/run-basket/batch", {"items": items}, **headers)
    assert response.status_code == 202, response.text
    assert response.headers["Cache-Control"] == "no-store"
    body: dict[str, Any] = response.json()
    assert (body["accepted"] + body["rejected"], len(body["items"])) == (len(items), len(items))
    return body


def ids(body: dict[str, Any]) -> list[str]:
    return [item["execution_id"] for item in body["items"]]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_each_item_is_accepted_like_a_submit_and_runs(caller: ApiClient, prefix: str) -> None:
    single = caller.post(f"{prefix}/run-basket", NAMED).json()
    inline = {"config": {"agents": ["echo"]}, "input_data": {}}
    body = submit_batch(caller, NAMED, NAMED | {"tags": ["b"]}, inline, prefix=prefix, X_Request_ID="of-a-batch")
    assert (body["accepted"], body["rejected"]) == (3, 0)
    assert len(set(ids(body))) == 3
    for item in body["items"]:
        assert set(item) == set(single) | {"execution_status"}
        assert (item["status"], item["execution_status"], item["done"], item["rev"]) == (202, "queued", False, 1)
        assert item["status_url"] == f"{prefix}/execution-logs/{item['execution_id']}"
        assert item["request_id"] == "of-a-batch"
    polls = [caller.wait_done(execution_id) for execution_id in ids(body)]
    assert [poll["status"] for poll in polls] == ["completed"] * 3
    assert [poll["tags"] for poll in polls] == [[], ["b"], []]
    assert polls[0]["result"] == caller.wait_done(single["execution_id"])["result"]


def test_a_bad_item_fails_alone_and_like_the_single_submit(caller: ApiClient) -> None:
    bad: list[Any] = [
        {"basket_name": "nobody"},
        {},
        {"config": {"agents": ["nobody"]}},
        NAMED | {"tags": [1]},
        NAMED | {"input_data": {"transactions": "all"}},
        NAMED | {"webhook": "http://me/"},
        NAMED | {"input_data": {"rows": [{"Api-Key": "hunter2"}]}},
        NAMED | {"run_after": "yesterday"},
        NAMED | {"metadata": {"a": "x" * 20_000}},
        {"basket_name": {"$gt": ""}},
    ]
    body = submit_batch(caller, *(entry for item in bad for entry in (item, NAMED)))
    assert (body["accepted"], body["rejected"]) == (len(bad), len(bad))
    for item, refused, accepted in zip(bad, body["items"][::2], body["items"][1::2], strict=True):
        single = caller.post("/run-basket", item)
        assert set(refused) == PROBLEM
        same = ("type", "title", "status", "detail", "error_code", "details")
        assert {name: refused[name] for name in same} == {name: single.json()[name] for name in same}
        assert (refused["status"], accepted["status"]) == (single.status_code, 202)
    assert "hunter2" not in json.dumps(body)
    for entry in (item["execution_id"] for item in body["items"][1::2]):
        caller.wait_done(entry)


@pytest.mark.parametrize("item", [None, 3, "working_test", [], [NAMED], True])
def test_an_item_that_is_not_an_object_is_refused_alone(caller: ApiClient, item: Any) -> None:
    refused, accepted = submit_batch(caller, item, NAMED)["items"]
    assert (refused["status"], refused["error_code"]) == (400, "validation_failed")
    caller.wait_done(accepted["execution_id"])


def test_each_item_may_have_a_key_of_its_own(caller: ApiClient) -> None:
    keys = [uuid.uuid4().hex for _ in range(3)]
    items = [NAMED | {"idempotency_key": key} for key in keys]
    first = submit_batch(caller, *items)
    again = submit_batch(caller, *items, NAMED)
    assert ids(again)[:3] == ids(first)
    assert [item.get("idempotency_replayed") for item in again["items"]] == [True, True, True, None]
    single = caller.post("/run-basket", NAMED, Idempotency_Key=keys[1])
    assert single.json()["execution_id"] == ids(first)[1], "an item is the same as the single submit"
    assert single.headers["Idempotency-Replayed"] == "true"
    reused = submit_batch(caller, NAMED | {"idempotency_key": keys[0], "tags": ["other"]}, NAMED)["items"]
    assert (reused[0]["status"], reused[0]["error_code"], reused[1]["status"]) == (422, "idempotency_key_reused", 202)
    for execution_id in ids(first):
        caller.wait_done(execution_id)
    replayed = submit_batch(caller, items[0])["items"][0]
    assert (replayed["execution_status"], replayed["done"], "poll_after_ms" in replayed) == ("completed", True, False)


def test_one_key_twice_in_a_batch_makes_one_run(caller: ApiClient) -> None:
    key = {"idempotency_key": uuid.uuid4().hex}
    first, second, third, fourth = submit_batch(caller, NAMED | key, NAMED, NAMED | key, NAMED | key | {"tags": ["b"]})[
        "items"
    ]
    assert first["execution_id"] == third["execution_id"] != second["execution_id"]
    assert [item.get("idempotency_replayed") for item in (first, second, third)] == [None, None, True]
    assert (fourth["status"], fourth["error_code"]) == (422, "idempotency_key_reused")


def test_a_refused_item_reserves_no_key(caller: ApiClient) -> None:
    key = {"idempotency_key": uuid.uuid4().hex}
    first, second = submit_batch(caller, {"basket_name": "nobody"} | key, NAMED | key)["items"]
    assert (first["status"], second["status"]) == (404, 202)
    assert caller.wait_done(second["execution_id"])["status"] == "completed"


def test_a_batch_under_a_key_makes_its_runs_once(caller: ApiClient) -> None:
    key, own = uuid.uuid4().hex, uuid.uuid4().hex
    items = [NAMED, NAMED, {"basket_name": "nobody"}, NAMED | {"idempotency_key": own}]
    first = submit_batch(caller, *items, Idempotency_Key=key)
    assert (first["accepted"], len({item.get("execution_id") for item in first["items"]})) == (3, 4)
    again = submit_batch(caller, *items, Idempotency_Key=key, prefix="/api/v1")
    for before, after in zip(first["items"], again["items"], strict=True):
        assert before["status"] == after["status"]
        assert before.get("execution_id") == after.get("execution_id")
    assert [item.get("idempotency_replayed") for item in again["items"]] == [True, True, None, True]
    own_again = submit_batch(caller, NAMED | {"idempotency_key": own})["items"][0]
    assert own_again["execution_id"] == first["items"][3]["execution_id"], (
        "the key of an item is the same key in a single submit"
    )
    for item in (first["items"][0], first["items"][1]):
        caller.wait_done(item["execution_id"])


@pytest.mark.parametrize(
    "other",
    [
        [NAMED],
        [NAMED] * 3,
        [NAMED, NAMED | {"tags": ["b"]}],
        [{"basket_name": "nobody"}, NAMED],
        [NAMED | {"x": 1}, NAMED],
    ],
)
def test_another_batch_under_the_same_key_is_refused_as_a_whole(caller: ApiClient, other: list[dict[str, Any]]) -> None:
    key = uuid.uuid4().hex
    body = {"items": [NAMED, NAMED]}
    first = caller.post("/run-basket/batch", body, Idempotency_Key=key)
    assert "Idempotency-Replayed" not in first.headers
    before = caller.stack.mongo().executions.count_documents({})
    refused = caller.post("/run-basket/batch", {"items": other}, Idempotency_Key=key)
    assert (refused.status_code, refused.json()["error_code"]) == (422, "idempotency_key_reused")
    assert caller.stack.mongo().executions.count_documents({}) == before
    assert caller.post("/run-basket/batch", body, Idempotency_Key=key).headers["Idempotency-Replayed"] == "true"


def test_a_batch_whose_first_item_was_refused_keeps_its_key_from_a_shorter_batch(caller: ApiClient) -> None:
    key = uuid.uuid4().hex
    items = ({"basket_name": "nobody"}, NAMED)
    assert submit_batch(caller, *items, Idempotency_Key=key)["accepted"] == 1
    other = caller.post("/run-basket/batch", {"items": [NAMED]}, Idempotency_Key=key)
    assert (other.status_code, other.json()["error_code"]) == (422, "idempotency_key_reused")
    again = submit_batch(caller, *items, Idempotency_Key=key)["items"]
    assert [item.get("idempotency_replayed") for item in again] == [None, True]


def test_a_batch_without_an_accepted_item_reserves_no_key(caller: ApiClient) -> None:
    key = uuid.uuid4().hex
    assert submit_batch(caller, {"basket_name": "nobody"}, Idempotency_Key=key)["rejected"] == 1
    assert submit_batch(caller, NAMED, Idempotency_Key=key)["accepted"] == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "grün", 3, {"$gt": ""}, ["a"], "a\nb", "a\u001f0"])
def test_an_invalid_key_is_refused(caller: ApiClient, key: Any) -> None:
    refused, accepted = submit_batch(caller, NAMED | {"idempotency_key": key}, NAMED)["items"]
    assert (refused["status"], refused["details"][0]["pointer"]) == (400, "/idempotency_key")
    assert accepted["status"] == 202
    if key == "":
        response = caller.post("/run-basket/batch", {"items": [NAMED]}, Idempotency_Key="x" * 256)
        assert (response.status_code, response.json()["details"][0]["header"]) == (400, "Idempotency-Key")


def test_unknown_fields_are_named_in_the_warnings_of_their_item(caller: ApiClient) -> None:
    """A misspelt one refuses its item, since it made a run of the sample, or two runs."""
    unnamed = {"basket_name": "working_test"}
    items = [unnamed | {"input": INCOME}, NAMED | {"idempotency_kei": "x"}, NAMED | {"colour": 1}, NAMED, unnamed]
    body = caller.post("/run-basket/batch", {"items": items, "size": 5}).json()
    assert body["warnings"] == ["unknown field 'size' was ignored"]
    misspelt, mistyped, coloured, good, sample = body["items"]
    assert [item["status"] for item in body["items"]] == [400, 400, 202, 202, 202]
    assert misspelt["details"] == [{"pointer": "/input", "message": "is not a known key; did you mean input_data?"}]
    assert mistyped["details"][0]["pointer"] == "/idempotency_kei"
    assert coloured["warnings"] == ["unknown field 'colour' was ignored"]
    assert "warnings" not in good
    assert "sample_input" in sample["warnings"][0]


def test_five_hundred_items_are_accepted_and_one_more_is_refused(caller: ApiClient) -> None:
    tag = uuid.uuid4().hex
    # Scheduled for later, so that other tests on this stack need not wait for all of them.
    item = {"config": {"agents": ["echo"]}, "input_data": {"a": 1}, "tags": [tag], "run_after_s": 3_600}
    refused = caller.post("/run-basket/batch", {"items": [item] * 501})
    assert (refused.status_code, refused.json()["details"][0]["pointer"]) == (400, "/items")
    body = submit_batch(caller, *[item] * 500)
    assert (body["accepted"], len(set(ids(body)))) == (500, 500)
    poll = caller.post(
        "/executions/poll", {"items": [{"execution_id": execution_id} for execution_id in ids(body)]}
    ).json()
    assert (len(poll["changed"]), poll["not_found"]) == (500, [])
    rows = caller.get("/executions", params={"tag": tag, "limit": 1000}).json()["executions"]
    assert {row["execution_id"] for row in rows} == set(ids(body))


@pytest.mark.parametrize("body", [{}, {"items": []}, {"items": {}}, {"items": None}, {"items": "a"}])
def test_a_batch_without_items_is_refused(caller: ApiClient, body: Any) -> None:
    refused = caller.post("/run-basket/batch", body)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "validation_failed")
    assert refused.json()["details"][0]["pointer"] == "/items"


def test_a_fault_of_the_whole_body_refuses_the_whole_batch(caller: ApiClient) -> None:
    before = caller.document_counts()
    for raw, status, code in (
        (b'{"items": [{"basket_name": "working_test"}', 400, "invalid_json"),
        (b'{"items": [{"a": NaN}]}', 400, "invalid_json"),
        (b"[]", 400, "validation_failed"),
        (b" " * (1024 * 1024 + 1), 413, "payload_too_large"),
        (b'{"items": [{"basket_name": "working_test"}], "callback_url": "x"}', 400, "callbacks_not_supported"),
        (b'{"items": [{"basket_name": "working_test"}], "a": {"secret": 1}}', 400, "credentials_not_accepted"),
    ):
        refused = caller.post_raw(raw, "/run-basket/batch")
        assert (refused.status_code, refused.json()["error_code"]) == (status, code)
    assert caller.document_counts() == before


def test_another_method_is_405(caller: ApiClient) -> None:
    refused = caller.get("/run-basket/batch")
    assert (refused.status_code, set(refused.headers["Allow"].split(", "))) == (405, {"OPTIONS", "POST"})
