"""Lists of executions: each filter, keyset pagination that is stable while runs arrive, and invalid queries."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.acceptance.client import INCOME, ApiClient
from tests.tampered_cursors import tampered_variants

PREFIXES = ["", "/api/v1"]
STANDING = {
    "execution_id", "basket_name", "status", "done", "rev", "progress", "current_step", "error", "tags", "retry_of",
    "created_at", "queued_at", "started_at", "finished_at", "waiting_for",
}  # fmt: skip


@pytest.fixture(scope="module")
def tag() -> str:
    """Return a tag that only the runs of this module have."""
    return f"list-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def runs(caller: ApiClient, tag: str) -> list[str]:
    """Return four completed runs and one failed run, in the order of their creation."""
    run_ids = [run_to_end(caller, input_data=INCOME, tags=[tag, f"{tag}-{number}"]) for number in range(4)]
    config = {"name": tag, "agents": ["raiser"]}
    run_ids.append(caller.post("/run-basket", {"config": config, "input_data": {"kind": "ValueError"}, "tags": [tag]},
                            X_Request_ID=tag).json()["execution_id"])  # fmt: skip
    caller.wait_done(run_ids[-1])
    return run_ids


def run_to_end(caller: ApiClient, **fields: Any) -> str:
    """Run to the end, so that the next run is created in a later millisecond: within one, the ids decide the order."""
    run = caller.submit_basket(**fields)
    caller.wait_done(run)
    return run


def page(caller: ApiClient, prefix: str = "", **query: Any) -> dict[str, Any]:
    response = caller.get(f"{prefix}/executions", params=query)
    assert response.status_code == 200, response.text
    assert response.headers["Cache-Control"] == "private, no-cache"
    body: dict[str, Any] = response.json()
    assert set(body) == {"executions", "next_cursor"}
    return body


def ids(caller: ApiClient, **query: Any) -> list[str]:
    return [row["execution_id"] for row in page(caller, **query)["executions"]]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_row_is_the_view_without_outputs(caller: ApiClient, runs: list[str], tag: str, prefix: str) -> None:
    rows = page(caller, prefix, tag=tag)["executions"]
    assert [row["execution_id"] for row in rows] == runs[::-1]
    for row in rows:
        assert set(row) == STANDING  # without poll_after_ms, because all are final
        view = caller.poll(row["execution_id"])
        assert row == {name: view[name] for name in row}
    assert rows[0]["error"]["error_code"] == "agent_error"


def test_an_unfinished_run_says_why_it_waits_and_when_to_poll_again(caller: ApiClient, tag: str) -> None:
    later = caller.submit_basket(tags=[f"{tag}-later"], run_after_s=600)
    (row,) = page(caller, tag=f"{tag}-later")["executions"]
    assert (row["status"], row["waiting_for"]["reason"]) == ("scheduled", "schedule")
    assert row["poll_after_ms"] >= 250
    caller.request("POST", f"/executions/{later}/cancel")


def test_each_filter_finds_the_matching_runs(caller: ApiClient, runs: list[str], tag: str) -> None:
    assert ids(caller, tag=f"{tag}-2") == [runs[2]]
    assert ids(caller, basket=tag) == ids(caller, request_id=tag) == [runs[4]]
    assert ids(caller, tag=tag, status="failed") == [runs[4]]
    assert ids(caller, tag=tag, status="completed", order="oldest") == runs[:4]
    assert ids(caller, tag=tag, status="failed,completed,running") == runs[::-1]
    assert ids(caller, tag=tag, status="queued,scheduled,cancelling,cancelled") == []
    assert ids(caller, tag=tag, basket="working_test", status="failed") == []


def test_the_retries_of_a_run_are_found(caller: ApiClient) -> None:
    first = caller.submit_agent("raiser", kind="ValueError")
    caller.wait_done(first)
    again = caller.request("POST", f"/executions/{first}/retry").json()["execution_id"]
    assert ids(caller, retry_of=first) == [again]
    assert page(caller, retry_of=first)["executions"][0]["retry_of"] == first
    caller.wait_done(again)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/run-basket", {"basket_name": "working_test", "input_data": INCOME}),
        ("/run-agent", {"agent_name": "raiser", "input_data": {"kind": "ValueError"}}),
    ],
)
def test_a_run_is_found_by_its_callers_own_reference(caller: ApiClient, path: str, body: dict[str, Any]) -> None:
    reference = f"Order {uuid.uuid4()} ü/€"
    run = caller.post(path, body | {"reference": reference}).json()["execution_id"]
    assert caller.wait_done(run)["reference"] == reference
    assert caller.poll(run, fields="reference")["reference"] == reference
    (row,) = page(caller, reference=reference)["executions"]
    assert (row["execution_id"], row["reference"]) == (run, reference)
    again = caller.post(f"/executions/{run}/retry", {"from": "start"}).json()["execution_id"]
    assert caller.wait_done(again)["reference"] == reference
    assert ids(caller, reference=reference) == [again, run]
    assert ids(caller, reference=reference[:-1]) == []


def test_a_reference_has_1_to_128_characters(caller: ApiClient) -> None:
    for reference in ("x", "ü" * 128):
        item = {"basket_name": "working_test", "input_data": INCOME, "reference": reference}
        (outcome,) = caller.post("/run-basket/batch", {"items": [item]}).json()["items"]
        assert caller.wait_done(outcome["execution_id"])["reference"] == reference
    for wrong in ("", "x" * 129, 7, ["x"]):
        refused = caller.post("/run-basket", {"basket_name": "working_test", "reference": wrong})
        assert (refused.status_code, refused.json()["details"][0]["pointer"]) == (400, "/reference")


def test_the_runs_of_an_idempotency_key_are_found(caller: ApiClient) -> None:
    key, named = f"order {uuid.uuid4()}", {"basket_name": "working_test", "input_data": INCOME}
    run = caller.post("/run-basket", named, Idempotency_Key=key).json()["execution_id"]
    assert ids(caller, idempotency_key=key) == [run]
    items = [named, named | {"idempotency_key": f"{key} of an item"}, named]
    batch = caller.post("/run-basket/batch", {"items": items}, Idempotency_Key=f"{key} of a batch").json()["items"]
    first, own, third = (item["execution_id"] for item in batch)
    assert set(ids(caller, idempotency_key=f"{key} of a batch")) == {first, third}
    assert ids(caller, idempotency_key=f"{key} of an item") == [own]
    assert ids(caller, idempotency_key="nobody's") == []


def test_times_bound_a_list_and_a_plus_may_come_as_a_space(caller: ApiClient, runs: list[str], tag: str) -> None:
    created_at = [caller.poll(run)["created_at"] for run in runs]
    assert ids(caller, tag=tag, created_after=created_at[2], retry_of="") == []
    assert runs[3] in ids(caller, tag=tag, created_after=created_at[2])
    assert ids(caller, tag=tag, created_before=created_at[2], order="oldest") == runs[:2]
    abroad = datetime.fromisoformat(created_at[2]) + timedelta(hours=5, minutes=30)
    with_offset = abroad.replace(tzinfo=None).isoformat(timespec="milliseconds") + "+05:30"
    for moment in (with_offset, with_offset.replace("+", "%2B")):
        response = caller.get_raw(f"/executions?tag={tag}&created_before={moment}&order=oldest")
        assert [row["execution_id"] for row in response.json()["executions"]] == runs[:2]
    assert set(runs) <= set(ids(caller, tag=tag, updated_since=created_at[0]))
    assert ids(caller, tag=tag, updated_since="2999-01-01T00:00:00Z") == []


@pytest.mark.parametrize("order", ["newest", "oldest", "updated"])
def test_pages_are_stable_while_runs_arrive(caller: ApiClient, tag: str, order: str) -> None:
    mine = f"{tag}-{order}"
    runs = [run_to_end(caller, tags=[mine]) for _ in range(5)]
    listed_ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        body = page(caller, tag=mine, order=order, limit=2, **cursor)
        listed_ids += [row["execution_id"] for row in body["executions"]]
        if body["next_cursor"] is None:
            break
        cursor = {"cursor": body["next_cursor"]}
        if len(listed_ids) == 2:
            runs.append(run_to_end(caller, tags=[mine]))
    assert listed_ids == (runs[4::-1] if order == "newest" else runs)


def test_a_cursor_continues_only_its_own_list(caller: ApiClient, runs: list[str], tag: str) -> None:
    cursor = page(caller, tag=tag, limit=2)["next_cursor"]
    assert ids(caller, tag=tag, limit=3, cursor=cursor) == runs[2::-1], "another limit is still the same list"
    others = [{}, {"tag": f"{tag}-1"}, {"tag": tag, "order": "oldest"}, {"tag": tag, "status": "failed"}]
    for other in others:
        refused = caller.get("/executions", params=other | {"cursor": cursor})
        assert (refused.status_code, refused.json()["error_code"]) == (400, "cursor_invalid")
        assert "other filters or another order; begin anew without a cursor" in refused.json()["detail"]
    assert caller.get("/dead-letters", params={"cursor": cursor}).status_code == 400
    both = {"tag": tag, "status": "failed,completed", "limit": 1}
    swapped = both | {"status": "completed,failed", "cursor": page(caller, **both)["next_cursor"]}
    assert ids(caller, **swapped) == [runs[3]]


@pytest.mark.parametrize(
    "cursor", ["", "made-up", "MS5h", "AAAA", "ü", "x" * 300, "MTc2MzcwMDAwMDAwMC4xNzYzNzAwMDAwXzg5Y2UyNGFkMWIyYzNkNGU"]
)
def test_a_made_up_cursor_is_refused(caller: ApiClient, cursor: str) -> None:
    refused = caller.get("/executions", params={"cursor": cursor})
    assert (refused.status_code, refused.json()["error_code"]) == (400, "cursor_invalid")


@pytest.mark.parametrize("name", ["created_after", "created_before", "updated_since"])
def test_the_last_representable_time_is_valid(caller: ApiClient, name: str) -> None:
    response = caller.get("/executions", params={name: "9999-12-31T23:59:59.999999Z", "limit": 1})
    assert response.status_code == 200
    assert (response.json()["executions"] == []) is (name != "created_before")


def test_a_changed_cursor_is_refused(caller: ApiClient, runs: list[str], tag: str) -> None:
    cursor = page(caller, tag=tag, limit=2)["next_cursor"]
    assert ids(caller, tag=tag, cursor=cursor) == runs[2::-1]
    for other in tampered_variants(cursor, "Aw_"):
        refused = caller.get("/executions", params={"tag": tag, "cursor": other})
        assert (refused.status_code, refused.json()["error_code"]) == (400, "cursor_invalid"), other
        assert "was not made by Bucket" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "done"), ("status", ""), ("status", "failed,"), ("status", "FAILED"), ("status", '{"$ne":"failed"}'),
        ("order", "sideways"), ("order", ""), ("limit", "0"), ("limit", "1001"), ("limit", "x"),
        ("created_after", ""), ("created_after", "yesterday"), ("created_after", "2026-11-21"),
        ("created_after", "2026-11-21T12:00:00"), ("created_after", "2026-11-21T12:00:00+00:99"),
        ("created_before", "2026-02-30T12:00:00Z"),
        ("created_before", "0001-01-01T00:00:00+14:00"), ("updated_since", "1763700000"),
        ("updated_since", '{"$gt":""}'), ("updated_since", "2026-11-21T12:00:00Z\0"), ("updated_since", "9" * 7_000),
    ],
)  # fmt: skip
def test_an_invalid_parameter_is_400_and_named(caller: ApiClient, name: str, value: str) -> None:
    refused = caller.get("/executions", params={name: value})
    body = refused.json()
    assert (refused.status_code, body["error_code"]) == (400, "validation_failed")
    assert body["details"][0]["parameter"] == name
    assert len(body["detail"]) < 300


def test_a_repeated_parameter_is_refused(caller: ApiClient) -> None:
    refused = caller.get("/executions", params=[("tag", "a"), ("tag", "b")])
    assert (refused.status_code, refused.json()["details"][0]["parameter"]) == (400, "tag")


@pytest.mark.parametrize("name", ["basket", "tag", "request_id", "retry_of"])
@pytest.mark.parametrize("value", ['{"$gt":""}', "$where", "", "\0", "a\0b", "..", "x" * 7_000, "grün"])
def test_an_unknown_name_finds_nothing(caller: ApiClient, name: str, value: str) -> None:
    assert page(caller, **{name: value}) == {"executions": [], "next_cursor": None}


def test_operators_in_a_parameters_name_are_unknown_parameters(caller: ApiClient, tag: str) -> None:
    """They were ignored before, so that the list was another than the caller meant."""
    refused = caller.get("/executions", params={"tag": tag, "status[$ne]": "failed", "$where": "1"})
    assert refused.status_code == 400
    assert [fault["parameter"] for fault in refused.json()["details"]] == ["status[$ne]", "$where"]


def test_head_returns_the_headers_of_get_and_a_post_is_405(caller: ApiClient) -> None:
    head = caller.request("HEAD", "/executions")
    assert (head.status_code, head.content) == (200, b"")
    refused = caller.post("/executions", {})
    assert (refused.status_code, set(refused.headers["Allow"].split(", "))) == (405, {"GET", "HEAD", "OPTIONS"})
