"""The change feed over HTTP: one poll for all runs, and consumers that may die at any moment and miss nothing."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from api.feed import cursors
from tests.acceptance.client import Caller
from tests.waiting import wait_until

PREFIXES = ["", "/api/v1"]
CHANGE = {"execution_id", "status", "done", "rev", "basket_name", "tags"}
PAGE = {"changes", "next_since", "caught_up", "poll_after_ms"}


def page(caller: Caller, path: str = "/executions/changes", **query: Any) -> dict[str, Any]:
    answer = caller.get(path, params=query)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert set(told) == PAGE
    assert all(set(change) == CHANGE for change in told["changes"])
    assert 250 <= told["poll_after_ms"] <= 5_000
    assert 1 <= int(answer.headers["Retry-After"]) <= 5
    assert answer.headers["Cache-Control"] == "private, no-cache"
    return told


def now(caller: Caller) -> str:
    return str(page(caller, since="now")["next_since"])


def seen_until(caller: Caller, since: str, wanted: set[str], **query: Any) -> tuple[dict[str, dict[str, Any]], str]:
    """Read on from ``since`` until all of these runs have been seen done; answer the last of each, and the cursor."""
    seen: dict[str, dict[str, Any]] = {}

    def all_done() -> bool:
        nonlocal since
        told = page(caller, since=since, **query)
        since = told["next_since"]
        seen.update({change["execution_id"]: change for change in told["changes"]})
        return all(seen.get(each, {}).get("done") for each in wanted)

    wait_until(all_done, 20, "all were seen done")
    return seen, since


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_run_is_seen_in_the_feed_and_the_feed_comes_to_its_end(caller: Caller, prefix: str) -> None:
    since = now(caller)
    run, another = caller.run(tags=["night"]), caller.run()
    seen, since = seen_until(caller, since, {run, another})
    polled = caller.finished(run)
    assert seen[run] == {
        "execution_id": run, "status": "completed", "done": True, "rev": polled["rev"],
        "basket_name": "working_test", "tags": ["night"],
    }  # fmt: skip
    wait_until(lambda: page(caller, f"{prefix}/executions/changes", since=since)["caught_up"], 10, "caught up")
    rest = page(caller, since=since)["changes"]
    assert [each for each in rest if each != seen[each["execution_id"]]] == [], (
        "a change may come twice, each time as it is by now"
    )
    first = page(caller, limit=1)
    assert (len(first["changes"]), first["caught_up"]) == (1, False), "no since: from the oldest kept"


def test_filters_and_limits_are_told_apart(caller: Caller) -> None:
    since = now(caller)
    red, blue = caller.run(tags=["feed-red"]), caller.run(tags=["feed-blue"])
    seen_until(caller, since, {red, blue})
    assert set(seen_until(caller, since, {red}, tag="feed-red")[0]) == {red}
    assert set(seen_until(caller, since, {red, blue}, basket="working_test", limit=1)[0]) == {red, blue}
    assert page(caller, since=since, basket="$gt")["changes"] == []


@pytest.mark.parametrize("path", ["/executions/changes", "/consumers/patient/changes"])
def test_a_held_request_is_answered_by_the_change_itself(caller: Caller, path: str) -> None:
    run = caller.run(run_after_s=3_600, tags=["held"])
    since = seen_in(caller, run)
    assert caller.ask("PUT", "/consumers/patient", json={"since": since}).status_code in {200, 201}
    caller.post("/consumers/patient/ack", {"cursor": since})
    with ThreadPoolExecutor(2) as threads:
        query = {"since": since, "tag": "held"}
        by_query = threads.submit(page, caller, path, wait=20, **query)
        by_header = threads.submit(caller.get, path, params=query, headers={"Prefer": "wait=20"})
        for _ in range(3):
            caller.finished(caller.run())  # changes that the filter leaves out wake them, and are no answer
        assert not any(each.done() for each in (by_query, by_header))
        caller.post(f"/executions/{run}/cancel", {})
        told, answer = by_query.result(10), by_header.result(10)
    assert [(each["execution_id"], each["status"]) for each in told["changes"]] == [(run, "cancelled")]
    assert answer.json()["changes"] == told["changes"]
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert caller.get(path, params={"wait": "long"}).status_code == 400
    assert page(caller, path, since="now", tag="nobody", wait="0.2")["changes"] == [], "its time is up"


def seen_in(caller: Caller, run: str) -> str:
    """Read the feed until a run has been seen and all is at rest; answer the cursor behind it."""
    since, seen = None, False
    while True:
        told = page(caller, **({} if since is None else {"since": since}))
        since = str(told["next_since"])
        seen = seen or run in {change["execution_id"] for change in told["changes"]}
        if seen and told["caught_up"] and not told["changes"]:
            return since


@pytest.mark.parametrize(
    ("query", "error_code"),
    [
        ("since=", "cursor_invalid"), ("since=MTc2Mzcw", "cursor_invalid"), ("since=%00%ff", "cursor_invalid"),
        ("since=Now", "cursor_invalid"), ("since=now&since=now", "validation_failed"),
        ("limit=0", "validation_failed"), ("limit=1001", "validation_failed"),
        ("limit=-1", "validation_failed"), ("limit=a", "validation_failed"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_refused(caller: Caller, query: str, error_code: str) -> None:
    answer = caller.get(f"/executions/changes?{query}")
    assert (answer.status_code, answer.json()["error_code"]) == (400, error_code)


def test_a_cursor_that_expired_is_told_with_the_way_to_catch_up(caller: Caller) -> None:
    since = now(caller)
    changes = caller.stack.mongo().changes
    other = "00000000" if changes.find_one()["epoch"] != "00000000" else "11111111"  # type: ignore[index]
    old = as_of_epoch(since, other)
    answer = caller.get("/api/v1/executions/changes", params={"since": old})
    told = answer.json()
    assert (answer.status_code, told["error_code"]) == (410, "cursor_expired")
    listed = urlsplit(told["resync"]["list"])
    assert listed.path == "/api/v1/executions"
    asked = parse_qs(listed.query)
    assert (set(asked), asked["order"]) == ({"updated_since", "order"}, ["updated"])
    assert caller.get(told["resync"]["list"]).json()["executions"] is not None
    assert page(caller, since=told["resync"]["since"])["changes"] == []


def as_of_epoch(cursor: str, epoch: str) -> str:
    """The same cursor as Bucket would have made it in another epoch."""
    return cursors.encode(replace(cursors.decode(cursor, parameter="test"), epoch=epoch))


def test_a_consumer_lives(caller: Caller) -> None:
    def ask(method: str, path: str = "", body: Any = None) -> requests.Response:
        return caller.ask(method, f"/consumers/night-report{path}", json=body)

    assert (ask("GET", "/changes").status_code, ask("DELETE").status_code) == (404, 404)
    assert ask("POST", "/ack", {"cursor": "x"}).json()["error_code"] == "consumer_not_found"
    since = now(caller)
    run = caller.run()
    _, later = seen_until(caller, since, {run})
    made = ask("PUT", "", {"since": since, "sinse": 1})
    assert (made.status_code, made.json()["consumer"], made.json()["cursor"]) == (201, "night-report", since)
    assert made.json()["warnings"] == ["unknown field 'sinse' was ignored; did you mean since?"]
    again = ask("PUT", "", {"since": "now"})
    assert (again.status_code, again.json()["cursor"]) == (200, since), "a known one is left as it is"
    for _ in range(2):
        told = page(caller, "/consumers/night-report/changes")
        assert run in {change["execution_id"] for change in told["changes"]}, "reading does not move it"
    assert page(caller, "/consumers/night-report/changes", tag="no such")["changes"] == []
    [listed] = [each for each in caller.get("/consumers").json()["consumers"] if each["consumer"] == "night-report"]
    assert (listed["cursor"], listed["acked_at"], listed["expired"]) == (since, None, False)
    assert listed["lag_s"] > 0
    assert ask("POST", "/ack", {"cursor": later}).json()["cursor"] == later
    assert ask("POST", "/ack", {"cursor": since}).json()["cursor"] == later, "an older ack changes nothing"
    wait_until(lambda: page(caller, since=later)["caught_up"], 10, "the feed is at rest")
    rest = page(caller, since=later)["changes"]
    assert page(caller, "/consumers/night-report/changes")["changes"] == rest
    for body, error_code in [
        ({"cursor": "made up"}, "cursor_invalid"), ({}, "validation_failed"), ({"cursor": 7}, "validation_failed"),
        ({"cursor": "now"}, "cursor_invalid"), ({"cursor": {"$gt": ""}}, "validation_failed"),
    ]:  # fmt: skip
        answer = ask("POST", "/ack", body)
        assert (answer.status_code, answer.json()["error_code"]) == (400, error_code)
    assert ask("DELETE").status_code == 200
    assert (ask("DELETE").status_code, ask("GET", "/changes").json()["error_code"]) == (404, "consumer_not_found")


@pytest.mark.parametrize("name", ["-a", "a b", "a" * 101, "$where", "%00", "ä"])
def test_a_name_that_no_consumer_may_have_is_refused(caller: Caller, name: str) -> None:
    assert caller.ask("PUT", f"/consumers/{name}").status_code == 400
    assert caller.get(f"/consumers/{name}/changes").status_code == 404


@pytest.mark.parametrize("since", ["made up", 7, {"$gt": ""}])
def test_a_consumer_begins_nowhere_that_bucket_has_not_made(caller: Caller, since: Any) -> None:
    assert caller.ask("PUT", "/consumers/nowhere", json={"since": since}).status_code == 400
    assert caller.get("/consumers/nowhere/changes").status_code == 404
    known = caller.ask("PUT", "/consumers/known").json()
    assert caller.ask("PUT", "/consumers/known", json={"since": since}).status_code == 400
    assert caller.ask("PUT", "/consumers/known", json={"since": "now"}).json() == known


def test_a_consumer_whose_cursor_expired_catches_up_and_goes_on(caller: Caller) -> None:
    caller.ask("PUT", "/consumers/late")
    caller.stack.mongo().consumers.update_one({"name": "late"}, {"$set": {"epoch": "00000000"}})
    answer = caller.get("/consumers/late/changes")
    assert (answer.status_code, answer.json()["error_code"]) == (410, "cursor_expired")
    [listed] = [each for each in caller.get("/consumers").json()["consumers"] if each["consumer"] == "late"]
    assert (listed["lag_s"], listed["expired"]) == (None, True)
    assert caller.post("/consumers/late/ack", {"cursor": answer.json()["resync"]["since"]}).status_code == 200
    assert caller.get("/consumers/late/changes").status_code == 200
    caller.ask("DELETE", "/consumers/late")


class Died(Exception):
    """A consumer was killed."""


class Mortal:
    """A consumer that dies at random: after it read, after it took note, after it acknowledged; it begins again."""

    def __init__(self, caller: Caller, name: str) -> None:
        self.caller = caller
        self.name = name
        self.chance = random.Random(7)
        self.ends: dict[str, tuple[str, int]] = {}
        self.deaths = 0
        caller.ask("PUT", f"/consumers/{name}")

    def live(self) -> None:
        """Read a page, note every end in it, acknowledge; or die on the way."""
        try:
            told = page(self.caller, f"/consumers/{self.name}/changes", limit=7)
            self._may_die()
            for change in (each for each in told["changes"] if each["done"]):
                end = change["status"], change["rev"]
                assert self.ends.setdefault(change["execution_id"], end) == end, "an end never changes"
            self._may_die()
            answer = self.caller.post(f"/consumers/{self.name}/ack", {"cursor": told["next_since"]})
            assert answer.status_code == 200
            self._may_die()
        except Died:
            self.deaths += 1

    def _may_die(self) -> None:
        if self.chance.random() < 0.2:
            raise Died


def test_a_consumer_killed_at_random_under_many_writers_sees_every_end(caller: Caller) -> None:
    def submit(_: int) -> list[str]:
        return [caller.run_agent("echo") for _ in range(8)]

    mortal = Mortal(caller, "mortal")
    with ThreadPoolExecutor(8) as writers:
        submits = [writers.submit(submit, number) for number in range(8)]
        while not all(each.done() for each in submits):
            mortal.live()
    runs = {run for each in submits for run in each.result()}

    def all_seen() -> bool:
        mortal.live()
        return runs <= set(mortal.ends)

    wait_until(all_seen, 40, "every end was seen")
    assert len(runs) == 64
    assert {mortal.ends[run][0] for run in runs} == {"completed"}
    assert mortal.deaths > 3
    caller.ask("DELETE", "/consumers/mortal")
