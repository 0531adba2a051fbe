"""Polls of many: only what changed comes back, whatever Redis holds, and the same as each poll would have said."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from benchmarks.harness.mongod_profiler import ProfileEntry, recording
from shared.live.views import view_key
from tests.acceptance.client import INCOME, Caller
from tests.acceptance.test_lists import STANDING

PREFIXES = ["", "/api/v1"]
UNKNOWN = "1763700000_0000000000000000"
FIELDS = {"changed", "unchanged", "not_found", "poll_after_ms"}


def asked(caller: Caller, *items: tuple[str, int | None], prefix: str = "", **more: Any) -> dict[str, Any]:
    body = {"items": [{"execution_id": each, "rev": rev} for each, rev in items]} | more
    answer = caller.post(f"{prefix}/executions/poll", body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "private, no-cache"
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="module")
def done(caller: Caller) -> dict[str, Any]:
    """The poll of a run that has completed."""
    return caller.finished(caller.run(input_data=INCOME))


@pytest.fixture(scope="module")
def failed(caller: Caller) -> dict[str, Any]:
    """The poll of a run that has failed."""
    return caller.finished(caller.run_agent("raiser", kind="ValueError"))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("forgotten", [False, True])
def test_those_that_changed_come_back_and_the_rest_is_counted(
    caller: Caller, done: dict[str, Any], failed: dict[str, Any], prefix: str, *, forgotten: bool
) -> None:
    if forgotten:
        caller.stack.redis().delete(*(view_key(poll["execution_id"]) for poll in (done, failed)))
    items = [(done["execution_id"], done["rev"]), (failed["execution_id"], failed["rev"] - 1), (UNKNOWN, 1)]
    found = asked(caller, *items, prefix=prefix)
    assert set(found) == FIELDS
    assert (found["unchanged"], found["not_found"], found["poll_after_ms"]) == (1, [UNKNOWN], None)
    (changed,) = found["changed"]
    assert set(changed) == STANDING
    assert changed == {name: failed[name] for name in changed}


@pytest.mark.parametrize("forgotten", [False, True])
def test_whole_polls_are_what_each_poll_says(
    caller: Caller, done: dict[str, Any], failed: dict[str, Any], *, forgotten: bool
) -> None:
    if forgotten:
        caller.stack.redis().delete(*(view_key(poll["execution_id"]) for poll in (done, failed)))
    found = asked(caller, (done["execution_id"], None), (failed["execution_id"], None), view="full")
    assert sorted(found["changed"], key=str) == sorted((done, failed), key=str)
    assert "left_out" not in found


def test_a_loop_over_many_learns_of_every_end_and_of_no_step_back(caller: Caller) -> None:
    runs = [caller.run(input_data=INCOME) for _ in range(20)]
    known: dict[str, int | None] = dict.fromkeys(runs)
    left, due_by = set(runs), time.monotonic() + 20
    while left:
        assert time.monotonic() < due_by, left
        found = asked(caller, *known.items())
        assert found["not_found"] == []
        assert len(found["changed"]) + found["unchanged"] == len(known)
        for row in found["changed"]:
            assert row["rev"] > (known[row["execution_id"]] or 0)
            known[row["execution_id"]] = row["rev"]
            if row["done"]:
                assert row["status"] == "completed"
                left.discard(row["execution_id"])
        time.sleep(0.02)
    assert asked(caller, *known.items()) == {"changed": [], "unchanged": 20, "not_found": [], "poll_after_ms": None}


def test_the_lot_is_polled_again_when_the_first_of_it_should_be(caller: Caller, done: dict[str, Any]) -> None:
    later = caller.run(run_after_s=600)
    rev = caller.poll(later)["rev"]
    answer = caller.post("/executions/poll", {"items": [{"execution_id": later, "rev": rev}]})
    assert (answer.json()["unchanged"], answer.json()["poll_after_ms"]) == (1, 30_000)
    assert answer.headers["Retry-After"] == "30"
    soon = caller.run(run_after_s=5)
    found = asked(caller, (later, rev), (soon, None), (done["execution_id"], 0))
    hints = [row["poll_after_ms"] for row in found["changed"] if not row["done"]]
    assert found["poll_after_ms"] == min(hints) <= 7_000, "its moment, and the time that such a run takes"
    (waiting,) = [row["waiting_for"] for row in found["changed"] if row["execution_id"] == soon]
    assert waiting["reason"] == "schedule"
    for run in (later, soon):
        caller.ask("POST", f"/executions/{run}/cancel")


def test_an_id_may_stand_twice_and_may_be_none(caller: Caller, done: dict[str, Any]) -> None:
    run, rev = done["execution_id"], done["rev"]
    assert asked(caller, (run, rev), (run, rev))["unchanged"] == 1
    assert [row["execution_id"] for row in asked(caller, (run, rev), (run, rev - 1))["changed"]] == [run]
    strange = ["None", "", "..", '{"$gt":""}', "$where", "a\0b", "x" * 10_000, "grün", run.upper() + " "]
    assert asked(caller, *((each, 1) for each in strange), (run, rev)) == {
        "changed": [], "unchanged": 1, "not_found": strange, "poll_after_ms": None,
    }  # fmt: skip
    assert asked(caller, ("None", None), ("None", 3))["not_found"] == ["None"]


def test_a_revision_beyond_any_is_answered_from_the_truth(caller: Caller, done: dict[str, Any]) -> None:
    (row,) = asked(caller, (done["execution_id"], 2**63 - 1))["changed"]
    assert row["rev"] == done["rev"]


def test_a_whole_revision_is_one_however_it_is_written(caller: Caller, done: dict[str, Any]) -> None:
    assert asked(caller, (done["execution_id"], float(done["rev"])))["unchanged"] == 1
    for rev in (done["rev"] + 0.5, 1e300, -1.0, "1", True):
        answer = caller.post("/executions/poll", {"items": [{"execution_id": done["execution_id"], "rev": rev}]})
        assert answer.status_code == 400, rev


def test_what_does_not_fit_is_named_and_comes_when_it_is_asked_for_again(caller: Caller) -> None:
    runs = [caller.run_agent("big", bytes=3_500_000) for _ in range(4)]
    polls = {run: caller.finished(run) for run in runs}
    seen: dict[str, Any] = {}
    wanted = [(run, None) for run in runs]
    rounds = 0
    while wanted:
        found = asked(caller, *wanted, view="full")
        assert found["changed"], "each answer brings one at least"
        seen |= {row["execution_id"]: row for row in found["changed"]}
        wanted = [(run, None) for run in found.get("left_out", [])]
        assert found["poll_after_ms"] == (250 if wanted else None), "all are done, and these can be fetched now"
        rounds += 1
    assert (seen, rounds) == (polls, 2)


def operations(entries: list[ProfileEntry]) -> list[ProfileEntry]:
    """What the API asked of MongoDB, of all that was recorded."""
    return [entry for entry in entries if entry.get("appName") == "bucket-api"]


@pytest.mark.parametrize(("view", "queries"), [("status", 1), ("full", 2)])
def test_mongodb_is_asked_once_for_what_redis_lacks_and_once_more_for_whole_polls(
    caller: Caller, view: str, queries: int
) -> None:
    item = {"config": {"agents": ["echo"]}, "input_data": {"a": 1}}
    batch = caller.post("/run-basket/batch", {"items": [item] * 55}).json()
    revs = {each["execution_id"]: caller.finished(each["execution_id"])["rev"] for each in batch["items"]}
    kept: list[tuple[str, int | None]] = [(run, None) for run in revs]
    with recording(caller.stack.mongo()) as entries:
        asked(caller, *kept, view=view)
    assert operations(entries) == [], "Redis has all of it"

    forgotten = sorted(revs)[:50]
    caller.stack.redis().delete(*map(view_key, forgotten))
    with recording(caller.stack.mongo()) as entries:
        found = asked(caller, *kept, view=view)
    assert {row["execution_id"]: row["rev"] for row in found["changed"]} == revs
    finds = [entry["command"] for entry in operations(entries) if "find" in entry["command"]]
    assert [find["find"] for find in finds] == ["executions"] * queries
    assert sorted(finds[0]["filter"]["_id"]["$in"]) == forgotten, "and for nothing that Redis has"
    # Whole polls are fetched a few at a time, for they may be large; a status view of 50 runs comes at once.
    more = [entry for entry in operations(entries) if entry["op"] == "getmore"]
    assert len(finds) + len(more) == len(operations(entries))
    assert len(more) <= (5 if view == "full" else 0)


def test_mongodb_is_asked_once_more_for_what_it_does_not_find(caller: Caller, done: dict[str, Any]) -> None:
    caller.stack.redis().delete(view_key(done["execution_id"]))
    with recording(caller.stack.mongo()) as entries:
        found = asked(caller, (done["execution_id"], None), (UNKNOWN, None))
    assert (found["not_found"], [row["execution_id"] for row in found["changed"]]) == (
        [UNKNOWN],
        [done["execution_id"]],
    )
    asked_for = [entry["command"]["filter"]["_id"]["$in"] for entry in operations(entries)]
    assert [sorted(ids) for ids in asked_for] == [sorted([done["execution_id"], UNKNOWN]), [UNKNOWN], [UNKNOWN]]


def test_keys_that_mean_nothing_are_named(caller: Caller, done: dict[str, Any]) -> None:
    items = [{"execution_id": done["execution_id"], "revision": 1}] * 30
    found = caller.post("/executions/poll", {"items": items, "vew": "full"}).json()
    assert found["warnings"] == [
        "unknown field 'vew' was ignored; did you mean view?",
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
        ({"items": [{"execution_id": UNKNOWN}], "view": None}, "/view"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_not_valid_is_400_and_says_where(caller: Caller, body: Any, pointer: str) -> None:
    refused = caller.post("/executions/poll", body)
    told = refused.json()
    assert (refused.status_code, told["error_code"]) == (400, "validation_failed")
    assert told["details"][0]["pointer"] == pointer


def test_five_hundred_are_taken(caller: Caller, done: dict[str, Any]) -> None:
    none = [f"1763700000_{number:016x}" for number in range(499)]
    found = asked(caller, *((each, 1) for each in none), (done["execution_id"], None))
    assert (len(found["changed"]), sorted(found["not_found"])) == (1, none)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_address_is_an_id_that_nothing_has_to_a_get_and_takes_a_post(caller: Caller, prefix: str) -> None:
    got = caller.get(f"{prefix}/executions/poll")
    assert (got.status_code, got.json()["error_code"]) == (404, "execution_not_found")
    put = caller.ask("PUT", f"{prefix}/executions/poll", json={})
    assert (put.status_code, set(put.headers["Allow"].split(", "))) == (405, {"GET", "HEAD", "OPTIONS", "POST"})


def test_it_is_polled_and_not_stored(caller: Caller) -> None:
    before = caller.stored()
    asked(caller, (UNKNOWN, 1), (uuid.uuid4().hex, None))
    assert caller.stored() == before
