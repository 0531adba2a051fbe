"""Long polls: polls that wait for a change (``?wait=``, ``Prefer: wait``), and submits that wait for the end."""

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

from shared.live.signals.pubsub import WAKEUP_CHANNEL
from tests.acceptance.client import ApiClient
from tests.step_gate import step_gate
from tests.waiting import wait_until

# Longer than a request may take here: a test that waits for the whole time fails.
LONG_S = 25


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(48) as callers:
        yield callers


@pytest.fixture
def delayed_run(caller: ApiClient) -> Iterator[str]:
    """Yield a run that does not begin and does not change during a test."""
    response = caller.post("/run-basket", {"basket_name": "working_test", "run_after_s": 3600})
    run = str(response.json()["execution_id"])
    yield run
    cancel(caller, run)


@pytest.fixture(scope="module")
def final_view(caller: ApiClient) -> dict[str, Any]:
    return caller.wait_done(caller.submit_agent("echo", a=1))


def cancel(caller: ApiClient, run: str) -> None:
    assert caller.request("POST", f"/executions/{run}/cancel").status_code in {200, 202}


def etag_of(view: dict[str, Any]) -> str:
    return f'W/"{view["execution_id"]}.{view["rev"]}"'


def begin_long_poll(
    callers: ThreadPoolExecutor, caller: ApiClient, path: str, **headers: str
) -> Future[requests.Response]:
    """Begin a long poll and wait until it listens for wake-ups."""
    header_fields = {name.replace("_", "-"): value for name, value in headers.items()}
    future = callers.submit(caller.get, path, headers=header_fields)
    redis = caller.stack.redis()
    wait_until(lambda: dict(redis.pubsub_numsub(WAKEUP_CHANNEL))[WAKEUP_CHANNEL] > 0, 5, "it listens")
    time.sleep(0.1)  # if it is not registered yet, it checks once more after it registers
    assert not future.done()
    return future


def send_request(caller: ApiClient, path: str, body: dict[str, Any], **headers: str) -> socket.socket:
    """Send a request and read no response; closing the socket resets the connection (SO_LINGER 0)."""
    parts, payload = urlsplit(caller.stack.url), json.dumps(body).encode()
    header_fields = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "Content-Length": str(len(payload)),
    } | headers
    head = [
        f"POST {path} HTTP/1.1",
        *(f"{name.replace('_', '-')}: {value}" for name, value in header_fields.items()),
        "",
        "",
    ]
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sendall("\r\n".join(head).encode() + payload)
    return connection


def count_readable(connections: list[socket.socket]) -> int:
    """Return the number of connections that have something to read."""
    return len(select.select(connections, [], [], 0)[0])


def test_a_poll_is_held_until_its_run_changes(caller: ApiClient, callers: ThreadPoolExecutor, delayed_run: str) -> None:
    before = caller.poll(delayed_run)
    without_etag = begin_long_poll(callers, caller, f"/execution-logs/{delayed_run}?wait={LONG_S}")
    with_etag = begin_long_poll(
        callers, caller, f"/api/v1/executions/{delayed_run}?wait={LONG_S}", If_None_Match=etag_of(before)
    )
    cancel(caller, delayed_run)
    for response in (without_etag.result(), with_etag.result()):
        assert (response.status_code, response.json()["status"]) == (200, "cancelled")
        assert response.json()["rev"] > before["rev"]
        assert "Preference-Applied" not in response.headers


def test_an_etag_of_another_revision_returns_at_once(caller: ApiClient, delayed_run: str) -> None:
    if_none_match = {"If-None-Match": f'W/"{delayed_run}.0", "other"'}
    assert caller.get(f"/execution-logs/{delayed_run}?wait={LONG_S}", headers=if_none_match).status_code == 200


@pytest.mark.parametrize("until", ["", "&until=done"])
def test_a_long_poll_that_times_out_returns_what_a_plain_poll_returns(
    caller: ApiClient, callers: ThreadPoolExecutor, delayed_run: str, until: str
) -> None:
    unchanged = caller.get(f"/execution-logs/{delayed_run}")
    if_none_match = {"If-None-Match": unchanged.headers["ETag"]}
    requests_made = [
        ("", {}, 200),
        ("", if_none_match, 304),
        ("&after=1", if_none_match, 304),
        ("", {"If-None-Match": "*"}, 304),
    ]
    if until:
        requests_made.append(("", {"If-None-Match": '"other"'}, 200))
    url = f"/execution-logs/{delayed_run}?wait=0.3{until}"
    began = time.monotonic()
    responses = [callers.submit(caller.get, url + query, headers=headers) for query, headers, _ in requests_made]
    for future, (query, headers, status) in zip(responses, requests_made, strict=True):
        response = future.result()
        assert time.monotonic() - began >= 0.3
        assert (response.status_code, response.headers["ETag"]) == (status, unchanged.headers["ETag"]), (query, headers)
        assert int(response.headers["Retry-After"]) >= 1


def test_until_done_holds_through_every_change_but_the_end(caller: ApiClient) -> None:
    run = caller.submit_agent("sleeper", seconds=0.7)
    response = caller.get(f"/execution-logs/{run}?wait={LONG_S}&until=done", headers={"If-None-Match": f'"{run}.1"'})
    assert (response.json()["status"], response.json()["done"]) == ("completed", True)
    assert response.json() == caller.poll(run)


@pytest.mark.parametrize("query", ["", "&until=done", "&after=1", "&fields=status"])
def test_a_final_run_returns_at_once(caller: ApiClient, final_view: dict[str, Any], query: str) -> None:
    url = f"/execution-logs/{final_view['execution_id']}?wait={LONG_S}{query}"
    assert caller.get(url).status_code == 200
    conditional = caller.get(url, headers={"If-None-Match": etag_of(final_view)})
    assert conditional.status_code == (200 if "after" in query else 304)


def test_an_unknown_run_and_an_invalid_query_return_at_once(caller: ApiClient, delayed_run: str) -> None:
    assert caller.get(f"/execution-logs/1763700000_89ce24ad1b2c3d4e?wait={LONG_S}").status_code == 404
    for query in ("wait=x", "wait=", "wait=-1", "wait=nan", "until=Done", f"wait={LONG_S}&until=change",
                  f"wait={LONG_S}&fields=x", f"wait={LONG_S}&after=x"):  # fmt: skip
        response = caller.get(f"/executions/{delayed_run}?{query}", headers={"Prefer": f"wait={LONG_S}"})
        assert (response.status_code, response.json()["error_code"]) == (400, "validation_failed"), query


@pytest.mark.parametrize(
    "header", ["wait=x", "wait", "respond-async", '"', "\xff", ";;;" * 2_000, 'wait="5', "wait=-5"]
)
def test_a_malformed_preference_is_ignored(caller: ApiClient, delayed_run: str, header: str) -> None:
    response = caller.get_raw(f"/execution-logs/{delayed_run}", Prefer=header)
    assert (response.status_code, "Preference-Applied" in response.headers) == (200, False)


def test_an_applied_preference_is_reported(
    caller: ApiClient, callers: ThreadPoolExecutor, final_view: dict[str, Any], delayed_run: str
) -> None:
    url, began = f"/execution-logs/{delayed_run}", time.monotonic()
    futures = [callers.submit(caller.get_raw, url, Prefer=prefer) for prefer in ("wait=1", 'a, Wait="1"; b=c')]
    for future in futures:
        response = future.result()
        assert (response.status_code, response.headers["Preference-Applied"]) == (200, "wait=1")
        assert time.monotonic() - began >= 1
    final = caller.get_raw(f"/execution-logs/{final_view['execution_id']}", Prefer="wait=99")
    assert final.headers["Preference-Applied"] == "wait=30"
    queried = caller.get_raw(f"{url}?wait=0.1", Prefer=f"wait={LONG_S}")
    assert "Preference-Applied" not in queried.headers, "the query wins"


def test_a_held_poll_returns_the_requested_fields_and_lines(
    caller: ApiClient, callers: ThreadPoolExecutor, delayed_run: str
) -> None:
    status = begin_long_poll(callers, caller, f"/execution-logs/{delayed_run}?wait={LONG_S}&fields=status")
    lines = begin_long_poll(callers, caller, f"/execution-logs/{delayed_run}?wait={LONG_S}&fields=logs&after=1")
    cancel(caller, delayed_run)
    assert {*status.result().json()} == {"execution_id", "status", "done", "rev"}
    assert [line["seq"] for line in lines.result().json()["logs"]] == [2, 3]


def test_a_log_can_be_followed_with_held_polls_only(caller: ApiClient) -> None:
    run = caller.submit_agent("sleeper", seconds=0.6)
    messages, after, polls, is_done = [], 0, 0, False
    while not is_done:
        page = caller.poll(run, after=after, wait=LONG_S)
        messages += [line["message"] for line in page["logs"]]
        after, is_done, polls = page["next_after"], page["done"], polls + 1
        assert polls < 30
    assert messages == [line["message"] for line in caller.poll(run)["logs"]]
    assert "falling asleep" in messages


def test_a_large_result_wakes_a_held_submit_too(caller: ApiClient) -> None:
    body = {"agent_name": "big", "input_data": {"bytes": 2_000_000}}
    response = caller.post("/run-agent", body, Prefer="wait=20")
    assert (response.status_code, len(response.json()["result"]["text"])) == (200, 2_000_000)


def test_polls_above_the_limit_return_at_once_and_other_requests_are_served(
    caller: ApiClient, callers: ThreadPoolExecutor, delayed_run: str
) -> None:
    url = f"/execution-logs/{delayed_run}"
    futures = [callers.submit(caller.get, url, headers={"Prefer": "wait=9"}) for _ in range(40)]
    wait_until(lambda: sum(future.done() for future in futures) >= 40 - 16, 8, "those above the limit have returned")
    assert caller.get("/health").status_code == 200
    assert caller.submit_basket()
    assert not all(future.done() for future in futures)
    cancel(caller, delayed_run)
    responses = [future.result() for future in futures]
    assert {response.status_code for response in responses} == {200}
    assert {response.json()["status"] for response in responses} == {"scheduled", "cancelled"}
    for response in responses:
        assert ("Preference-Applied" in response.headers) is (response.json()["status"] == "cancelled")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/run-basket", {"basket_name": "chained_test"}),
        ("/api/v1/run-agent", {"agent_name": "echo", "input_data": {"a": 1}}),
    ],
)
def test_a_submit_that_prefers_to_wait_returns_the_last_view_of_its_run(
    caller: ApiClient, path: str, body: dict[str, Any]
) -> None:
    response = caller.post(path, body | {"label": "a"}, Prefer=f"wait={LONG_S}", Idempotency_Key=f"held{path}")
    run = response.json()["execution_id"]
    warnings = response.json()["warnings"]
    assert (response.status_code, response.json()["status"]) == (200, "completed")
    assert response.json() == caller.poll(run) | {"warnings": warnings}
    assert "label" in warnings[0]
    assert int(response.headers["Content-Length"]) == len(response.content)
    prefix = "/api/v1" if "v1" in path else ""
    headers = {"Preference-Applied": f"wait={LONG_S}", "Location": f"{prefix}/execution-logs/{run}",
            "Cache-Control": "no-store", "ETag": etag_of(response.json())}  # fmt: skip
    assert {name: response.headers[name] for name in headers} == headers
    assert not {"Idempotency-Replayed", "Retry-After"} & {*response.headers}
    again = caller.post(path, body | {"label": "a"}, Prefer="wait=5", Idempotency_Key=f"held{path}")
    assert (again.status_code, again.json()) == (200, response.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    plain = caller.post(path, body | {"label": "a"}, Idempotency_Key=f"held{path}")
    assert (plain.status_code, "Preference-Applied" in plain.headers) == (202, False)


def test_a_held_submit_that_times_out_is_accepted_as_usual(caller: ApiClient) -> None:
    body = {"agent_name": "sleeper", "input_data": {"seconds": 60}}
    # Long enough that the run has begun by then and its view shows it, even on a busy machine.
    response = caller.post("/run-agent", body, Prefer="wait=5", Idempotency_Key="a minute")
    run = response.json()["execution_id"]
    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "wait=5")
    assert response.json()["status_url"] == response.headers["Location"] == f"/execution-logs/{run}"
    body_now = response.json()
    assert (body_now["status"], body_now["done"], response.headers["ETag"]) == (
        "running",
        False,
        f'W/"{run}.{body_now["rev"]}"',
    ), "the current state"
    assert int(response.headers["Retry-After"]) == math.ceil(body_now["poll_after_ms"] / 1_000)
    replayed = caller.post("/run-agent", body, Prefer="wait=1", Idempotency_Key="a minute")
    assert (replayed.status_code, replayed.json()["execution_id"]) == (202, run)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    cancel(caller, run)
    assert caller.wait_done(run)["done"]


def test_held_submits_with_broken_connections_are_accepted_and_others_are_served(
    caller: ApiClient, tmp_path: Path
) -> None:
    body = {"agent_name": "counter", "input_data": {"file": str(tmp_path / "gate")}}
    headers = {"Idempotency_Key": str(tmp_path), "X_Request_ID": f"broken-off.{tmp_path.name}"}
    errors_before = caller.stack.logs("api").count('"level":"error"')
    with step_gate(tmp_path / "gate") as shut:
        with ExitStack() as connections:
            # More than the limit: those above it return, which shows that the others are held.
            sockets = [send_request(caller, "/run-agent", body, Prefer=f"wait={LONG_S}", **headers) for _ in range(40)]
            for connection in sockets:
                connections.enter_context(connection)
            wait_until(lambda: count_readable(sockets) >= 40 - 16, 8, "those above the limit have returned")
            assert count_readable(sockets) < 40, "some are held"
        (row,) = caller.get("/executions", params={"request_id": headers["X_Request_ID"]}).json()["executions"]
        run = row["execution_id"]
        wait_until(lambda: caller.poll(run)["status"] == "running", 8, "it runs although no caller waits for it")
        assert caller.get("/health").status_code == 200
        assert caller.wait_done(caller.submit_agent("echo"))["status"] == "completed"
        again = caller.post("/run-agent", body, **headers)
        assert (again.status_code, again.json()["execution_id"]) == (202, run)
        shut.open()
        view = caller.wait_done(run)
    assert (view["status"], view["steps"][0]["attempts"]) == ("completed", 1)
    another = {"agent_name": "echo", "input_data": {}}

    def are_held() -> bool:
        return all(caller.post("/run-agent", another, Prefer=f"wait={LONG_S}").status_code == 200 for _ in range(16))

    wait_until(are_held, 10, "the places of the broken connections are free again")
    assert caller.stack.logs("api").count('"level":"error"') == errors_before


def test_a_submit_is_held_only_by_its_preference_and_a_refused_submit_never(caller: ApiClient) -> None:
    body = {"agent_name": "echo", "input_data": {"a": 1}}
    assert caller.post(f"/run-agent?wait={LONG_S}&until=x", body).status_code == 202
    for prefer in ("wait=x", "wait=0", "respond-async"):
        response = caller.post("/run-agent", body, Prefer=prefer)
        assert (response.status_code, "Preference-Applied" in response.headers) == (202, False)
    refused = caller.post("/run-agent", {"agent_name": "nobody", "input_data": {}}, Prefer=f"wait={LONG_S}")
    assert refused.status_code == 404


def test_a_held_submit_returns_the_error_of_a_failed_run(caller: ApiClient) -> None:
    body = {"agent_name": "raiser", "input_data": {"kind": "ValueError"}}
    response = caller.post("/run-agent", body, Prefer=f"wait={LONG_S}")
    assert (response.status_code, response.json()["status"]) == (200, "failed")
    assert response.json()["error"]["error_code"] == "agent_error"
