"""The change feed over HTTP: one poll for all runs, and consumers that may die at any time and miss no change."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from api.feed import cursors
from tests.acceptance.client import ApiClient
from tests.waiting import wait_until

PREFIXES = ["", "/api/v1"]
CHANGE = {"execution_id", "status", "done", "rev", "basket_name", "tags"}
PAGE = {"changes", "next_since", "caught_up", "poll_after_ms"}


def page(caller: ApiClient, path: str = "/executions/changes", **query: Any) -> dict[str, Any]:
    response = caller.get(path, params=query)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert set(body) == PAGE
    assert all(CHANGE <= set(change) <= CHANGE | {"reference"} for change in body["changes"])
    assert 250 <= body["poll_after_ms"] <= 5_000
    assert 1 <= int(response.headers["Retry-After"]) <= 5
    assert response.headers["Cache-Control"] == "private, no-cache"
    return body


def end_of_feed(caller: ApiClient) -> str:
    return str(page(caller, since="now")["next_since"])


def read_until_done(
    caller: ApiClient, since: str, run_ids: set[str], **query: Any
) -> tuple[dict[str, dict[str, Any]], str]:
    """Read from ``since`` until all of these runs are done; return the last change of each, and the cursor."""
    latest: dict[str, dict[str, Any]] = {}

    def all_done() -> bool:
        nonlocal since
        body = page(caller, since=since, **query)
        since = body["next_since"]
        latest.update({change["execution_id"]: change for change in body["changes"]})
        return all(latest.get(run, {}).get("done") for run in run_ids)

    wait_until(all_done, 20, "all are done in the feed")
    return latest, since


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_run_is_seen_in_the_feed_and_the_feed_comes_to_its_end(caller: ApiClient, prefix: str) -> None:
    since = end_of_feed(caller)
    run, another = caller.submit_basket(tags=["night"]), caller.submit_basket()
    latest, since = read_until_done(caller, since, {run, another})
    view = caller.wait_done(run)
    assert latest[run] == {
        "execution_id": run, "status": "completed", "done": True, "rev": view["rev"],
        "basket_name": "working_test", "tags": ["night"],
    }  # fmt: skip
    wait_until(lambda: page(caller, f"{prefix}/executions/changes", since=since)["caught_up"], 10, "caught up")
    changes = page(caller, since=since)["changes"]
    assert [change for change in changes if change != latest[change["execution_id"]]] == [], (
        "a change may come twice, each time with the current state"
    )
    first = page(caller, limit=1)
    assert (len(first["changes"]), first["caught_up"]) == (1, False), (
        "without `since` the feed starts at the oldest change"
    )


def test_filters_and_limits_work_together(caller: ApiClient) -> None:
    since = end_of_feed(caller)
    red, blue = caller.submit_basket(tags=["feed-red"]), caller.submit_basket(tags=["feed-blue"])
    read_until_done(caller, since, {red, blue})
    assert set(read_until_done(caller, since, {red}, tag="feed-red")[0]) == {red}
    assert set(read_until_done(caller, since, {red, blue}, basket="working_test", limit=1)[0]) == {red, blue}
    assert page(caller, since=since, basket="$gt")["changes"] == []


def test_a_change_has_the_callers_reference(caller: ApiClient) -> None:
    since = end_of_feed(caller)
    run = caller.submit_basket(reference="A-4711")
    changes, _ = read_until_done(caller, since, {run})
    assert changes[run]["reference"] == "A-4711"


@pytest.mark.parametrize("path", ["/executions/changes", "/consumers/patient/changes"])
def test_a_held_request_returns_as_soon_as_the_change_comes(caller: ApiClient, path: str) -> None:
    run = caller.submit_basket(run_after_s=3_600, tags=["held"])
    since = read_past(caller, run)
    assert caller.request("PUT", "/consumers/patient", json={"since": since}).status_code in {200, 201}
    caller.post("/consumers/patient/ack", {"cursor": since})
    with ThreadPoolExecutor(2) as threads:
        # A consumer's cursor is its acknowledged one, so a since there is refused.
        query = {"tag": "held"} | ({} if "consumers" in path else {"since": since})
        by_query = threads.submit(page, caller, path, wait=20, **query)
        by_header = threads.submit(caller.get, path, params=query, headers={"Prefer": "wait=20"})
        for _ in range(3):
            caller.wait_done(
                caller.submit_basket()
            )  # changes that do not match the filter wake the requests, but do not end them
        assert not any(change.done() for change in (by_query, by_header))
        caller.post(f"/executions/{run}/cancel", {})
        body, response = by_query.result(10), by_header.result(10)
    assert [(change["execution_id"], change["status"]) for change in body["changes"]] == [(run, "cancelled")]
    assert response.json()["changes"] == body["changes"]
    assert response.headers["Preference-Applied"] == "wait=20"
    assert caller.get(path, params={"wait": "long"}).status_code == 400
    assert page(caller, path, **query | {"tag": "nobody"}, wait="0.2")["changes"] == [], "its time is up"


def read_past(caller: ApiClient, run: str) -> str:
    """Read the feed until a run was seen and no more changes come; return the cursor after them."""
    since, is_seen = None, False
    while True:
        body = page(caller, **({} if since is None else {"since": since}))
        since = str(body["next_since"])
        is_seen = is_seen or run in {change["execution_id"] for change in body["changes"]}
        if is_seen and body["caught_up"] and not body["changes"]:
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
def test_invalid_parameters_are_refused(caller: ApiClient, query: str, error_code: str) -> None:
    response = caller.get(f"/executions/changes?{query}")
    assert (response.status_code, response.json()["error_code"]) == (400, error_code)


def test_an_expired_cursor_is_410_with_the_way_to_catch_up(caller: ApiClient) -> None:
    since = end_of_feed(caller)
    changes = caller.stack.mongo().changes
    other_epoch = "00000000" if changes.find_one()["epoch"] != "00000000" else "11111111"  # type: ignore[index]
    old = as_of_epoch(since, other_epoch)
    response = caller.get("/api/v1/executions/changes", params={"since": old})
    body = response.json()
    assert (response.status_code, body["error_code"]) == (410, "cursor_expired")
    list_url = urlsplit(body["resync"]["list"])
    assert list_url.path == "/api/v1/executions"
    query = parse_qs(list_url.query)
    assert (set(query), query["order"]) == ({"updated_since", "order"}, ["updated"])
    assert caller.get(body["resync"]["list"]).json()["executions"] is not None
    assert page(caller, since=body["resync"]["since"])["changes"] == []


def test_a_cursor_that_is_newer_than_the_restored_store_is_410_with_the_way_to_catch_up(caller: ApiClient) -> None:
    """A restore takes the feed back behind cursors that callers keep: 400 would tell them to throw the cursor away."""
    present = cursors.decode(end_of_feed(caller), parameter="test")
    for ahead in ({"batch_number": present.batch_number + 50}, {"batch_number": present.batch_number, "offset": 240}):
        lost = cursors.encode(replace(present, **ahead, as_of=present.as_of + timedelta(hours=1)))
        caller.request("PUT", "/consumers/restored")
        for response in (
            caller.get("/executions/changes", params={"since": lost}),
            caller.post("/consumers/restored/ack", {"cursor": lost}),
            caller.request("PUT", "/consumers/of-the-lost-hour", json={"since": lost}),
        ):
            body = response.json()
            assert (response.status_code, body["error_code"]) == (410, "cursor_expired"), body
            (updated_since,) = parse_qs(urlsplit(body["resync"]["list"]).query)["updated_since"]
            assert datetime.fromisoformat(updated_since) < present.as_of, "not since the lost hour"
            assert page(caller, since=body["resync"]["since"])["changes"] is not None
        resync = body["resync"]["since"]
        assert caller.post("/consumers/restored/ack", {"cursor": resync}).status_code == 200
        caller.stack.mongo().consumers.update_one({"name": "restored"}, {"$inc": {"number": 50}})
        [row] = [each for each in caller.get("/consumers").json()["consumers"] if each["consumer"] == "restored"]
        assert (row["lag_s"], row["expired"]) == (None, True)
        gone = caller.get("/consumers/restored/changes")
        assert gone.status_code == 410
        assert caller.post("/consumers/restored/ack", {"cursor": gone.json()["resync"]["since"]}).status_code == 200
        assert caller.get("/consumers/restored/changes").status_code == 200
        assert caller.request("DELETE", "/consumers/restored").status_code == 200


def as_of_epoch(cursor: str, epoch: str) -> str:
    """Return the same cursor as Bucket would have made it in another epoch."""
    return cursors.encode(replace(cursors.decode(cursor, parameter="test"), epoch=epoch))


def test_a_consumer_is_created_reads_acknowledges_and_is_deleted(caller: ApiClient) -> None:
    def ask(method: str, path: str = "", body: Any = None) -> requests.Response:
        return caller.request(method, f"/consumers/night-report{path}", json=body)

    assert (ask("GET", "/changes").status_code, ask("DELETE").status_code) == (404, 404)
    assert ask("POST", "/ack", {"cursor": "x"}).json()["error_code"] == "consumer_not_found"
    since = end_of_feed(caller)
    run = caller.submit_basket()
    _, next_since = read_until_done(caller, since, {run})
    created = ask("PUT", "", {"since": since, "zzz": 1})
    assert (created.status_code, created.json()["consumer"], created.json()["cursor"]) == (201, "night-report", since)
    assert created.json()["warnings"] == ["unknown field 'zzz' was ignored"]
    again = ask("PUT", "", {"since": "now"})
    assert (again.status_code, again.json()["cursor"]) == (200, since), "an existing consumer is not changed"
    for _ in range(2):
        body_read = page(caller, "/consumers/night-report/changes")
        assert run in {change["execution_id"] for change in body_read["changes"]}, "reading does not move it"
    assert page(caller, "/consumers/night-report/changes", tag="no such")["changes"] == []
    [row] = [
        consumer for consumer in caller.get("/consumers").json()["consumers"] if consumer["consumer"] == "night-report"
    ]
    assert (row["cursor"], row["acked_at"], row["expired"]) == (since, None, False)
    assert row["lag_s"] > 0
    assert ask("POST", "/ack", {"cursor": next_since}).json()["cursor"] == next_since
    assert ask("POST", "/ack", {"cursor": since}).json()["cursor"] == next_since, "an older ack changes nothing"
    wait_until(lambda: page(caller, since=next_since)["caught_up"], 10, "no more changes come")
    changes = page(caller, since=next_since)["changes"]
    assert page(caller, "/consumers/night-report/changes")["changes"] == changes
    for body, error_code in [
        ({"cursor": "made up"}, "cursor_invalid"), ({}, "validation_failed"), ({"cursor": 7}, "validation_failed"),
        ({"cursor": "now"}, "cursor_invalid"), ({"cursor": {"$gt": ""}}, "validation_failed"),
    ]:  # fmt: skip
        response = ask("POST", "/ack", body)
        assert (response.status_code, response.json()["error_code"]) == (400, error_code)
    assert ask("DELETE").status_code == 200
    assert (ask("DELETE").status_code, ask("GET", "/changes").json()["error_code"]) == (404, "consumer_not_found")


@pytest.mark.parametrize("name", ["-a", "a b", "a" * 101, "$where", "%00", "ä"])
def test_an_invalid_consumer_name_is_refused(caller: ApiClient, name: str) -> None:
    assert caller.request("PUT", f"/consumers/{name}").status_code == 400
    assert caller.get(f"/consumers/{name}/changes").status_code == 404


@pytest.mark.parametrize("since", ["made up", 7, {"$gt": ""}])
def test_a_consumer_starts_only_at_a_cursor_made_by_bucket(caller: ApiClient, since: Any) -> None:
    assert caller.request("PUT", "/consumers/nowhere", json={"since": since}).status_code == 400
    assert caller.get("/consumers/nowhere/changes").status_code == 404
    consumer = caller.request("PUT", "/consumers/known").json()
    assert caller.request("PUT", "/consumers/known", json={"since": since}).status_code == 400
    assert caller.request("PUT", "/consumers/known", json={"since": "now"}).json() == consumer


def test_a_consumer_whose_cursor_expired_catches_up_and_goes_on(caller: ApiClient) -> None:
    caller.request("PUT", "/consumers/late")
    caller.stack.mongo().consumers.update_one({"name": "late"}, {"$set": {"epoch": "00000000"}})
    response = caller.get("/consumers/late/changes")
    assert (response.status_code, response.json()["error_code"]) == (410, "cursor_expired")
    [row] = [consumer for consumer in caller.get("/consumers").json()["consumers"] if consumer["consumer"] == "late"]
    assert (row["lag_s"], row["expired"]) == (None, True)
    assert caller.post("/consumers/late/ack", {"cursor": response.json()["resync"]["since"]}).status_code == 200
    assert caller.get("/consumers/late/changes").status_code == 200
    caller.request("DELETE", "/consumers/late")


class ConsumerKilled(Exception):
    """A consumer was killed."""


class MortalConsumer:
    """A consumer that dies at random after a read, a note or an acknowledgement, and starts again."""

    def __init__(self, caller: ApiClient, name: str) -> None:
        self.caller = caller
        self.name = name
        self.chance = random.Random(7)
        self.ends: dict[str, tuple[str, int]] = {}
        self.deaths = 0
        caller.request("PUT", f"/consumers/{name}")

    def live(self) -> None:
        """Read a page, note every end in it and acknowledge it; or die at one of these points."""
        try:
            body = page(self.caller, f"/consumers/{self.name}/changes", limit=7)
            self._may_die()
            for change in (ended for ended in body["changes"] if ended["done"]):
                end = change["status"], change["rev"]
                assert self.ends.setdefault(change["execution_id"], end) == end, "an end never changes"
            self._may_die()
            response = self.caller.post(f"/consumers/{self.name}/ack", {"cursor": body["next_since"]})
            assert response.status_code == 200
            self._may_die()
        except ConsumerKilled:
            self.deaths += 1

    def _may_die(self) -> None:
        if self.chance.random() < 0.2:
            raise ConsumerKilled


def test_a_consumer_killed_at_random_beside_many_writers_sees_every_end(caller: ApiClient) -> None:
    def submit(_: int) -> list[str]:
        return [caller.submit_agent("echo") for _ in range(8)]

    mortal = MortalConsumer(caller, "mortal")
    with ThreadPoolExecutor(8) as writers:
        submits = [writers.submit(submit, number) for number in range(8)]
        while not all(future.done() for future in submits):
            mortal.live()
    runs = {run for future in submits for run in future.result()}

    def all_seen() -> bool:
        mortal.live()
        return runs <= set(mortal.ends)

    wait_until(all_seen, 40, "every end was seen")
    assert len(runs) == 64
    assert {mortal.ends[run][0] for run in runs} == {"completed"}
    assert mortal.deaths > 3
    caller.request("DELETE", "/consumers/mortal")
