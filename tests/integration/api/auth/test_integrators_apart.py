"""Integrators are apart: what belongs to another is as if it did not exist, from Redis and from MongoDB."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from shared.domain.access.caller import Role
from shared.live.qualified_id import qualified_id
from shared.live.views import view_key
from tests.callers import ACME, SECRET, ZENITH, ApiCaller, Callers
from tests.waiting import wait_until

UNKNOWN = "1763700000_0000000000000000"
OF_A_RUN = [
    ("GET", "/execution-logs/{}"),
    ("GET", "/executions/{}"),
    ("GET", "/executions/{}?wait=1"),
    ("GET", "/executions/{}?fields=status"),
    ("GET", "/executions/{}?after=0"),
    ("GET", "/executions/{}/result"),
    ("GET", "/executions/{}/outputs/cashflow_analyzer"),
    ("POST", "/executions/{}/cancel"),
    ("POST", "/executions/{}/retry"),
]
OF_A_NAME = [
    ("GET", "/consumers/{}/changes"),
    ("POST", "/consumers/{}/ack"),
    ("DELETE", "/consumers/{}"),
    ("GET", "/baskets/{}"),
    ("DELETE", "/baskets/{}"),
]
NEW_BASKET = {"agents": ["cashflow_analyzer"]}


def comparable(reply: TestResponse, name: str) -> tuple[Any, ...]:
    """Return all of a reply but the name that was asked for, the request's id, the time and the caller's own limit."""
    text = reply.get_data(as_text=True).replace(name, "NAME")
    text = re.sub(r'"(request_id|timestamp)":"[^"]*"', r'"\1"', text)
    own = {"X-Request-ID", "Content-Length", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
    headers = {key: value for key, value in reply.headers.items() if key not in own}
    return (
        reply.status_code,
        text,
        headers,
        len(reply.get_data()) - reply.get_data(as_text=True).count(name) * len(name),
    )


def ids(reply: TestResponse, collection: str) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [row["execution_id"] for row in reply.json[collection]]


@pytest.mark.parametrize("from_redis", [True, False])
def test_the_run_of_another_is_as_unknown_as_one_that_does_not_exist(callers: Callers, *, from_redis: bool) -> None:
    run = callers.completed(callers.acme, metadata={"x": SECRET})
    if not from_redis:
        callers.empty_redis()
    for method, path in OF_A_RUN:
        body = {} if method == "POST" else None
        theirs = callers.zenith.call(method, path.format(run), body)
        unknown = callers.zenith.call(method, path.format(UNKNOWN), body)
        assert theirs.status_code == 404, (path, theirs.text)
        assert comparable(theirs, run) == comparable(unknown, UNKNOWN), path
        for allowed in (callers.acme, callers.admin):
            assert allowed.call(method, path.format(run), body).status_code != 404, path
    many = callers.zenith.post("/executions/poll", {"items": [{"execution_id": run}], "view": "full"})
    assert (many.json["changed"], many.json["not_found"]) == ([], [run])


def test_a_dead_letter_of_another_is_unknown(callers: Callers) -> None:
    run = callers.failed(callers.acme)
    operator, other = callers.new(Role.OPERATOR, ACME), callers.new(Role.OPERATOR, ZENITH)
    for action in ("requeue", "dismiss"):
        theirs, unknown = (other.post(f"/dead-letters/{each}/{action}") for each in (run, UNKNOWN))
        assert theirs.status_code == 404
        assert comparable(theirs, run) == comparable(unknown, UNKNOWN)
    assert other.get("/dead-letters?basket=working_test").json["dead_letters"] == []
    assert operator.post(f"/dead-letters/{run}/requeue").status_code == 202
    dismissed = callers.failed(callers.acme)
    assert operator.post(f"/dead-letters/{dismissed}/dismiss").status_code == 200


def test_a_bulk_action_belongs_to_the_integrator_of_its_caller_and_needs_an_operator(callers: Callers) -> None:
    body = {"action": "cancel", "filter": {"basket": "working_test"}}
    operator, listed = callers.new(Role.OPERATOR, ACME), callers.new(Role.OPERATOR, ACME, baskets=("working_test",))
    path = "/executions/actions"
    assert callers.acme.post(path, body).status_code == 403
    assert (refused := listed.post(path, body)).status_code == 403, refused.text
    assert operator.post(f"{path}?integrator={ZENITH}", body).status_code == 403
    owners = {
        ACME: operator.post(path, body),
        ZENITH: callers.admin.post(f"{path}?integrator={ZENITH}", body),
        "public": callers.admin.post(path, body),
    }
    for owner, reply in owners.items():
        assert reply.status_code == 202, reply.text
        assert callers.load(reply.json["execution_id"]).integrator == owner


def test_the_run_of_another_is_not_erased(callers: Callers) -> None:
    run = callers.completed(callers.acme)
    operator, other = callers.new(Role.OPERATOR, ACME), callers.new(Role.OPERATOR, ZENITH)
    theirs, unknown = (other.call("DELETE", f"/executions/{each}") for each in (run, UNKNOWN))
    assert theirs.status_code == 404
    assert comparable(theirs, run) == comparable(unknown, UNKNOWN)
    assert "erased_at" not in callers.acme.get(f"/executions/{run}").json
    assert operator.call("DELETE", f"/executions/{run}").status_code == 200
    assert "erased_at" in callers.acme.get(f"/executions/{run}").json


def test_a_name_of_another_is_as_unknown_as_one_that_nobody_has(callers: Callers) -> None:
    author, other = callers.new(Role.AUTHOR, ACME), callers.new(Role.AUTHOR, ZENITH)
    name, free = "quarterly-close", "quarterly-cloze"
    assert author.post("/create-basket", {"name": name, **NEW_BASKET}).status_code == 201
    assert author.call("PUT", f"/consumers/{name}").status_code == 201
    for method, path in OF_A_NAME:
        body = {"cursor": "x"} if path.endswith("/ack") else None
        theirs, unknown = (other.call(method, path.format(each), body) for each in (name, free))
        assert theirs.status_code == 404, (path, theirs.text)
        assert comparable(theirs, name) == comparable(unknown, free), path
    refused = other.post("/run-basket", {"basket_name": free})
    assert (refused.status_code, name in refused.text) == (404, False), "no hint names the basket of another"
    assert name in author.post("/run-basket", {"basket_name": free}).text


def test_collections_show_the_callers_own_and_an_admin_all(callers: Callers) -> None:
    runs = {
        caller.integrator: callers.failed(caller, reference="r", tags=["t"])
        for caller in (callers.acme, callers.zenith)
    }
    callers.feed(*runs.values())
    for integrator in (ACME, ZENITH):
        assert callers.new(Role.OPERATOR, integrator).call("PUT", "/consumers/ours").status_code == 201
    assert callers.admin.get("/executions/changes").status_code == 200
    collections: list[tuple[str, Callable[[TestResponse], list[str]]]] = [
        ("/executions?", lambda reply: ids(reply, "executions")),
        ("/executions?reference=r&fields=status,result,metadata&order=oldest", lambda reply: ids(reply, "executions")),
        ("/executions?tag=t&basket=working_test&order=updated", lambda reply: ids(reply, "executions")),
        ("/executions/changes?", lambda reply: ids(reply, "changes")),
        ("/executions/changes?fields=status,error", lambda reply: ids(reply, "changes")),
        ("/dead-letters?", lambda reply: ids(reply, "dead_letters")),
        ("/logs?", lambda reply: ids(reply, "logs")),
        ("/agent-logs/cashflow_analyzer?", lambda reply: ids(reply, "logs")),
    ]
    for from_redis in (True, False):
        if not from_redis:
            callers.empty_redis()
        for path, names in collections:
            for own, other in ((ACME, ZENITH), (ZENITH, ACME)):
                caller = callers.new(Role.OPERATOR, own)
                assert set(names(caller.get(path))) == {runs[own]}, path
                assert set(names(caller.get(f"{path}&integrator={own}"))) == {runs[own]}, path
                refused = caller.get(f"{path}&integrator={other}")
                assert (refused.status_code, refused.json["error_code"]) == (403, "forbidden"), path
                assert set(names(callers.admin.get(f"{path}&integrator={own}"))) == {runs[own]}, path
            assert set(names(callers.admin.get(path))) == set(runs.values()), path
            assert (
                names(
                    callers.public.get(path) if "dead" not in path else callers.admin.get(path + "&integrator=public")
                )
                == []
            )
    assert [each["consumer"] for each in callers.acme.get("/consumers").json["consumers"]] == ["ours"]
    listed = callers.admin.get("/consumers").json["consumers"]
    assert [(each["integrator"], each["consumer"]) for each in listed] == [(ACME, "ours"), (ZENITH, "ours")]
    letters = callers.admin.get("/dead-letters").json["dead_letters"]
    assert {(each["integrator"], each["execution_id"]) for each in letters} == set(runs.items())
    assert callers.admin.get("/executions?integrator=nobody").json["executions"] == []
    assert callers.admin.get("/executions?integrator=a/b").status_code == 400


def test_filters_and_log_lines_find_nothing_of_another(callers: Callers) -> None:
    run = callers.failed(callers.acme, key="k-1")
    retry = callers.acme.post(f"/executions/{run}/retry").json["execution_id"]
    for path in (f"/executions?retry_of={run}", "/executions?idempotency_key=k-1", f"/executions?request_id={run}"):
        assert callers.zenith.get(path).json["executions"] == [], path
    assert ids(callers.acme.get(f"/executions?retry_of={run}"), "executions") == [retry]
    for _ in range(2):
        lines = callers.zenith.get(f"/logs?execution_id={run}")
        assert (lines.status_code, lines.json["logs"]) == (200, [])
        assert callers.acme.get(f"/logs?execution_id={run}").json["logs"] != []
        callers.empty_redis()


def test_pages_of_an_admin_come_in_order_whatever_the_integrator(callers: Callers) -> None:
    runs = [(callers.acme, callers.zenith, callers.public)[number % 3].submit() for number in range(9)]
    pages: list[str] = []
    cursor = ""
    while cursor is not None:
        page = callers.admin.get(f"/executions?limit=4{cursor and '&cursor=' + cursor}")
        pages += ids(page, "executions")
        cursor = page.json["next_cursor"]
    assert pages == [run for _, run in sorted(((callers.load(run).created_at, run) for run in runs), reverse=True)]


def test_a_key_is_an_idempotency_key_of_its_integrator_alone(callers: Callers) -> None:
    first, second = callers.acme.submit(key="same"), callers.zenith.submit(key="same", tags=["another body"])
    assert first != second
    assert callers.acme.submit(key="same") == first
    reused = callers.zenith.post("/run-basket", {"basket_name": "working_test"}, Idempotency_Key="same")
    assert (reused.status_code, reused.json["used_by"]) == (422, second)
    body = {"items": [{"basket_name": "working_test"}]}
    batches = [caller.post("/run-basket/batch", body, Idempotency_Key="b") for caller in (callers.acme, callers.zenith)]
    assert len({reply.json["items"][0]["execution_id"] for reply in batches}) == 2


def test_a_retry_by_an_admin_belongs_to_the_integrator_of_the_run(callers: Callers) -> None:
    run = callers.failed(callers.acme)
    key = {"Idempotency_Key": "again"}
    retry = callers.admin.post(f"/executions/{run}/retry", **key)
    assert callers.load(retry.json["execution_id"]).integrator == ACME
    assert callers.admin.post(f"/executions/{run}/retry", **key).headers["Idempotency-Replayed"] == "true"
    assert callers.acme.get(retry.headers["Location"]).status_code == 200


def test_held_polls_are_woken_for_their_integrator_and_for_an_admin(callers: Callers) -> None:
    run = callers.acme.submit()
    hold = f"/executions/{run}?wait=20&until=done"
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(caller.get, hold) for caller in (callers.acme, callers.admin)]
        wait_until(lambda: callers.services.redis.pubsub_numsub("wakes")[0][1] > 0, what="a poll is held")
        while not callers.load(run).is_done:
            callers.finish(run)
        assert [reply.result(timeout=10).json["done"] for reply in held] == [True, True]
    assert callers.zenith.get(hold).status_code == 404


def test_a_wake_up_of_another_integrators_run_carries_nothing_to_a_waiter(callers: Callers) -> None:
    """A view that a wake-up carries is not looked up, so its topic must name the integrator."""
    run = callers.completed(callers.acme)
    assert qualified_id(ZENITH, run) != qualified_id(ACME, run) != run
    assert callers.services.redis.exists(view_key(ACME, run))
    assert not callers.services.redis.exists(view_key(ZENITH, run), view_key("public", run))


def test_a_view_of_an_earlier_release_counts_as_one_of_the_default_integrator(callers: Callers) -> None:
    run = callers.completed(callers.public)
    assert callers.services.redis.exists(f"execution:{run}"), "the key that earlier releases read and write"
    callers.services.database.collection("executions").delete_one({"_id": run})
    assert callers.public.get(f"/executions/{run}").status_code == 200
    for other in (callers.acme, callers.zenith):
        assert other.get(f"/executions/{run}").status_code == 404


def test_a_poll_of_another_integrators_run_costs_what_one_of_an_unknown_run_costs(callers: Callers) -> None:
    run = callers.completed(callers.acme)

    def commands(caller: ApiCaller, execution_id: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
        database = callers.services.database.collection("executions").database
        callers.services.redis.config_resetstat()
        database.command("profile", 2)
        caller.get(f"/executions/{execution_id}")
        database.command("profile", 0)
        profile = database["system.profile"]
        found = [
            (str(entry["op"]), str(entry["ns"]))
            for entry in profile.find({"ns": {"$regex": r"\.executions$"}}).sort("ts", 1)
        ]
        profile.drop()
        stats: Any = callers.services.redis.info("commandstats")
        return {name: stats[name]["calls"] for name in ("cmdstat_get",) if name in stats}, found

    theirs, unknown = commands(callers.zenith, run), commands(callers.zenith, UNKNOWN)
    for _ in range(5):  # a background thread may have read Redis between two of the calls
        if theirs == unknown:
            break
        theirs, unknown = commands(callers.zenith, run), commands(callers.zenith, UNKNOWN)
    assert theirs == unknown
    assert len(unknown[1]) == 3, "a read, and one in a causal session"
    assert commands(callers.acme, run) == (theirs[0], []), "its own costs one round trip to Redis"
