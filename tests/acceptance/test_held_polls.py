"""Polls that wait for a change, and submits that wait for the end: still one question and one answer."""

from __future__ import annotations

import json
import math
import select
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from shared.live.pubsub import WAKEUP_CHANNEL
from tests.acceptance.client import Caller
from tests.step_gate import gate
from tests.waiting import wait_until

# Longer than a request may take here: whoever waits for it to be over fails.
LONG_S = 25


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(48) as callers:
        yield callers


@pytest.fixture
def later(caller: Caller) -> Iterator[str]:
    """A run that does not begin and does not move while a test looks on."""
    answer = caller.post("/run-basket", {"basket_name": "working_test", "run_after_s": 3600})
    run = str(answer.json()["execution_id"])
    yield run
    cancel(caller, run)


@pytest.fixture(scope="module")
def done(caller: Caller) -> dict[str, Any]:
    return caller.finished(caller.run_agent("echo", a=1))


def cancel(caller: Caller, run: str) -> None:
    assert caller.ask("POST", f"/executions/{run}/cancel").status_code in {200, 202}


def etag_of(polled: dict[str, Any]) -> str:
    return f'W/"{polled["execution_id"]}.{polled["rev"]}"'


def held(callers: ThreadPoolExecutor, caller: Caller, path: str, **headers: str) -> Future[requests.Response]:
    """Begin a poll that is held, and wait until it listens."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    future = callers.submit(caller.get, path, headers=told)
    redis = caller.stack.redis()
    wait_until(lambda: dict(redis.pubsub_numsub(WAKEUP_CHANNEL))[WAKEUP_CHANNEL] > 0, 5, "it listens")
    time.sleep(0.1)  # should it not have been registered yet, it looks afterwards all the same
    assert not future.done()
    return future


def sent(caller: Caller, path: str, body: dict[str, Any], **headers: str) -> socket.socket:
    """Send a request and read no answer; the connection is broken, and not closed in order, when it is closed."""
    parts, payload = urlsplit(caller.stack.url), json.dumps(body).encode()
    told = {"Host": parts.netloc, "Content-Type": "application/json", "Content-Length": str(len(payload))} | headers
    head = [f"POST {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in told.items()), "", ""]
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sendall("\r\n".join(head).encode() + payload)
    return connection


def answered(connections: list[socket.socket]) -> int:
    """How many of the connections have something to be read."""
    return len(select.select(connections, [], [], 0)[0])


def test_a_poll_is_held_until_its_run_moves(caller: Caller, callers: ThreadPoolExecutor, later: str) -> None:
    now = caller.poll(later)
    without = held(callers, caller, f"/execution-logs/{later}?wait={LONG_S}")
    with_etag = held(callers, caller, f"/api/v1/executions/{later}?wait={LONG_S}", If_None_Match=etag_of(now))
    cancel(caller, later)
    for answer in (without.result(), with_etag.result()):
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert answer.json()["rev"] > now["rev"]
        assert "Preference-Applied" not in answer.headers


def test_an_etag_of_another_revision_is_answered_at_once(caller: Caller, later: str) -> None:
    known = {"If-None-Match": f'W/"{later}.0", "other"'}
    assert caller.get(f"/execution-logs/{later}?wait={LONG_S}", headers=known).status_code == 200


@pytest.mark.parametrize("until", ["", "&until=done"])
def test_at_the_end_of_the_time_it_is_a_poll_as_any_other(
    caller: Caller, callers: ThreadPoolExecutor, later: str, until: str
) -> None:
    now = caller.get(f"/execution-logs/{later}")
    known = {"If-None-Match": now.headers["ETag"]}
    asked = [
        ("", {}, 200),
        ("", known, 304),
        ("&after=1", known, 304),
        ("", {"If-None-Match": "*"}, 304),
    ]
    if until:
        asked.append(("", {"If-None-Match": '"other"'}, 200))
    url = f"/execution-logs/{later}?wait=0.3{until}"
    began = time.monotonic()
    answers = [callers.submit(caller.get, url + query, headers=headers) for query, headers, _ in asked]
    for future, (query, headers, status) in zip(answers, asked, strict=True):
        answer = future.result()
        assert time.monotonic() - began >= 0.3
        assert (answer.status_code, answer.headers["ETag"]) == (status, now.headers["ETag"]), (query, headers)
        assert int(answer.headers["Retry-After"]) >= 1


def test_until_done_holds_through_every_change_but_the_end(caller: Caller) -> None:
    run = caller.run_agent("sleeper", seconds=0.7)
    answer = caller.get(f"/execution-logs/{run}?wait={LONG_S}&until=done", headers={"If-None-Match": f'"{run}.1"'})
    assert (answer.json()["status"], answer.json()["done"]) == ("completed", True)
    assert answer.json() == caller.poll(run)


@pytest.mark.parametrize("query", ["", "&until=done", "&after=1", "&fields=status"])
def test_a_final_run_is_answered_at_once(caller: Caller, done: dict[str, Any], query: str) -> None:
    url = f"/execution-logs/{done['execution_id']}?wait={LONG_S}{query}"
    assert caller.get(url).status_code == 200
    known = caller.get(url, headers={"If-None-Match": etag_of(done)})
    assert known.status_code == (200 if "after" in query else 304)


def test_an_unknown_run_and_a_wrong_question_are_answered_at_once(caller: Caller, later: str) -> None:
    assert caller.get(f"/execution-logs/1763700000_89ce24ad1b2c3d4e?wait={LONG_S}").status_code == 404
    for query in ("wait=x", "wait=", "wait=-1", "wait=nan", "until=Done", f"wait={LONG_S}&until=change",
                  f"wait={LONG_S}&fields=x", f"wait={LONG_S}&after=x"):  # fmt: skip
        answer = caller.get(f"/executions/{later}?{query}", headers={"Prefer": f"wait={LONG_S}"})
        assert (answer.status_code, answer.json()["error_code"]) == (400, "validation_failed"), query


@pytest.mark.parametrize(
    "header", ["wait=x", "wait", "respond-async", '"', "\xff", ";;;" * 2_000, 'wait="5', "wait=-5"]
)
def test_a_malformed_preference_is_ignored(caller: Caller, later: str, header: str) -> None:
    answer = caller.as_is(f"/execution-logs/{later}", Prefer=header)
    assert (answer.status_code, "Preference-Applied" in answer.headers) == (200, False)


def test_a_preference_that_was_granted_is_told(
    caller: Caller, callers: ThreadPoolExecutor, done: dict[str, Any], later: str
) -> None:
    url, began = f"/execution-logs/{later}", time.monotonic()
    asked = [callers.submit(caller.as_is, url, Prefer=told) for told in ("wait=1", 'a, Wait="1"; b=c')]
    for future in asked:
        answer = future.result()
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait=1")
        assert time.monotonic() - began >= 1
    final = caller.as_is(f"/execution-logs/{done['execution_id']}", Prefer="wait=99")
    assert final.headers["Preference-Applied"] == "wait=30"
    queried = caller.as_is(f"{url}?wait=0.1", Prefer=f"wait={LONG_S}")
    assert "Preference-Applied" not in queried.headers, "the query wins"


def test_fields_and_lines_of_a_held_poll_are_those_asked_for(
    caller: Caller, callers: ThreadPoolExecutor, later: str
) -> None:
    status = held(callers, caller, f"/execution-logs/{later}?wait={LONG_S}&fields=status")
    lines = held(callers, caller, f"/execution-logs/{later}?wait={LONG_S}&fields=logs&after=1")
    cancel(caller, later)
    assert {*status.result().json()} == {"execution_id", "status", "done", "rev"}
    assert [line["seq"] for line in lines.result().json()["logs"]] == [2, 3]


def test_a_log_is_followed_by_held_polls_alone(caller: Caller) -> None:
    run = caller.run_agent("sleeper", seconds=0.6)
    seen, after, polls, is_done = [], 0, 0, False
    while not is_done:
        page = caller.poll(run, after=after, wait=LONG_S)
        seen += [line["message"] for line in page["logs"]]
        after, is_done, polls = page["next_after"], page["done"], polls + 1
        assert polls < 30
    assert seen == [line["message"] for line in caller.poll(run)["logs"]]
    assert "falling asleep" in seen


def test_a_large_result_wakes_too(caller: Caller) -> None:
    body = {"agent_name": "big", "input_data": {"bytes": 2_000_000}}
    answer = caller.post("/run-agent", body, Prefer="wait=20")
    assert (answer.status_code, len(answer.json()["result"]["text"])) == (200, 2_000_000)


def test_more_than_may_be_held_are_answered_at_once_and_others_meanwhile(
    caller: Caller, callers: ThreadPoolExecutor, later: str
) -> None:
    url = f"/execution-logs/{later}"
    futures = [callers.submit(caller.get, url, headers={"Prefer": "wait=9"}) for _ in range(40)]
    wait_until(lambda: sum(future.done() for future in futures) >= 40 - 16, 8, "those without a place are answered")
    assert caller.get("/health").status_code == 200
    assert caller.run()
    assert not all(future.done() for future in futures)
    cancel(caller, later)
    answers = [future.result() for future in futures]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["status"] for answer in answers} == {"scheduled", "cancelled"}
    for answer in answers:
        assert ("Preference-Applied" in answer.headers) is (answer.json()["status"] == "cancelled")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/run-basket", {"basket_name": "chained_test"}),
        ("/api/v1/run-agent", {"agent_name": "echo", "input_data": {"a": 1}}),
    ],
)
def test_a_submit_that_prefers_to_wait_is_answered_with_the_runs_last_poll(
    caller: Caller, path: str, body: dict[str, Any]
) -> None:
    answer = caller.post(path, body | {"tag": "a"}, Prefer=f"wait={LONG_S}", Idempotency_Key=f"held{path}")
    run = answer.json()["execution_id"]
    warnings = answer.json()["warnings"]
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert answer.json() == caller.poll(run) | {"warnings": warnings}
    assert "tag" in warnings[0]
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    prefix = "/api/v1" if "v1" in path else ""
    told = {"Preference-Applied": f"wait={LONG_S}", "Location": f"{prefix}/execution-logs/{run}",
            "Cache-Control": "no-store", "ETag": etag_of(answer.json())}  # fmt: skip
    assert {name: answer.headers[name] for name in told} == told
    assert not {"Idempotency-Replayed", "Retry-After"} & {*answer.headers}
    again = caller.post(path, body | {"tag": "a"}, Prefer="wait=5", Idempotency_Key=f"held{path}")
    assert (again.status_code, again.json()) == (200, answer.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    plain = caller.post(path, body | {"tag": "a"}, Idempotency_Key=f"held{path}")
    assert (plain.status_code, "Preference-Applied" in plain.headers) == (202, False)


def test_a_submit_whose_time_is_up_is_accepted_as_ever(caller: Caller) -> None:
    body = {"agent_name": "sleeper", "input_data": {"seconds": 60}}
    # Long enough that it has begun by then, and is shown, should this machine stand still meanwhile.
    answer = caller.post("/run-agent", body, Prefer="wait=5", Idempotency_Key="a minute")
    run = answer.json()["execution_id"]
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=5")
    assert answer.json()["status_url"] == answer.headers["Location"] == f"/execution-logs/{run}"
    told = answer.json()
    assert (told["status"], told["done"], answer.headers["ETag"]) == ("running", False, f'W/"{run}.{told["rev"]}"'), (
        "as it stands by now"
    )
    assert int(answer.headers["Retry-After"]) == math.ceil(told["poll_after_ms"] / 1_000)
    replayed = caller.post("/run-agent", body, Prefer="wait=1", Idempotency_Key="a minute")
    assert (replayed.status_code, replayed.json()["execution_id"]) == (202, run)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    cancel(caller, run)
    assert caller.finished(run)["done"]


def test_a_submit_whose_callers_break_off_is_accepted_as_ever_and_others_are_answered(
    caller: Caller, tmp_path: Path
) -> None:
    body = {"agent_name": "counter", "input_data": {"file": str(tmp_path / "gate")}}
    told = {"Idempotency_Key": str(tmp_path), "X_Request_ID": f"broken-off.{tmp_path.name}"}
    said = caller.stack.logs("api").count('"level":"error"')
    with gate(tmp_path / "gate") as shut:
        with ExitStack() as connections:
            # So many that all places are taken: those without one are answered, which tells that the others are held.
            held = [sent(caller, "/run-agent", body, Prefer=f"wait={LONG_S}", **told) for _ in range(40)]
            for connection in held:
                connections.enter_context(connection)
            wait_until(lambda: answered(held) >= 40 - 16, 8, "those without a place are answered")
            assert answered(held) < 40, "some are held"
        (listed,) = caller.get("/executions", params={"request_id": told["X_Request_ID"]}).json()["executions"]
        run = listed["execution_id"]
        wait_until(lambda: caller.poll(run)["status"] == "running", 8, "it runs though nobody waits for it")
        assert caller.get("/health").status_code == 200
        assert caller.finished(caller.run_agent("echo"))["status"] == "completed"
        again = caller.post("/run-agent", body, **told)
        assert (again.status_code, again.json()["execution_id"]) == (202, run)
        shut.open()
        polled = caller.finished(run)
    assert (polled["status"], polled["steps"][0]["attempts"]) == ("completed", 1)
    another = {"agent_name": "echo", "input_data": {}}

    def are_held() -> bool:
        return all(caller.post("/run-agent", another, Prefer=f"wait={LONG_S}").status_code == 200 for _ in range(16))

    wait_until(are_held, 10, "the places of those who broke off are free again")
    assert caller.stack.logs("api").count('"level":"error"') == said


def test_a_submit_is_held_by_its_preference_alone_and_a_refused_one_not_at_all(caller: Caller) -> None:
    body = {"agent_name": "echo", "input_data": {"a": 1}}
    assert caller.post(f"/run-agent?wait={LONG_S}&until=x", body).status_code == 202
    for prefer in ("wait=x", "wait=0", "respond-async"):
        answer = caller.post("/run-agent", body, Prefer=prefer)
        assert (answer.status_code, "Preference-Applied" in answer.headers) == (202, False)
    refused = caller.post("/run-agent", {"agent_name": "nobody", "input_data": {}}, Prefer=f"wait={LONG_S}")
    assert refused.status_code == 404


def test_a_failed_run_is_told_as_its_poll_tells_it(caller: Caller) -> None:
    body = {"agent_name": "raiser", "input_data": {"kind": "ValueError"}}
    answer = caller.post("/run-agent", body, Prefer=f"wait={LONG_S}")
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert answer.json()["error"]["error_code"] == "agent_error"
