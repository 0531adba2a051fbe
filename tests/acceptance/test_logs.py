"""Log lines of all executions: filtered, paged without gaps or duplicates, and available after Redis lost its data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api.http import cursor_codec
from api.http.cursor_codec import CursorKind
from tests.acceptance.client import AGENTS, ApiClient
from tests.stack import Stack
from tests.tampered_cursors import tampered_variants

PATHS = ["/logs", "/agent-logs/echo"]
LONG_AGO = cursor_codec.encode_cursor(CursorKind.LOG_LINES, "1-0-0")


@pytest.fixture(scope="module")
def caller(make_stack: Callable[..., Stack]) -> ApiClient:
    """Return a client of a stack of its own, because Redis is flushed here."""
    return ApiClient(make_stack(BUCKET_AGENTS_DIR=str(AGENTS)))


def page(caller: ApiClient, path: str = "/logs", **query: Any) -> dict[str, Any]:
    response = caller.get(path, params={name: value for name, value in query.items() if value is not None})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert body["count"] == len(body["logs"]) <= int(query.get("limit", 100))
    return body


def line_ids(lines: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(line["execution_id"], line["seq"]) for line in lines]


def read_all_pages(caller: ApiClient, since: str | None, **query: Any) -> tuple[list[dict[str, Any]], str]:
    """Read from ``since`` until no more lines come; return the lines and the last ``next_since``."""
    lines: list[dict[str, Any]] = []
    for _ in range(500):
        body = page(caller, since=since, **query)
        since = body["next_since"]
        if not body["logs"]:
            assert since is not None
            return lines, since
        lines += body["logs"]
    raise AssertionError("the pages never end")


def test_reading_on_from_next_since_returns_every_line_once(caller: ApiClient) -> None:
    since = page(caller)["next_since"]  # nothing was ever logged: there is a cursor to read on from all the same
    runs = [caller.submit_basket("chained_test") for _ in range(5)]
    runs += [caller.submit_agent("chatty", lines=40), caller.submit_agent("sleeper", seconds=0.2)]
    expected = [(run, line["seq"]) for run in runs for line in caller.wait_done(run)["logs"]]
    for limit in (7, 1, 1000):
        lines, end = read_all_pages(caller, since, limit=limit)
        assert sorted(line_ids(lines)) == sorted(expected)
        next_run = caller.wait_done(caller.submit_basket())
        assert line_ids(page(caller, since=end)["logs"]) == [(next_run["execution_id"], n) for n in range(1, 6)]
        expected += [(next_run["execution_id"], line["seq"]) for line in next_run["logs"]]


def test_the_cursor_of_the_latest_lines_continues_with_newer_lines(caller: ApiClient) -> None:
    for limit in (1, 5, 1000):
        first = page(caller, limit=limit)
        assert page(caller, since=first["next_since"])["logs"] == []
        run = caller.wait_done(caller.submit_basket())
        assert line_ids(page(caller, since=first["next_since"])["logs"]) == [
            (run["execution_id"], n) for n in range(1, 6)
        ]


def test_lines_are_found_by_agent_level_and_execution(caller: ApiClient) -> None:
    run = caller.wait_done(caller.submit_basket("chained_test"))
    failed = caller.wait_done(caller.submit_agent("raiser", kind="ValueError"))
    mine = page(caller, execution_id=run["execution_id"])
    assert mine["logs"] == run["logs"]
    agent = page(caller, agent="goal_recommender", execution_id=run["execution_id"])
    assert {line["agent_name"] for line in agent["logs"]} == {"goal_recommender"}
    assert page(caller, "/agent-logs/goal_recommender", execution_id=run["execution_id"])["logs"] == agent["logs"]
    errors = page(caller, level="error")["logs"]
    assert {line["level"] for line in errors} == {"error"}
    assert line_ids(errors)[-2:] == [(failed["execution_id"], 3), (failed["execution_id"], 4)]
    assert page(caller, agent="nobody")["logs"] == []
    assert page(caller, execution_id="1763700000_89ce24ad1b2c3d4e")["logs"] == []
    assert page(caller, execution_id='{"$gt": ""}')["logs"] == []


def test_after_a_flush_of_redis_each_line_comes_once_from_mongodb(caller: ApiClient) -> None:
    old = caller.wait_done(caller.submit_basket("chained_test"))
    chatty = caller.wait_done(caller.submit_agent("chatty", lines=30))  # many lines in one millisecond
    last_seen = page(caller)["next_since"]
    caller.stack.redis().flushall()
    assert page(caller, execution_id=old["execution_id"])["logs"] == old["logs"]
    filters = {"execution_id": chatty["execution_id"]}
    assert line_ids(page(caller, **filters)["logs"]) == [(chatty["execution_id"], n) for n in range(1, 35)]
    assert len(set(line_ids(page(caller, limit=1000)["logs"]))) == page(caller, limit=1000)["count"] >= 42
    lines, _ = read_all_pages(caller, LONG_AGO, limit=7, **filters)
    assert line_ids(lines) == [(chatty["execution_id"], n) for n in range(1, 35)]
    assert page(caller, since=last_seen)["logs"] == []
    new = caller.wait_done(caller.submit_basket("chained_test"))
    everything, _ = read_all_pages(caller, LONG_AGO, limit=9)
    assert len(line_ids(everything)) == len(set(line_ids(everything)))
    expected = [(run["execution_id"], line["seq"]) for run in (old, chatty, new) for line in run["logs"]]
    assert set(expected) <= set(line_ids(everything))
    assert line_ids(read_all_pages(caller, last_seen, limit=3)[0]) == line_ids(new["logs"])


@pytest.mark.parametrize(
    "since",
    [
        "", "now", "1", "7-7-7", "a-b-c", "9" * 40, "1.1763700000_89ce24ad1b2c3d4e.2", "+", "$", "٣-0-0",
        cursor_codec.encode_cursor(CursorKind.FEED, "7-7-7"),
        *(
            cursor_codec.encode_cursor(CursorKind.LOG_LINES, text)
            for text in ("", "1-2", "a-b-c", "1-2-3-4", "-1-0-0", "1.x.2", "٣-0-0")
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", PATHS)
def test_a_made_up_cursor_is_400(caller: ApiClient, path: str, since: str) -> None:
    response = caller.get(path, params={"since": since})
    assert (response.status_code, response.json()["error_code"]) == (400, "cursor_invalid")
    assert "next_since" in response.json()["detail"]


@pytest.mark.parametrize("path", PATHS)
def test_a_changed_cursor_is_refused(caller: ApiClient, path: str) -> None:
    caller.wait_done(caller.submit_agent("echo"))
    from_redis = page(caller, path, limit=1)["next_since"]
    caller.stack.redis().flushall()
    from_mongodb = page(caller, path, since=LONG_AGO, limit=1)["next_since"]
    assert [
        cursor_codec.decode_cursor(CursorKind.LOG_LINES, since).count("-") for since in (from_redis, from_mongodb)
    ] == [2, 0]
    for since in (from_redis, from_mongodb):
        page(caller, path, since=since)
        for other in tampered_variants(since, "Aw_"):
            response = caller.get(path, params={"since": other})
            assert (response.status_code, response.json()["error_code"]) == (400, "cursor_invalid"), other


@pytest.mark.parametrize(("name", "value"), [("level", "loud"), ("level", ""), ("limit", "0"), ("limit", "1001")])
def test_an_invalid_level_or_limit_is_400(caller: ApiClient, name: str, value: str) -> None:
    response = caller.get("/logs", params={name: value})
    assert (response.status_code, response.json()["error_code"]) == (400, "validation_failed")
    assert response.json()["details"][0]["parameter"] == name


def test_the_log_of_an_unknown_agent_is_404(caller: ApiClient) -> None:
    response = caller.get("/agent-logs/cashflow_analyser")
    assert (response.status_code, response.json()["error_code"]) == (404, "agent_not_found")
    assert "cashflow_analyzer" in response.json()["detail"]
