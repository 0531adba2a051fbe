"""Polls that say what the caller has already: by ETag, by the last line, by the fields it wants."""

from __future__ import annotations

import http.client
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from shared.live.views import view_key
from tests.acceptance.client import Caller

LINES = 250  # more than a view bears, fewer than are kept
HINTS = {"poll_after_ms", "waiting_for"}
UNKNOWN = "1763700000_89ce24ad1b2c3d4e"


@pytest.fixture(scope="module")
def done(caller: Caller) -> dict[str, Any]:
    """The last poll of a run with a long log."""
    return caller.finished(caller.run_agent("chatty", lines=LINES))


def etag_of(polled: dict[str, Any]) -> str:
    return f'W/"{polled["execution_id"]}.{polled["rev"]}"'


@pytest.mark.parametrize("path", ["/execution-logs", "/executions", "/api/v1/execution-logs", "/api/v1/executions"])
def test_head_answers_as_get_without_the_body(caller: Caller, done: dict[str, Any], path: str) -> None:
    url = f"{path}/{done['execution_id']}"
    for headers, status in (({}, 200), ({"If-None-Match": etag_of(done)}, 304)):
        got, head = caller.get(url, headers=headers), caller.ask("HEAD", url, headers=headers)
        assert (got.status_code, head.status_code, head.content) == (status, status, b"")
        apart = {"Date", "X-Request-ID"}
        assert {name: told for name, told in head.headers.items() if name not in apart} == {
            name: told for name, told in got.headers.items() if name not in apart
        }


@pytest.mark.parametrize("path", ["/execution-logs", "/executions", "/api/v1/execution-logs", "/api/v1/executions"])
def test_every_poll_bears_the_servers_time(caller: Caller, done: dict[str, Any], path: str) -> None:
    url, known = f"{path}/{done['execution_id']}", {"If-None-Match": etag_of(done)}
    asked = [(url, {}, 200), (f"{url}?after=3&limit=2", {}, 200), (f"{url}?fields=status", {}, 200),
             (f"{url}?wait=5", {}, 200), (url, known, 304), (f"{url}?wait=5", known, 304),
             (f"{path}/{UNKNOWN}", {}, 404), (f"{path}/None", {}, 404)]  # fmt: skip
    for method in ("GET", "HEAD"):
        for target, headers, status in asked:
            before = datetime.now(UTC)
            answer = caller.ask(method, target, headers=headers)
            assert answer.status_code == status, (method, target)
            told = parsedate_to_datetime(answer.headers["Date"])
            # In whole seconds; this test and the server go by one clock, so that no load takes them apart.
            assert before - timedelta(seconds=5) < told < datetime.now(UTC) + timedelta(seconds=5)


def test_a_poll_is_private_and_looked_at_again_each_time(caller: Caller, done: dict[str, Any]) -> None:
    url = f"/execution-logs/{done['execution_id']}"
    for query, headers in (("", {}), ("?fields=status", {}), ("?after=3", {}), ("", {"If-None-Match": etag_of(done)})):
        answer = caller.get(url + query, headers=headers)
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["ETag"] == etag_of(done)
        assert "Retry-After" not in answer.headers, "a final run never moves again"
        if answer.status_code == 200:
            assert answer.headers["Content-Type"] == "application/json"
            assert int(answer.headers["Content-Length"]) == len(answer.content)


def test_a_poll_shows_nothing_of_before_what_its_caller_has_seen(caller: Caller) -> None:
    done = caller.finished(caller.run_agent("echo"))
    run, rev = done["execution_id"], done["rev"]
    redis = caller.stack.redis()
    shown = str(redis.get(view_key(run)))
    # As a worker leaves it that died between its write and the view of it.
    redis.set(view_key(run), shown.replace(f'"rev":{rev}', f'"rev":{rev - 1}'), ex=60)
    assert caller.poll(run)["rev"] == rev - 1, "whoever has seen nothing cannot know better"
    for query in ("", "?wait=5", "?fields=status", "?after=0"):
        for told in (f'W/"{run}.{rev}"', f'"x", "{run}.1", "{run}.{rev}"'):
            answer = caller.get(f"/execution-logs/{run}{query}", headers={"If-None-Match": told})
            assert answer.headers["ETag"] == etag_of(done)
            assert answer.status_code == (200 if query == "?after=0" else 304), query
    ahead = caller.get(f"/execution-logs/{run}", headers={"If-None-Match": f'W/"{run}.{10**15 - 1}"'})
    assert ahead.json() == done, "and nobody has seen what never was"


def test_several_if_none_match_headers_are_one_list(caller: Caller, done: dict[str, Any]) -> None:
    parts = urlsplit(caller.stack.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.putrequest("GET", f"/execution-logs/{done['execution_id']}")
    for told in ('"other"', etag_of(done), ',,"', "*"):
        connection.putheader("If-None-Match", told)
    connection.endheaders()
    assert connection.getresponse().status == 304
    connection.close()


def test_a_304_of_a_run_under_way_says_when_to_come_back(caller: Caller) -> None:
    later = caller.post("/run-basket", {"basket_name": "working_test", "run_after_s": 3600})
    url = later.json()["status_url"]
    etag = caller.get(url).headers["ETag"]
    for query in ("", "?fields=status", "?after=1"):
        answer = caller.get(url + query, headers={"If-None-Match": etag})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
        assert int(answer.headers["Retry-After"]) == 30
    assert caller.get(f"{url}?after=0", headers={"If-None-Match": etag}).status_code == 200, "a line lies beyond"
    caller.ask("POST", f"/executions/{later.json()['execution_id']}/cancel")


def test_fields_leave_out_the_rest(caller: Caller, done: dict[str, Any]) -> None:
    url = f"/executions/{done['execution_id']}"
    some = caller.get(f"{url}?fields=progress,result,total")
    names = ("execution_id", "status", "done", "rev", "progress", "result", "total")
    assert some.json() == {name: done[name] for name in names}
    assert some.headers["ETag"] == etag_of(done)
    lines = caller.get(f"{url}?fields=logs,next_after&after=3&limit=2").json()
    assert [line["seq"] for line in lines["logs"]] == [4, 5]
    assert (lines["next_after"], lines["gap"], "steps" in lines) == (5, False, False)


def test_a_reply_of_the_status_alone_is_small_whatever_the_names(caller: Caller) -> None:
    config = {"name": "n" * 100, "agents": ["echo"]}
    headers = {"X-Request-ID": "r" * 128}
    answer = caller.ask("POST", "/run-basket", json={"config": config, "tags": ["t" * 64] * 20}, headers=headers)
    run = answer.json()["execution_id"]
    for _ in ("under way, perhaps", caller.finished(run)):
        small = caller.get(f"/execution-logs/{run}?fields=status")
        assert len(small.content) < 400
        assert {*small.json()} == {"execution_id", "status", "done", "rev"}


@pytest.mark.parametrize("fields", ["", "status,", "nobody", "status,$where", "result.a", "STATUS"])
def test_a_field_that_is_none_is_400_and_the_known_ones_are_told(
    caller: Caller, done: dict[str, Any], fields: str
) -> None:
    answer = caller.get(f"/execution-logs/{done['execution_id']}", params={"fields": fields})
    problem = answer.json()
    assert (answer.status_code, problem["error_code"]) == (400, "validation_failed")
    assert problem["details"][0]["parameter"] == "fields"
    assert all(name in problem["detail"] for name in ("status", "next_after", "poll_after_ms"))


@pytest.mark.parametrize("name", ["fields", "after", "limit", "wait", "until"])
def test_a_parameter_that_stands_twice_is_refused(caller: Caller, done: dict[str, Any], name: str) -> None:
    good = {"fields": "status", "until": "done"}.get(name, "1")
    refused = caller.get(f"/executions/{done['execution_id']}?{name}={good}&{name}={good}")
    assert (refused.status_code, refused.json()["details"][0]["parameter"]) == (400, name)


def test_pages_come_from_redis_while_it_holds_their_lines_and_else_from_mongodb(caller: Caller) -> None:
    run = caller.finished(caller.run_agent("chatty", lines=LINES))
    executions = caller.stack.mongo().executions
    executions.update_one({"_id": run["execution_id"]}, {"$set": {"events.$[].message": "read in MongoDB"}})
    total = run["total"]
    newest = caller.poll(run["execution_id"], after=total - 100, limit=1_000)
    assert newest["logs"] == run["logs"]
    assert caller.poll(run["execution_id"], limit=5)["logs"] == run["logs"][-5:]
    for query in ({"after": total - 101}, {"after": 0, "limit": 7}, {"limit": 101}):
        assert {line["message"] for line in caller.poll(run["execution_id"], **query)["logs"]} == {"read in MongoDB"}


@pytest.mark.parametrize("limit", [1, 37, 100, 1_000])
def test_pages_from_any_start_put_together_are_the_whole_log(caller: Caller, done: dict[str, Any], limit: int) -> None:
    total = done["total"]
    for start in (0, 1, total - 101, total - 100, total - 1, total) if limit > 1 else (total - 12,):
        seen, after = [], start
        while (page := caller.poll(done["execution_id"], after=after, limit=limit))["count"]:
            assert (page["gap"], page["first_seq"], page["total"]) == (False, 1, total)
            seen += [line["seq"] for line in page["logs"]]
            after = page["next_after"]
        assert seen == list(range(start + 1, total + 1))


def test_a_gap_is_said_from_redis_and_from_mongodb_alike(caller: Caller) -> None:
    run = caller.finished(caller.run_agent("chatty", lines=1_100))
    dropped = run["logs_dropped"]
    assert dropped == 104
    for after, gap in ((0, True), (dropped - 1, True), (dropped, False), (run["total"] - 50, False)):
        page = caller.poll(run["execution_id"], after=after, limit=10)
        assert page["gap"] is gap
        assert page["logs"][0]["seq"] == max(after, dropped) + 1
    assert "gap" not in run, "who does not say what it has is not told of a gap"


def test_a_page_is_the_same_after_redis_has_forgotten_the_view(caller: Caller, done: dict[str, Any]) -> None:
    run = done["execution_id"]
    asked = ({"after": LINES}, {"after": 3, "limit": 4}, {"limit": 2}, {"fields": "logs", "after": LINES})
    before = [caller.poll(run, **query) for query in asked]
    redis = caller.stack.redis()
    for query, page in zip(asked, before, strict=True):
        assert redis.delete(view_key(run)) == 1
        assert caller.poll(run, **query) == page
