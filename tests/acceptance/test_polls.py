"""Polling one execution: what it shows while it runs and at its end, from Redis or from MongoDB alike."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.live.views import RenderedView, ViewCache, output_key, view_key
from tests.acceptance.client import AGENTS, Caller
from tests.stack import Stack
from tests.waiting import wait_until

HINTS = {"poll_after_ms", "waiting_for"}
LEASE_S = 3  # of tests/stack.py
LOOKS = 24  # requests are spread over the processes of the API by chance: all at one is 1 in 8 million


@pytest.fixture(scope="module")
def caller(make_stack: Callable[..., Stack]) -> Caller:
    """An integrator of a stack of our own: here Redis forgets and the worker stops."""
    return Caller(make_stack(BUCKET_AGENTS_DIR=str(AGENTS)))


@pytest.fixture(scope="module")
def done(caller: Caller) -> dict[str, Any]:
    """The last poll of a chained run."""
    return caller.finished(caller.run("chained_test"))


def health(caller: Caller) -> dict[str, str]:
    services: dict[str, str] = caller.get("/health").json()["services"]
    return services


def without_hints(polled: dict[str, Any]) -> dict[str, Any]:
    return {name: told for name, told in polled.items() if name not in HINTS}


def test_a_chained_run_shows_its_steps_outputs_and_result(caller: Caller, done: dict[str, Any]) -> None:
    assert (done["status"], done["done"], done["error"]) == ("completed", True, None)
    assert done["outputs"] == {
        "cashflow_analyzer": {"analysis": {"total": 700, "positive": 1000, "negative": -300}},
        "goal_recommender": {"recommendations": ["Increase savings"]},
    }
    assert done["result"] == done["outputs"]["goal_recommender"]
    assert done["progress"] == {"percent": 100, "steps_total": 2, "steps_completed": 2, "message": None}
    assert done["current_step"] is None
    assert [(step["step"], step["status"], step["attempts"]) for step in done["steps"]] == [
        ("cashflow_analyzer", "completed", 1),
        ("goal_recommender", "completed", 1),
    ]
    assert all(step["duration_ms"] >= 0 for step in done["steps"])
    assert done["created_at"] == done["queued_at"] <= done["started_at"] <= done["finished_at"]


def test_a_runs_log_tells_it_from_beginning_to_end(caller: Caller, done: dict[str, Any]) -> None:
    lines = done["logs"]
    assert [line["seq"] for line in lines] == list(range(1, 9))
    assert [line["event"] for line in lines if line["event"] != "agent.log"] == [
        "execution.accepted", "step.started", "step.completed", "step.started", "step.completed", "execution.completed",
    ]  # fmt: skip
    assert (done["count"], done["total"], done["next_after"], done["first_seq"], done["logs_dropped"]) == (
        8,
        8,
        8,
        1,
        0,
    )
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    assert (lines[0]["agent_name"], lines[0]["step"]) == ("basket_manager", "initialization")
    assert {line["execution_id"] for line in lines} == {done["execution_id"]}


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
def test_a_failed_run_says_why_and_shows_nothing_of_the_server(
    caller: Caller, agent: str, kind: str, code: str, sort: str
) -> None:
    polled = caller.finished(caller.run_agent(agent, kind=kind))
    assert (polled["status"], polled["result"], polled["outputs"]) == ("failed", None, {})
    message = polled["error"].pop("message")
    assert polled["error"] == {
        "error_code": code, "kind": sort, "agent": agent, "step": agent, "attempt": 1, "retryable": sort == "transient",
    }  # fmt: skip
    assert message
    answer = caller.get(f"/execution-logs/{polled['execution_id']}").text
    assert "Traceback" not in answer
    assert ".py" not in answer
    assert str(AGENTS.parents[1]) not in answer


@pytest.mark.parametrize("told", ["/srv/app/agents/a.py", "'/etc/passwd'", "file:///etc/passwd", "(/usr/lib/python3)"])
def test_a_path_in_an_agents_error_does_not_leave_the_server(caller: Caller, told: str) -> None:
    polled = caller.finished(caller.run_agent("raiser", kind="ValueError", message=f"cannot open {told} of this run"))
    assert polled["error"]["message"].startswith("ValueError: cannot open")
    assert "of this run" in polled["error"]["message"]
    everything = caller.get(f"/execution-logs/{polled['execution_id']}").text
    assert not any(part in everything for part in ("/srv/", "/etc/", "/usr/"))


def test_a_chain_that_breaks_keeps_what_it_had_and_skips_the_rest(caller: Caller) -> None:
    config = {"agents": ["echo", "raiser", "echo"]}
    answer = caller.post("/run-basket", {"config": config, "input_data": {"kind": "ValueError"}})
    polled = caller.finished(answer.json()["execution_id"])
    assert [(step["step"], step["status"]) for step in polled["steps"]] == [
        ("echo", "completed"), ("raiser", "failed"), ("echo-2", "skipped"),
    ]  # fmt: skip
    assert polled["outputs"] == {"echo": {"kind": "ValueError"}}
    output = caller.get(f"/executions/{polled['execution_id']}/outputs/raiser")
    assert (output.status_code, output.json()["error_code"]) == (404, "not_found")
    assert "will have none: it is failed" in output.json()["detail"]


def test_a_running_step_shows_where_it_is(caller: Caller) -> None:
    run = caller.run_agent("sleeper", seconds=60)
    wait_until(lambda: (caller.poll(run)["progress"]["percent"] or 0) > 0, 10, "progress")
    polled = caller.poll(run)
    assert (polled["status"], polled["done"], polled["result"]) == ("running", False, None)
    assert polled["current_step"] == {"step": "sleeper", "agent": "sleeper", "attempt": 1}
    assert polled["waiting_for"] is None
    assert polled["progress"]["message"].endswith("s to go")
    output = caller.get(f"/executions/{run}/outputs/sleeper")
    assert (output.status_code, output.json()["error_code"]) == (404, "not_found")
    assert "no output yet: it is running; poll the run" in output.json()["detail"]
    caller.ask("POST", f"/executions/{run}/cancel")
    assert caller.finished(run)["done"]
    assert caller.finished(caller.run_agent("sleeper", seconds=0.1))["progress"]["percent"] == 100


def test_a_step_under_way_is_not_shown_as_queued_until_its_first_report(caller: Caller) -> None:
    # The claim is written alone and is a majority's only a moment later: the first look may come too early for it.
    soon: list[bool] = []

    def are_shown() -> bool:
        run = caller.run_agent("sleeper", seconds=60)
        wait_until(lambda: caller.poll(run)["status"] != "queued", 5)
        seen_at = caller.stack.mongo().client.admin.command("hello")["localTime"].replace(tzinfo=UTC)
        polled = caller.poll(run)
        assert polled["status"] == "running"
        soon.append(seen_at - datetime.fromisoformat(polled["started_at"]) < timedelta(seconds=0.9))
        caller.ask("POST", f"/executions/{run}/cancel")
        caller.finished(run)
        return sum(soon) == 4

    wait_until(are_shown, 30, "four are shown before the report that each makes after a second")


def test_a_view_that_comes_late_does_not_replace_a_newer_one(caller: Caller) -> None:
    newer = caller.finished(caller.run_agent("echo", a=1))
    redis = caller.stack.redis()
    shown = redis.get(view_key(newer["execution_id"]))
    older = str(shown).replace(f'"rev":{newer["rev"]}', f'"rev":{newer["rev"] - 1}').replace("completed", "running")
    ViewCache(redis, live_s=1).put(
        redis, [RenderedView(newer["execution_id"], older.encode(), newer["rev"] - 1, is_final=False)]
    )
    assert redis.get(view_key(newer["execution_id"])) == shown
    assert caller.poll(newer["execution_id"]) == newer


def test_a_runs_revision_never_goes_back_and_its_end_never_changes(caller: Caller) -> None:
    run = caller.run_agent("sleeper", seconds=60)  # which tells of its progress each second
    watched: list[list[tuple[int, str]]] = [[], [], []]

    def watch(seen: list[tuple[int, str]]) -> None:
        while not seen or seen[-1][1] not in {"completed", "cancelled"}:
            polled = caller.poll(run)
            seen.append((polled["rev"], polled["status"]))

    with ThreadPoolExecutor(3) as pool:
        watches = [pool.submit(watch, seen) for seen in watched]
        wait_until(lambda: all(len({rev for rev, _ in seen}) >= 3 for seen in watched), 15, "each has seen it move")
        caller.ask("POST", f"/executions/{run}/cancel")
        for watch_ended in watches:
            watch_ended.result(20)
    for seen in watched:
        assert seen == sorted(seen, key=lambda each: each[0])
        assert {status for _, status in seen} <= {"queued", "running", "cancelling", "cancelled", "completed"}
    last = caller.get(f"/execution-logs/{run}").content
    assert [caller.get(f"/execution-logs/{run}").content for _ in range(5)] == [last] * 5


def test_a_run_under_way_says_when_to_poll_again(caller: Caller) -> None:
    run = caller.run_agent("sleeper", seconds=60)
    answer = caller.get(f"/execution-logs/{run}")
    assert 250 <= answer.json()["poll_after_ms"] <= 30_000
    assert int(answer.headers["Retry-After"]) == max(1, -(-answer.json()["poll_after_ms"] // 1_000))
    unchanged = caller.get(f"/execution-logs/{run}", headers={"If-None-Match": "*"})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert int(unchanged.headers["Retry-After"]) >= 1
    caller.ask("POST", f"/executions/{run}/cancel")
    caller.finished(run)
    unchanged = caller.get(f"/execution-logs/{run}", headers={"If-None-Match": "*"})
    assert (unchanged.status_code, "Retry-After" in unchanged.headers) == (304, False)


def test_an_etag_from_the_submit_is_known_until_the_run_moves(caller: Caller) -> None:
    accepted = caller.post("/run-agent", {"agent_name": "echo", "input_data": {}})
    caller.finished(accepted.json()["execution_id"])
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
    caller: Caller, done: dict[str, Any], header: str, status: int, after: str
) -> None:
    etag = f'W/"{done["execution_id"]}.{done["rev"]}"'
    asked = header.format(etag=etag, strong=etag[2:], id=done["execution_id"])
    answer = caller.as_is(f"/execution-logs/{done['execution_id']}{after}", If_None_Match=asked)
    assert answer.status_code == status
    assert (len(answer.content) > 0) is (status == 200)


def test_lines_beyond_after_are_answered_whatever_the_etag(caller: Caller, done: dict[str, Any]) -> None:
    known = {"If-None-Match": f'W/"{done["execution_id"]}.{done["rev"]}"'}
    answers = [
        caller.get(f"/execution-logs/{done['execution_id']}?after={after}", headers=known) for after in (0, 7, 8, 9)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 304, 304]


def test_pages_of_lines_are_dense(caller: Caller, done: dict[str, Any]) -> None:
    seen, after = [], 0
    while (page := caller.poll(done["execution_id"], after=after, limit=3))["count"]:
        seen += [line["seq"] for line in page["logs"]]
        after = page["next_after"]
    assert seen == list(range(1, 9))
    assert (after, page["total"], page["next_after"]) == (8, 8, 8)
    latest = caller.poll(done["execution_id"], limit=2)
    assert ([line["seq"] for line in latest["logs"]], latest["next_after"]) == ([7, 8], 8)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "limit=1.0", "limit=+5", "limit=٣", "limit=1" + "0" * 30,
     "after=-1", "after=x", "after=", "after=1e3", "after=" + "9" * 30],
)  # fmt: skip
@pytest.mark.parametrize("path", ["execution-logs", "executions"])
def test_a_page_that_is_none_is_400(caller: Caller, done: dict[str, Any], path: str, query: str) -> None:
    answer = caller.get(f"/{path}/{done['execution_id']}?{query}")
    assert (answer.status_code, answer.json()["error_code"]) == (400, "validation_failed")
    assert answer.json()["details"][0]["parameter"] == query.partition("=")[0]


def test_a_chatty_agent_loses_its_oldest_lines_and_says_so(caller: Caller) -> None:
    polled = caller.finished(caller.run_agent("chatty", lines=1_200))
    total = polled["total"]
    assert total == 1_200 + 4  # accepted, started, completed, and the run's end
    assert (polled["first_seq"], polled["logs_dropped"]) == (total - 999, total - 1_000)
    assert [line["seq"] for line in polled["logs"]] == list(range(total - 99, total + 1))
    oldest = caller.poll(polled["execution_id"], after=0, limit=1_000)
    assert [line["seq"] for line in oldest["logs"]] == list(range(total - 999, total + 1))
    assert caller.poll(polled["execution_id"], after=total - 999, limit=1)["logs"][0]["seq"] == total - 998


def test_an_execution_that_nobody_has_is_404(caller: Caller) -> None:
    for unknown in ("1763700000_89ce24ad1b2c3d4e", "9999999999_ffffffffffffffff", "0000000000_0000000000000000", "x"):
        for path in (f"/execution-logs/{unknown}", f"/executions/{unknown}", f"/executions/{unknown}/outputs/echo"):
            answer = caller.get(path)
            assert (answer.status_code, answer.json()["error_code"]) == (404, "execution_not_found")
            assert "not found" in answer.json()["detail"]
    none = caller.get("/execution-logs/None").json()
    assert (none["status"], none["error_code"]) == (404, "execution_not_found")
    assert "the submit was refused" in none["detail"]


@pytest.mark.parametrize("step", ["nobody", "Echo", "a.b", "$where", "..%2f", "x" * 5_000, "%00"])
def test_an_output_of_a_step_that_is_not_there_is_404(caller: Caller, done: dict[str, Any], step: str) -> None:
    answer = caller.as_is(f"/executions/{done['execution_id']}/outputs/{step}")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "not_found")
    assert len(answer.json()["detail"]) < 300


def test_an_output_comes_from_redis_while_it_is_there_and_else_from_mongodb(caller: Caller) -> None:
    run = caller.finished(caller.run_agent("echo", a=1))["execution_id"]
    path = f"/executions/{run}/outputs/echo"
    executions = caller.stack.mongo().executions
    executions.update_one({"_id": run}, {"$unset": {"outputs.echo": ""}})
    assert caller.get(path).json() == {"a": 1}
    executions.update_one({"_id": run}, {"$set": {"outputs.echo": b'{"a":2}'}})
    assert caller.stack.redis().delete(output_key(run, "echo")) == 1
    assert caller.get(path).json() == {"a": 2}


@pytest.mark.parametrize(("size", "is_shown"), [(200_000, True), (300_000, False), (2_000_000, False)])
def test_a_large_output_is_left_out_and_the_result_is_whole(caller: Caller, size: int, is_shown: bool) -> None:
    polled = caller.finished(caller.run_agent("big", bytes=size))
    run, result = polled["execution_id"], {"text": "x" * size}
    url = f"/executions/{run}/outputs/big"
    assert polled["result"] == result
    assert polled["outputs"]["big"] == (result if is_shown else {"omitted": True, "bytes": size + 11, "url": url})
    assert caller.get(url).json() == result
    caller.stack.redis().delete(output_key(run, "big"), view_key(run))
    assert caller.get(url).json() == result
    assert without_hints(caller.poll(run)) == without_hints(polled)


def test_the_end_of_a_run_with_a_large_result_is_seen_at_once(caller: Caller) -> None:
    # Its view was once left as it stood before the end, and believed for half a lease.
    database = caller.stack.mongo()

    def late_s() -> float:
        run = caller.finished(caller.run_agent("big", bytes=2_000_000))["execution_id"]
        seen_at = database.client.admin.command("hello")["localTime"]
        finished_at = database.executions.find_one({"_id": run})["finished_at"]  # type: ignore[index]
        return float((seen_at - finished_at).total_seconds())

    # Each was late then, by what was left of that; a machine that stands still makes one of them late.
    wait_until(lambda: late_s() < 0.8, 10, "the end of one is seen at once")


def test_an_output_over_4_mib_fails_the_run(caller: Caller) -> None:
    polled = caller.finished(caller.run_agent("big", bytes=4 * 1024 * 1024))
    assert (polled["status"], polled["error"]["error_code"]) == ("failed", "output_too_large")


def test_redis_keeps_a_final_view_a_day_an_output_an_hour_and_a_live_view_half_a_lease(caller: Caller) -> None:
    redis = caller.stack.redis()
    live = caller.run_agent("sleeper", seconds=60)
    wait_until(lambda: caller.poll(live)["status"] == "running", 5)
    wait_until(
        lambda: redis.pttl(view_key(live)) > 0, 5, "a view is there, which one that nobody renews is not for long"
    )
    assert redis.pttl(view_key(live)) <= LEASE_S * 1_000 / 2
    caller.ask("POST", f"/executions/{live}/cancel")
    final = caller.finished(caller.run_agent("echo", a=1))["execution_id"]
    assert 24 * 3600 - 60 < redis.ttl(view_key(final)) <= 24 * 3600
    assert 3600 - 60 < redis.ttl(output_key(final, "echo")) <= 3600
    caller.stack.redis().delete(view_key(final))
    caller.poll(final)
    assert 24 * 3600 - 60 < redis.ttl(view_key(final)) <= 24 * 3600


def test_a_run_is_polled_alike_after_redis_has_forgotten_everything(caller: Caller, done: dict[str, Any]) -> None:
    failed = caller.finished(caller.run_agent("raiser", kind="ValueError"))
    chatty = caller.finished(caller.run_agent("chatty", lines=150))
    caller.stack.redis().flushall()
    for before in (done, failed, chatty):
        assert caller.poll(before["execution_id"]) == before
        assert caller.poll(before["execution_id"]) == before  # and once more from Redis, which the first poll filled
    output = f"/executions/{done['execution_id']}/outputs/cashflow_analyzer"
    assert caller.get(output).json() == done["outputs"]["cashflow_analyzer"]


def test_a_run_that_no_worker_takes_says_so_and_is_done_when_one_comes(caller: Caller) -> None:
    caller.stack.stop("worker")
    try:
        run = caller.run()
        # Each process of the API looks for itself, and either answers.
        wait_until(lambda: all(health(caller)["workers"] == "disconnected" for _ in range(LOOKS)), 10, "all know")
        polled = caller.poll(run)
        assert (polled["status"], polled["current_step"], polled["started_at"]) == ("queued", None, None)
        assert polled["waiting_for"] == {"reason": "no_worker", "position": None, "eta_ms": None}
        assert caller.get("/health").json()["status"] == "degraded"
        assert caller.get("/ready").status_code == 200
    finally:
        caller.stack.start("worker")
    assert caller.finished(run)["status"] == "completed"
