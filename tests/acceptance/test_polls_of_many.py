"""Polls of many runs: only changed views are returned, with or without Redis, the same as each single poll."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from benchmarks.harness.mongod_profiler import ProfileEntry, recording
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.live.views import view_key
from tests.acceptance.client import INCOME, ApiClient
from tests.acceptance.test_lists import STANDING

PREFIXES = ["", "/api/v1"]
UNKNOWN = "1763700000_0000000000000000"
FIELDS = {"changed", "unchanged", "not_found", "poll_after_ms"}


def poll_many(caller: ApiClient, *items: tuple[str, int | None], prefix: str = "", **fields: Any) -> dict[str, Any]:
    body = {"items": [{"execution_id": execution_id, "rev": rev} for execution_id, rev in items]} | fields
    response = caller.post(f"{prefix}/executions/poll", body)
    assert response.status_code == 200, response.text
    assert response.headers["Cache-Control"] == "private, no-cache"
    result: dict[str, Any] = response.json()
    return result


@pytest.fixture(scope="module")
def completed_view(caller: ApiClient) -> dict[str, Any]:
    """Return the view of a completed run."""
    return caller.wait_done(caller.submit_basket(input_data=INCOME))


@pytest.fixture(scope="module")
def failed_view(caller: ApiClient) -> dict[str, Any]:
    """Return the view of a failed run."""
    return caller.wait_done(caller.submit_agent("raiser", kind="ValueError"))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("forgotten", [False, True])
def test_changed_runs_are_returned_and_the_rest_is_counted(
    caller: ApiClient, completed_view: dict[str, Any], failed_view: dict[str, Any], prefix: str, *, forgotten: bool
) -> None:
    if forgotten:
        caller.stack.redis().delete(
            *(view_key(PUBLIC_INTEGRATOR, poll["execution_id"]) for poll in (completed_view, failed_view))
        )
    items = [
        (completed_view["execution_id"], completed_view["rev"]),
        (failed_view["execution_id"], failed_view["rev"] - 1),
        (UNKNOWN, 1),
    ]
    body = poll_many(caller, *items, prefix=prefix)
    assert set(body) == FIELDS
    assert (body["unchanged"], body["not_found"], body["poll_after_ms"]) == (1, [UNKNOWN], None)
    (changed,) = body["changed"]
    assert set(changed) == STANDING
    assert changed == {name: failed_view[name] for name in changed}


@pytest.mark.parametrize("forgotten", [False, True])
def test_full_views_are_the_same_as_single_polls(
    caller: ApiClient, completed_view: dict[str, Any], failed_view: dict[str, Any], *, forgotten: bool
) -> None:
    if forgotten:
        caller.stack.redis().delete(
            *(view_key(PUBLIC_INTEGRATOR, poll["execution_id"]) for poll in (completed_view, failed_view))
        )
    body = poll_many(caller, (completed_view["execution_id"], None), (failed_view["execution_id"], None), view="full")
    assert sorted(body["changed"], key=str) == sorted((completed_view, failed_view), key=str)
    assert "left_out" not in body


def test_a_loop_over_many_sees_every_end_and_no_older_revision(caller: ApiClient) -> None:
    runs = [caller.submit_basket(input_data=INCOME) for _ in range(20)]
    revs: dict[str, int | None] = dict.fromkeys(runs)
    unfinished, due_by = set(runs), time.monotonic() + 20
    while unfinished:
        assert time.monotonic() < due_by, unfinished
        body = poll_many(caller, *revs.items())
        assert body["not_found"] == []
        assert len(body["changed"]) + body["unchanged"] == len(revs)
        for row in body["changed"]:
            assert row["rev"] > (revs[row["execution_id"]] or 0)
            revs[row["execution_id"]] = row["rev"]
            if row["done"]:
                assert row["status"] == "completed"
                unfinished.discard(row["execution_id"])
        time.sleep(0.02)
    assert poll_many(caller, *revs.items()) == {"changed": [], "unchanged": 20, "not_found": [], "poll_after_ms": None}


def test_all_are_polled_again_when_the_first_of_them_should_be(
    caller: ApiClient, completed_view: dict[str, Any]
) -> None:
    due_late = caller.submit_basket(run_after_s=600)
    rev = caller.poll(due_late)["rev"]
    response = caller.post("/executions/poll", {"items": [{"execution_id": due_late, "rev": rev}]})
    assert (response.json()["unchanged"], response.json()["poll_after_ms"]) == (1, 30_000)
    assert response.headers["Retry-After"] == "30"
    due_soon = caller.submit_basket(run_after_s=5)
    body = poll_many(caller, (due_late, rev), (due_soon, None), (completed_view["execution_id"], 0))
    hints = [row["poll_after_ms"] for row in body["changed"] if not row["done"]]
    assert body["poll_after_ms"] == min(hints) <= 7_000, "its scheduled time, and the time that such a run takes"
    (waiting,) = [row["waiting_for"] for row in body["changed"] if row["execution_id"] == due_soon]
    assert waiting["reason"] == "schedule"
    for run in (due_late, due_soon):
        caller.request("POST", f"/executions/{run}/cancel")


def test_an_id_may_be_repeated_or_invalid(caller: ApiClient, completed_view: dict[str, Any]) -> None:
    run, rev = completed_view["execution_id"], completed_view["rev"]
    assert poll_many(caller, (run, rev), (run, rev))["unchanged"] == 1
    assert [row["execution_id"] for row in poll_many(caller, (run, rev), (run, rev - 1))["changed"]] == [run]
    unknown_ids = ["None", "", "..", '{"$gt":""}', "$where", "a\0b", "x" * 10_000, "grün", run.upper() + " "]
    assert poll_many(caller, *((unknown_id, 1) for unknown_id in unknown_ids), (run, rev)) == {
        "changed": [], "unchanged": 1, "not_found": unknown_ids, "poll_after_ms": None,
    }  # fmt: skip
    assert poll_many(caller, ("None", None), ("None", 3))["not_found"] == ["None"]


def test_a_revision_that_never_existed_returns_the_current_view(
    caller: ApiClient, completed_view: dict[str, Any]
) -> None:
    (row,) = poll_many(caller, (completed_view["execution_id"], 2**63 - 1))["changed"]
    assert row["rev"] == completed_view["rev"]


def test_a_whole_number_is_a_revision_also_as_a_float(caller: ApiClient, completed_view: dict[str, Any]) -> None:
    assert poll_many(caller, (completed_view["execution_id"], float(completed_view["rev"])))["unchanged"] == 1
    for rev in (completed_view["rev"] + 0.5, 1e300, -1.0, "1", True):
        response = caller.post(
            "/executions/poll", {"items": [{"execution_id": completed_view["execution_id"], "rev": rev}]}
        )
        assert response.status_code == 400, rev


def test_views_that_do_not_fit_are_named_and_returned_by_the_next_request(caller: ApiClient) -> None:
    runs = [caller.submit_agent("big", bytes=3_500_000) for _ in range(4)]
    polls = {run: caller.wait_done(run) for run in runs}
    views: dict[str, Any] = {}
    items = [(run, None) for run in runs]
    rounds = 0
    while items:
        body = poll_many(caller, *items, view="full")
        assert body["changed"], "each response has at least one"
        views |= {row["execution_id"]: row for row in body["changed"]}
        items = [(run, None) for run in body.get("left_out", [])]
        assert body["poll_after_ms"] == (250 if items else None), "all are done, and these can be fetched now"
        rounds += 1
    assert (views, rounds) == (polls, 2)


def operations(entries: list[ProfileEntry]) -> list[ProfileEntry]:
    """Return the recorded operations that the API sent to MongoDB."""
    return [entry for entry in entries if entry.get("appName") == "bucket-api"]


@pytest.mark.parametrize(("view", "queries"), [("status", 1), ("full", 2)])
def test_one_query_finds_what_redis_lacks_and_one_more_reads_full_views(
    caller: ApiClient, view: str, queries: int
) -> None:
    item = {"config": {"agents": ["echo"]}, "input_data": {"a": 1}}
    batch = caller.post("/run-basket/batch", {"items": [item] * 55}).json()
    revs = {result["execution_id"]: caller.wait_done(result["execution_id"])["rev"] for result in batch["items"]}
    items: list[tuple[str, int | None]] = [(run, None) for run in revs]
    with recording(caller.stack.mongo()) as entries:
        poll_many(caller, *items, view=view)
    assert operations(entries) == [], "Redis has all of it"

    forgotten = sorted(revs)[:50]
    caller.stack.redis().delete(*(view_key(PUBLIC_INTEGRATOR, run) for run in forgotten))
    with recording(caller.stack.mongo()) as entries:
        body = poll_many(caller, *items, view=view)
    assert {row["execution_id"]: row["rev"] for row in body["changed"]} == revs
    finds = [entry["command"] for entry in operations(entries) if "find" in entry["command"]]
    assert [find["find"] for find in finds] == ["executions"] * queries
    assert sorted(finds[0]["filter"]["_id"]["$in"]) == forgotten, "nothing that Redis has"
    # Full views are fetched a few at a time because they may be large; a status view of 50 runs comes in one reply.
    getmores = [entry for entry in operations(entries) if entry["op"] == "getmore"]
    assert len(finds) + len(getmores) == len(operations(entries))
    assert len(getmores) <= (5 if view == "full" else 0)


def test_missing_runs_are_looked_up_once_more_in_mongodb(caller: ApiClient, completed_view: dict[str, Any]) -> None:
    caller.stack.redis().delete(view_key(PUBLIC_INTEGRATOR, completed_view["execution_id"]))
    with recording(caller.stack.mongo()) as entries:
        body = poll_many(caller, (completed_view["execution_id"], None), (UNKNOWN, None))
    assert (body["not_found"], [row["execution_id"] for row in body["changed"]]) == (
        [UNKNOWN],
        [completed_view["execution_id"]],
    )
    asked_for = [entry["command"]["filter"]["_id"]["$in"] for entry in operations(entries)]
    assert [sorted(ids) for ids in asked_for] == [
        sorted([completed_view["execution_id"], UNKNOWN]),
        [UNKNOWN],
        [UNKNOWN],
    ]


def test_unknown_fields_are_named_in_the_warnings(caller: ApiClient, completed_view: dict[str, Any]) -> None:
    items = [{"execution_id": completed_view["execution_id"], "revision": 1}] * 30
    body = caller.post("/executions/poll", {"items": items, "vista": "full"}).json()
    assert body["warnings"] == [
        "unknown field 'vista' was ignored",
        "unknown field 'revision' of items was ignored",
    ]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/items"),
        ({"items": []}, "/items"),
        ({"items": [{"execution_id": UNKNOWN}] * 501}, "/items"),
        ({"items": {}}, "/items"),
        ({"items": UNKNOWN}, "/items"),
        ({"items": [UNKNOWN]}, "/items/0"),
        ({"items": [{"execution_id": UNKNOWN}, {}]}, "/items/1/execution_id"),
        ({"items": [{"execution_id": {"$gt": ""}}]}, "/items/0/execution_id"),
        ({"items": [{"execution_id": UNKNOWN, "rev": "1"}]}, "/items/0/rev"),
        ({"items": [{"execution_id": UNKNOWN, "rev": -1}]}, "/items/0/rev"),
        ({"items": [{"execution_id": UNKNOWN, "rev": 1.5}]}, "/items/0/rev"),
        ({"items": [{"execution_id": UNKNOWN, "rev": True}]}, "/items/0/rev"),
        ({"items": [{"execution_id": UNKNOWN, "rev": {"$gt": 0}}]}, "/items/0/rev"),
        ({"items": [{"execution_id": UNKNOWN}], "view": "all"}, "/view"),
        ({"items": [{"execution_id": UNKNOWN}], "view": 0}, "/view"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_invalid_body_is_400_with_its_pointer(caller: ApiClient, body: Any, pointer: str) -> None:
    refused = caller.post("/executions/poll", body)
    problem = refused.json()
    assert (refused.status_code, problem["error_code"]) == (400, "validation_failed")
    assert problem["details"][0]["pointer"] == pointer


def test_five_hundred_items_are_accepted(caller: ApiClient, completed_view: dict[str, Any]) -> None:
    unknown_ids = [f"1763700000_{number:016x}" for number in range(499)]
    body = poll_many(
        caller, *((execution_id, 1) for execution_id in unknown_ids), (completed_view["execution_id"], None)
    )
    assert (len(body["changed"]), sorted(body["not_found"])) == (1, unknown_ids)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_get_of_the_address_is_an_unknown_id_and_a_post_is_allowed(caller: ApiClient, prefix: str) -> None:
    get = caller.get(f"{prefix}/executions/poll")
    assert (get.status_code, get.json()["error_code"]) == (404, "execution_not_found")
    put = caller.request("PUT", f"{prefix}/executions/poll", json={})
    assert (put.status_code, set(put.headers["Allow"].split(", "))) == (
        405, {"DELETE", "GET", "HEAD", "OPTIONS", "POST"},
    )  # fmt: skip


def test_a_poll_of_many_stores_nothing(caller: ApiClient) -> None:
    before = caller.document_counts()
    poll_many(caller, (UNKNOWN, 1), (uuid.uuid4().hex, None))
    assert caller.document_counts() == before
