"""Finding executions: each filter, pages that are stable while runs arrive, and whatever a query may hold."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.acceptance.client import INCOME, Caller
from tests.tampered_cursors import spoilt

PREFIXES = ["", "/api/v1"]
STANDING = {
    "execution_id", "basket_name", "status", "done", "rev", "progress", "current_step", "error", "tags", "retry_of",
    "created_at", "queued_at", "started_at", "finished_at", "waiting_for",
}  # fmt: skip


@pytest.fixture(scope="module")
def tag() -> str:
    """A tag that only the runs of this module bear."""
    return f"list-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def runs(caller: Caller, tag: str) -> list[str]:
    """Four runs that have completed, and one that failed, in the order in which they were made."""
    made = [apart(caller, input_data=INCOME, tags=[tag, f"{tag}-{number}"]) for number in range(4)]
    config = {"name": tag, "agents": ["raiser"]}
    made.append(caller.post("/run-basket", {"config": config, "input_data": {"kind": "ValueError"}, "tags": [tag]},
                            X_Request_ID=tag).json()["execution_id"])  # fmt: skip
    caller.finished(made[-1])
    return made


def apart(caller: Caller, **fields: Any) -> str:
    """Make a run and see its end: the next is made in a later millisecond, for within one the ids decide the order."""
    run = caller.run(**fields)
    caller.finished(run)
    return run


def page(caller: Caller, prefix: str = "", **query: Any) -> dict[str, Any]:
    answer = caller.get(f"{prefix}/executions", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "private, no-cache"
    found: dict[str, Any] = answer.json()
    assert set(found) == {"executions", "next_cursor"}
    return found


def ids(caller: Caller, **query: Any) -> list[str]:
    return [row["execution_id"] for row in page(caller, **query)["executions"]]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_row_is_what_the_poll_says_without_outputs(caller: Caller, runs: list[str], tag: str, prefix: str) -> None:
    rows = page(caller, prefix, tag=tag)["executions"]
    assert [row["execution_id"] for row in rows] == runs[::-1]
    for row in rows:
        assert set(row) == STANDING  # and no poll_after_ms, for all are final
        polled = caller.poll(row["execution_id"])
        assert row == {name: polled[name] for name in row}
    assert rows[0]["error"]["error_code"] == "agent_error"


def test_a_run_under_way_says_why_it_waits_and_when_to_come_back(caller: Caller, tag: str) -> None:
    later = caller.run(tags=[f"{tag}-later"], run_after_s=600)
    (row,) = page(caller, tag=f"{tag}-later")["executions"]
    assert (row["status"], row["waiting_for"]["reason"]) == ("scheduled", "schedule")
    assert row["poll_after_ms"] >= 250
    caller.ask("POST", f"/executions/{later}/cancel")


def test_each_filter_finds_its_own(caller: Caller, runs: list[str], tag: str) -> None:
    assert ids(caller, tag=f"{tag}-2") == [runs[2]]
    assert ids(caller, basket=tag) == ids(caller, request_id=tag) == [runs[4]]
    assert ids(caller, tag=tag, status="failed") == [runs[4]]
    assert ids(caller, tag=tag, status="completed", order="oldest") == runs[:4]
    assert ids(caller, tag=tag, status="failed,completed,running") == runs[::-1]
    assert ids(caller, tag=tag, status="queued,scheduled,cancelling,cancelled") == []
    assert ids(caller, tag=tag, basket="working_test", status="failed") == []


def test_the_retries_of_a_run_are_found(caller: Caller) -> None:
    first = caller.run_agent("raiser", kind="ValueError")
    caller.finished(first)
    again = caller.ask("POST", f"/executions/{first}/retry").json()["execution_id"]
    assert ids(caller, retry_of=first) == [again]
    assert page(caller, retry_of=first)["executions"][0]["retry_of"] == first
    caller.finished(again)


def test_moments_bound_a_list_and_a_plus_may_come_as_a_space(caller: Caller, runs: list[str], tag: str) -> None:
    made = [caller.poll(run)["created_at"] for run in runs]
    assert ids(caller, tag=tag, created_after=made[2], retry_of="") == []
    assert runs[3] in ids(caller, tag=tag, created_after=made[2])
    assert ids(caller, tag=tag, created_before=made[2], order="oldest") == runs[:2]
    abroad = datetime.fromisoformat(made[2]) + timedelta(hours=5, minutes=30)
    written = abroad.replace(tzinfo=None).isoformat(timespec="milliseconds") + "+05:30"
    for told in (written, written.replace("+", "%2B")):
        answer = caller.as_is(f"/executions?tag={tag}&created_before={told}&order=oldest")
        assert [row["execution_id"] for row in answer.json()["executions"]] == runs[:2]
    assert set(runs) <= set(ids(caller, tag=tag, updated_since=made[0]))
    assert ids(caller, tag=tag, updated_since="2999-01-01T00:00:00Z") == []


@pytest.mark.parametrize("order", ["newest", "oldest", "updated"])
def test_pages_are_stable_while_runs_arrive(caller: Caller, tag: str, order: str) -> None:
    mine = f"{tag}-{order}"
    runs = [apart(caller, tags=[mine]) for _ in range(5)]
    seen: list[str] = []
    more: dict[str, str] = {}
    while True:
        found = page(caller, tag=mine, order=order, limit=2, **more)
        seen += [row["execution_id"] for row in found["executions"]]
        if found["next_cursor"] is None:
            break
        more = {"cursor": found["next_cursor"]}
        if len(seen) == 2:
            runs.append(apart(caller, tags=[mine]))
    assert seen == (runs[4::-1] if order == "newest" else runs)


def test_a_cursor_leads_on_in_its_own_list_alone(caller: Caller, runs: list[str], tag: str) -> None:
    cursor = page(caller, tag=tag, limit=2)["next_cursor"]
    assert ids(caller, tag=tag, limit=3, cursor=cursor, unknown="1") == runs[2::-1], "another limit is no other list"
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
def test_a_made_up_cursor_is_refused(caller: Caller, cursor: str) -> None:
    refused = caller.get("/executions", params={"cursor": cursor})
    assert (refused.status_code, refused.json()["error_code"]) == (400, "cursor_invalid")


@pytest.mark.parametrize("name", ["created_after", "created_before", "updated_since"])
def test_the_last_moment_that_can_be_told_is_one(caller: Caller, name: str) -> None:
    answer = caller.get("/executions", params={name: "9999-12-31T23:59:59.999999Z", "limit": 1})
    assert answer.status_code == 200
    assert (answer.json()["executions"] == []) is (name != "created_before")


def test_whatever_was_changed_in_a_cursor_it_is_refused(caller: Caller, runs: list[str], tag: str) -> None:
    cursor = page(caller, tag=tag, limit=2)["next_cursor"]
    assert ids(caller, tag=tag, cursor=cursor) == runs[2::-1]
    for other in spoilt(cursor, "Aw_"):
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
def test_what_is_not_valid_is_400_and_names_the_parameter(caller: Caller, name: str, value: str) -> None:
    refused = caller.get("/executions", params={name: value})
    body = refused.json()
    assert (refused.status_code, body["error_code"]) == (400, "validation_failed")
    assert body["details"][0]["parameter"] == name
    assert len(body["detail"]) < 300


def test_a_parameter_that_stands_twice_is_refused(caller: Caller) -> None:
    refused = caller.get("/executions", params=[("tag", "a"), ("tag", "b")])
    assert (refused.status_code, refused.json()["details"][0]["parameter"]) == (400, "tag")


@pytest.mark.parametrize("name", ["basket", "tag", "request_id", "retry_of"])
@pytest.mark.parametrize("value", ['{"$gt":""}', "$where", "", "\0", "a\0b", "..", "x" * 7_000, "grün"])
def test_a_name_that_nothing_has_finds_nothing(caller: Caller, name: str, value: str) -> None:
    assert page(caller, **{name: value}) == {"executions": [], "next_cursor": None}


def test_operators_in_a_parameters_name_are_unknown_parameters(caller: Caller, runs: list[str], tag: str) -> None:
    assert ids(caller, tag=tag, **{"status[$ne]": "failed", "$where": "1"}) == runs[::-1]


def test_head_answers_as_get_without_the_body_and_a_post_is_405(caller: Caller) -> None:
    head = caller.ask("HEAD", "/executions")
    assert (head.status_code, head.content) == (200, b"")
    refused = caller.post("/executions", {})
    assert (refused.status_code, set(refused.headers["Allow"].split(", "))) == (405, {"GET", "HEAD", "OPTIONS"})
