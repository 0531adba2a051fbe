"""Polls of one execution: its view while it runs and at its end, the same from Redis and from MongoDB."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.live.views import RenderedView, ViewCache, output_key, view_key
from tests.acceptance.client import AGENTS, ApiClient
from tests.stack import Stack
from tests.waiting import wait_until

HINTS = {"poll_after_ms", "waiting_for"}
LEASE_S = 3  # of tests/stack.py
MANY_REQUESTS = 24  # requests reach the processes of the API at random: all at one process is 1 in 8 million


@pytest.fixture(scope="module")
def caller(make_stack: Callable[..., Stack]) -> ApiClient:
    """Return a client of a stack of its own, because Redis is flushed and the worker stopped here."""
    return ApiClient(make_stack(BUCKET_AGENTS_DIR=str(AGENTS)))


@pytest.fixture(scope="module")
def final_view(caller: ApiClient) -> dict[str, Any]:
    """Return the last view of a chained run."""
    return caller.wait_done(caller.submit_basket("chained_test"))


def health(caller: ApiClient) -> dict[str, str]:
    services: dict[str, str] = caller.get("/health").json()["services"]
    return services


def without_hints(view: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in view.items() if name not in HINTS}


def test_a_chained_run_shows_its_steps_outputs_and_result(caller: ApiClient, final_view: dict[str, Any]) -> None:
    assert (final_view["status"], final_view["done"], final_view["error"]) == ("completed", True, None)
    assert final_view["outputs"] == {
        "cashflow_analyzer": {"analysis": {"total": 700, "positive": 1000, "negative": -300}},
        "goal_recommender": {"recommendations": ["Increase savings"]},
    }
    assert final_view["result"] == final_view["outputs"]["goal_recommender"]
    assert final_view["progress"] == {"percent": 100, "steps_total": 2, "steps_completed": 2, "message": None}
    assert final_view["current_step"] is None
    assert [(step["step"], step["status"], step["attempts"]) for step in final_view["steps"]] == [
        ("cashflow_analyzer", "completed", 1),
        ("goal_recommender", "completed", 1),
    ]
    assert all(step["duration_ms"] >= 0 for step in final_view["steps"])
    assert final_view["created_at"] == final_view["queued_at"] <= final_view["started_at"] <= final_view["finished_at"]


def test_the_log_of_a_run_covers_it_from_start_to_end(caller: ApiClient, final_view: dict[str, Any]) -> None:
    lines = final_view["logs"]
    assert [line["seq"] for line in lines] == list(range(1, 9))
    assert [line["event"] for line in lines if line["event"] != "agent.log"] == [
        "execution.accepted", "step.started", "step.completed", "step.started", "step.completed", "execution.completed",
    ]  # fmt: skip
    assert (
        final_view["count"],
        final_view["total"],
        final_view["next_after"],
        final_view["first_seq"],
        final_view["logs_dropped"],
    ) == (
        8,
        8,
        8,
        1,
        0,
    )
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    assert (lines[0]["agent_name"], lines[0]["step"]) == ("basket_manager", "initialization")
    assert {line["execution_id"] for line in lines} == {final_view["execution_id"]}


FAILURES = [
    ("raiser", "ValueError", "agent_error", "permanent"),
    ("raiser", "SystemExit", "agent_error", "permanent"),
    ("raiser", "KeyboardInterrupt", "agent_error", "permanent"),
    ("raiser", "MemoryError", "agent_error", "permanent"),
    ("raiser", "RecursionError", "agent_error", "permanent"),
    ("raiser", "PermanentError", "agent_error", "permanent"),
    ("returner", "nan", "output_not_serialisable", "permanent"),
    ("returner", "bigint", "output_not_serialisable", "permanent"),
    ("returner", "surrogate", "output_not_serialisable", "permanent"),
    ("returner", "nul_key", "output_not_serialisable", "permanent"),
    ("returner", "deep", "output_not_serialisable", "permanent"),
    ("returner", "not_object", "output_not_serialisable", "permanent"),
    ("returner", "error_key", "agent_error", "permanent"),
    ("returner", "too_large", "output_too_large", "permanent"),
    ("returner", "bad_schema", "output_invalid", "permanent"),
]


@pytest.mark.parametrize(("agent", "kind", "code", "sort"), FAILURES)
def test_a_failed_run_says_why_without_internals_of_the_server(
    caller: ApiClient, agent: str, kind: str, code: str, sort: str
) -> None:
    view = caller.wait_done(caller.submit_agent(agent, kind=kind))
    assert (view["status"], view["result"], view["outputs"]) == ("failed", None, {})
    message = view["error"].pop("message")
    assert view["error"] == {
        "error_code": code, "kind": sort, "agent": agent, "step": agent, "attempt": 1, "retryable": sort == "transient",
    }  # fmt: skip
    assert message
    response = caller.get(f"/execution-logs/{view['execution_id']}").text
    assert "Traceback" not in response
    assert ".py" not in response
    assert str(AGENTS.parents[1]) not in response


@pytest.mark.parametrize("path", ["/srv/app/agents/a.py", "'/etc/passwd'", "file:///etc/passwd", "(/usr/lib/python3)"])
def test_a_path_in_an_agents_error_does_not_leave_the_server(caller: ApiClient, path: str) -> None:
    view = caller.wait_done(caller.submit_agent("raiser", kind="ValueError", message=f"cannot open {path} of this run"))
    assert view["error"]["message"].startswith("ValueError: cannot open")
    assert "of this run" in view["error"]["message"]
    everything = caller.get(f"/execution-logs/{view['execution_id']}").text
    assert not any(part in everything for part in ("/srv/", "/etc/", "/usr/"))


def test_a_failed_chain_keeps_its_outputs_and_skips_the_rest(caller: ApiClient) -> None:
    config = {"agents": ["echo", "raiser", "echo"]}
    response = caller.post("/run-basket", {"config": config, "input_data": {"kind": "ValueError"}})
    view = caller.wait_done(response.json()["execution_id"])
    assert [(step["step"], step["status"]) for step in view["steps"]] == [
        ("echo", "completed"), ("raiser", "failed"), ("echo-2", "skipped"),
    ]  # fmt: skip
    assert view["outputs"] == {"echo": {"kind": "ValueError"}}
    output = caller.get(f"/executions/{view['execution_id']}/outputs/raiser")
    assert (output.status_code, output.json()["error_code"]) == (404, "not_found")
    assert "will have none: it is failed" in output.json()["detail"]


def test_a_running_step_shows_where_it_is(caller: ApiClient) -> None:
    run = caller.submit_agent("sleeper", seconds=60)
    wait_until(lambda: (caller.poll(run)["progress"]["percent"] or 0) > 0, 10, "progress")
    view = caller.poll(run)
    assert (view["status"], view["done"], view["result"]) == ("running", False, None)
    assert view["current_step"] == {"step": "sleeper", "agent": "sleeper", "attempt": 1}
    assert view["waiting_for"] is None
    assert view["progress"]["message"].endswith("s to go")
    output = caller.get(f"/executions/{run}/outputs/sleeper")
    assert (output.status_code, output.json()["error_code"]) == (404, "not_found")
    assert "no output yet: it is running; poll the run" in output.json()["detail"]
    caller.request("POST", f"/executions/{run}/cancel")
    assert caller.wait_done(run)["done"]
    assert caller.wait_done(caller.submit_agent("sleeper", seconds=0.1))["progress"]["percent"] == 100


def test_a_running_step_is_shown_as_running_before_its_first_report(caller: ApiClient) -> None:
    # The claim is written alone and reaches a majority a moment later: the first poll may come too early for it.
    shown_in_time: list[bool] = []

    def are_shown() -> bool:
        run = caller.submit_agent("sleeper", seconds=60)
        wait_until(lambda: caller.poll(run)["status"] != "queued", 5)
        seen_at = caller.stack.mongo().client.admin.command("hello")["localTime"].replace(tzinfo=UTC)
        view = caller.poll(run)
        assert view["status"] == "running"
        shown_in_time.append(seen_at - datetime.fromisoformat(view["started_at"]) < timedelta(seconds=0.9))
        caller.request("POST", f"/executions/{run}/cancel")
        caller.wait_done(run)
        return sum(shown_in_time) == 4

    wait_until(are_shown, 30, "four are shown as running before the report that each makes after a second")


def test_a_late_view_does_not_replace_a_newer_one(caller: ApiClient) -> None:
    newer = caller.wait_done(caller.submit_agent("echo", a=1))
    redis = caller.stack.redis()
    cached = redis.get(view_key(PUBLIC_INTEGRATOR, newer["execution_id"]))
    older = str(cached).replace(f'"rev":{newer["rev"]}', f'"rev":{newer["rev"] - 1}').replace("completed", "running")
    ViewCache(redis, live_ttl_s=1).put(
        redis,
        [RenderedView(PUBLIC_INTEGRATOR, newer["execution_id"], older.encode(), newer["rev"] - 1, is_final=False)],
    )
    assert redis.get(view_key(PUBLIC_INTEGRATOR, newer["execution_id"])) == cached
    assert caller.poll(newer["execution_id"]) == newer


def test_a_runs_revision_never_goes_back_and_its_end_never_changes(caller: ApiClient) -> None:
    run = caller.submit_agent("sleeper", seconds=60)  # it reports its progress each second
    states_by_watcher: list[list[tuple[int, str]]] = [[], [], []]

    def watch(states: list[tuple[int, str]]) -> None:
        while not states or states[-1][1] not in {"completed", "cancelled"}:
            view = caller.poll(run)
            states.append((view["rev"], view["status"]))

    with ThreadPoolExecutor(3) as pool:
        watches = [pool.submit(watch, states) for states in states_by_watcher]
        wait_until(
            lambda: all(len({rev for rev, _ in states}) >= 3 for states in states_by_watcher),
            15,
            "each has seen three revisions",
        )
        caller.request("POST", f"/executions/{run}/cancel")
        for watch_ended in watches:
            watch_ended.result(20)
    for states in states_by_watcher:
        assert states == sorted(states, key=lambda state: state[0])
        assert {status for _, status in states} <= {"queued", "running", "cancelling", "cancelled", "completed"}
    last = caller.get(f"/execution-logs/{run}").content
    assert [caller.get(f"/execution-logs/{run}").content for _ in range(5)] == [last] * 5


def test_an_unfinished_run_says_when_to_poll_again(caller: ApiClient) -> None:
    run = caller.submit_agent("sleeper", seconds=60)
    response = caller.get(f"/execution-logs/{run}")
    assert 250 <= response.json()["poll_after_ms"] <= 30_000
    assert int(response.headers["Retry-After"]) == max(1, -(-response.json()["poll_after_ms"] // 1_000))
    unchanged = caller.get(f"/execution-logs/{run}", headers={"If-None-Match": "*"})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert int(unchanged.headers["Retry-After"]) >= 1
    caller.request("POST", f"/executions/{run}/cancel")
    caller.wait_done(run)
    unchanged = caller.get(f"/execution-logs/{run}", headers={"If-None-Match": "*"})
    assert (unchanged.status_code, "Retry-After" in unchanged.headers) == (304, False)


def test_the_etag_of_the_submit_matches_until_the_run_changes(caller: ApiClient) -> None:
    accepted = caller.post("/run-agent", {"agent_name": "echo", "input_data": {}})
    caller.wait_done(accepted.json()["execution_id"])
    moved = caller.get(accepted.json()["status_url"], headers={"If-None-Match": accepted.headers["ETag"]})
    assert moved.status_code == 200
    again = caller.get(accepted.json()["status_url"], headers={"If-None-Match": moved.headers["ETag"]})
    assert (again.status_code, again.headers["ETag"]) == (304, moved.headers["ETag"])


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("{etag}", 304),
        ("{strong}", 304),
        ('"other", {etag}', 304),
        ('W/"a", W/"b",{etag} ,"c"', 304),
        ("*", 304),
        ('W/"other"', 200),
        ('"{id}.0"', 200),
        ("", 200),
        ('"', 200),
        ('W/"', 200),
        ("{id}", 200),
        (",,,", 200),
        ("\xff\xfe", 200),
        ('W/"' + "x" * 7_000, 200),
    ],
)
@pytest.mark.parametrize("after", ["", "?after=8"])
def test_if_none_match_is_weakly_compared_and_never_an_error(
    caller: ApiClient, final_view: dict[str, Any], header: str, status: int, after: str
) -> None:
    etag = f'W/"{final_view["execution_id"]}.{final_view["rev"]}"'
    if_none_match = header.format(etag=etag, strong=etag[2:], id=final_view["execution_id"])
    response = caller.get_raw(f"/execution-logs/{final_view['execution_id']}{after}", If_None_Match=if_none_match)
    assert response.status_code == status
    assert (len(response.content) > 0) is (status == 200)


def test_lines_after_the_last_seen_one_are_returned_whatever_the_etag(
    caller: ApiClient, final_view: dict[str, Any]
) -> None:
    if_none_match = {"If-None-Match": f'W/"{final_view["execution_id"]}.{final_view["rev"]}"'}
    responses = [
        caller.get(f"/execution-logs/{final_view['execution_id']}?after={after}", headers=if_none_match)
        for after in (0, 7, 8, 9)
    ]
    assert [response.status_code for response in responses] == [200, 200, 304, 304]


def test_pages_of_lines_are_dense(caller: ApiClient, final_view: dict[str, Any]) -> None:
    seqs, after = [], 0
    while (page := caller.poll(final_view["execution_id"], after=after, limit=3))["count"]:
        seqs += [line["seq"] for line in page["logs"]]
        after = page["next_after"]
    assert seqs == list(range(1, 9))
    assert (after, page["total"], page["next_after"]) == (8, 8, 8)
    latest = caller.poll(final_view["execution_id"], limit=2)
    assert ([line["seq"] for line in latest["logs"]], latest["next_after"]) == ([7, 8], 8)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "limit=1.0", "limit=+5", "limit=٣", "limit=1" + "0" * 30,
     "after=-1", "after=x", "after=", "after=1e3", "after=" + "9" * 30],
)  # fmt: skip
@pytest.mark.parametrize("path", ["execution-logs", "executions"])
def test_an_invalid_page_is_400(caller: ApiClient, final_view: dict[str, Any], path: str, query: str) -> None:
    response = caller.get(f"/{path}/{final_view['execution_id']}?{query}")
    assert (response.status_code, response.json()["error_code"]) == (400, "validation_failed")
    assert response.json()["details"][0]["parameter"] == query.partition("=")[0]


def test_a_chatty_agent_loses_its_oldest_lines_and_says_so(caller: ApiClient) -> None:
    view = caller.wait_done(caller.submit_agent("chatty", lines=1_200))
    total = view["total"]
    # Accepted, started, completed, and the end of the run; a report whose reply was lost is sent again with its lines.
    is_repeated = "the store did not reply to a heartbeat" in caller.stack.logs("worker")
    assert total == 1_200 + 4 or (is_repeated and total > 1_200 + 4)
    assert (view["first_seq"], view["logs_dropped"]) == (total - 999, total - 1_000)
    assert [line["seq"] for line in view["logs"]] == list(range(total - 99, total + 1))
    oldest = caller.poll(view["execution_id"], after=0, limit=1_000)
    assert [line["seq"] for line in oldest["logs"]] == list(range(total - 999, total + 1))
    assert caller.poll(view["execution_id"], after=total - 999, limit=1)["logs"][0]["seq"] == total - 998


def test_an_unknown_execution_is_404(caller: ApiClient) -> None:
    for unknown in ("1763700000_89ce24ad1b2c3d4e", "9999999999_ffffffffffffffff", "0000000000_0000000000000000", "x"):
        for path in (f"/execution-logs/{unknown}", f"/executions/{unknown}", f"/executions/{unknown}/outputs/echo"):
            response = caller.get(path)
            assert (response.status_code, response.json()["error_code"]) == (404, "execution_not_found")
            assert "not found" in response.json()["detail"]
    none = caller.get("/execution-logs/None").json()
    assert (none["status"], none["error_code"]) == (404, "execution_not_found")
    assert "the submit was refused" in none["detail"]


@pytest.mark.parametrize("step", ["nobody", "Echo", "a.b", "$where", "..%2f", "x" * 5_000, "%00"])
def test_an_output_of_an_unknown_step_is_404(caller: ApiClient, final_view: dict[str, Any], step: str) -> None:
    response = caller.get_raw(f"/executions/{final_view['execution_id']}/outputs/{step}")
    assert (response.status_code, response.json()["error_code"]) == (404, "not_found")
    assert len(response.json()["detail"]) < 300


def test_an_output_comes_from_redis_if_it_is_there_and_else_from_mongodb(caller: ApiClient) -> None:
    run = caller.wait_done(caller.submit_agent("echo", a=1))["execution_id"]
    path = f"/executions/{run}/outputs/echo"
    executions = caller.stack.mongo().executions
    executions.update_one({"_id": run}, {"$unset": {"outputs.echo": ""}})
    assert caller.get(path).json() == {"a": 1}
    executions.update_one({"_id": run}, {"$set": {"outputs.echo": b'{"a":2}'}})
    assert caller.stack.redis().delete(output_key(PUBLIC_INTEGRATOR, run, "echo")) == 1
    assert caller.get(path).json() == {"a": 2}


@pytest.mark.parametrize(("size", "is_shown"), [(200_000, True), (300_000, False), (2_000_000, False)])
def test_a_large_output_is_omitted_and_the_result_is_complete(caller: ApiClient, size: int, is_shown: bool) -> None:
    view = caller.wait_done(caller.submit_agent("big", bytes=size))
    run, result = view["execution_id"], {"text": "x" * size}
    url = f"/executions/{run}/outputs/big"
    assert view["result"] == result
    assert view["outputs"]["big"] == (result if is_shown else {"omitted": True, "bytes": size + 11, "url": url})
    assert caller.get(url).json() == result
    caller.stack.redis().delete(output_key(PUBLIC_INTEGRATOR, run, "big"), view_key(PUBLIC_INTEGRATOR, run))
    assert caller.get(url).json() == result
    assert without_hints(caller.poll(run)) == without_hints(view)


def test_the_end_of_a_run_with_a_large_result_is_visible_at_once(caller: ApiClient) -> None:
    # Once, the view of before the end stayed in Redis and was served for half a lease.
    database = caller.stack.mongo()

    def late_s() -> float:
        run = caller.wait_done(caller.submit_agent("big", bytes=2_000_000))["execution_id"]
        seen_at = database.client.admin.command("hello")["localTime"]
        finished_at = database.executions.find_one({"_id": run})["finished_at"]  # type: ignore[index]
        return float((seen_at - finished_at).total_seconds())

    # Then each was late by the rest of that time; a busy machine makes only one of them late.
    wait_until(lambda: late_s() < 0.8, 10, "the end of one is visible at once")


def test_an_output_over_4_mib_fails_the_run(caller: ApiClient) -> None:
    view = caller.wait_done(caller.submit_agent("big", bytes=4 * 1024 * 1024))
    assert (view["status"], view["error"]["error_code"]) == ("failed", "output_too_large")


def test_redis_keeps_a_final_view_a_day_an_output_an_hour_and_a_live_view_half_a_lease(caller: ApiClient) -> None:
    redis = caller.stack.redis()
    live = caller.submit_agent("sleeper", seconds=60)
    wait_until(lambda: caller.poll(live)["status"] == "running", 5)
    wait_until(
        lambda: redis.pttl(view_key(PUBLIC_INTEGRATOR, live)) > 0,
        5,
        "a view is there; one that is not renewed expires soon",
    )
    assert redis.pttl(view_key(PUBLIC_INTEGRATOR, live)) <= LEASE_S * 1_000 / 2
    caller.request("POST", f"/executions/{live}/cancel")
    final = caller.wait_done(caller.submit_agent("echo", a=1))["execution_id"]
    assert 24 * 3600 - 60 < redis.ttl(view_key(PUBLIC_INTEGRATOR, final)) <= 24 * 3600
    assert 3600 - 60 < redis.ttl(output_key(PUBLIC_INTEGRATOR, final, "echo")) <= 3600
    caller.stack.redis().delete(view_key(PUBLIC_INTEGRATOR, final))
    caller.poll(final)
    assert 24 * 3600 - 60 < redis.ttl(view_key(PUBLIC_INTEGRATOR, final)) <= 24 * 3600


def test_polls_are_the_same_after_a_flush_of_redis(caller: ApiClient, final_view: dict[str, Any]) -> None:
    failed = caller.wait_done(caller.submit_agent("raiser", kind="ValueError"))
    chatty = caller.wait_done(caller.submit_agent("chatty", lines=150))
    caller.stack.redis().flushall()
    for before in (final_view, failed, chatty):
        assert caller.poll(before["execution_id"]) == before
        assert caller.poll(before["execution_id"]) == before  # once more from Redis, which the first poll filled
    output = f"/executions/{final_view['execution_id']}/outputs/cashflow_analyzer"
    assert caller.get(output).json() == final_view["outputs"]["cashflow_analyzer"]


def test_a_run_without_a_worker_says_so_and_completes_when_one_starts(caller: ApiClient) -> None:
    caller.stack.stop("worker")
    try:
        run = caller.submit_basket()
        # Each process of the API checks for itself, and either may serve the request.
        wait_until(
            lambda: all(health(caller)["workers"] == "disconnected" for _ in range(MANY_REQUESTS)),
            10,
            "all have noticed",
        )
        view = caller.poll(run)
        assert (view["status"], view["current_step"], view["started_at"]) == ("queued", None, None)
        assert view["waiting_for"] == {"reason": "no_worker", "position": None, "eta_ms": None}
        assert caller.get("/health").json()["status"] == "degraded"
        assert caller.get("/ready").status_code == 200
    finally:
        caller.stack.start("worker")
    assert caller.wait_done(run)["status"] == "completed"
