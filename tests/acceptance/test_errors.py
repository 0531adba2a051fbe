"""Every error is a problem document of one form (RFC 9457), and each error code is provoked here once."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from api.feed import cursors
from shared import errors
from shared.domain.feed_position import FeedPosition
from tests.acceptance.client import AGENTS, ApiClient
from tests.builders import NOON
from tests.faults.inspection import count_messages
from tests.stack import Stack
from tests.waiting import wait_until

MEMBERS = {"type", "title", "status", "detail", "error_code", "message", "details", "timestamp", "request_id"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
OLD = "1600000000_89ce24ad1b2c3d4e"
NAMED = {"basket_name": "working_test"}
ECHO: dict[str, Any] = {"agent_name": "echo", "input_data": {}}
ECHO_BASKET: dict[str, Any] = {"config": {"agents": ["echo"]}}
OTHER_EPOCH = cursors.encode(FeedPosition("00000000", 1, 0, NOON))

EXTENSION_MEMBERS = {
    "cursor_expired": {"resync"}, "execution_failed": {"error"}, "execution_cancelled": {"error"},
    "idempotency_key_reused": {"used_by"}, "already_requeued": {"requeued_as"},
}  # fmt: skip
# For each error code: the status, and the request that provokes it.
CASES: dict[str, tuple[int, Callable[[ApiClient], requests.Response]]] = {
    "not_retryable": (
        409,
        lambda caller: caller.post(f"/executions/{caller.wait_done(caller.submit_basket())['execution_id']}/retry", {}),
    ),
    "execution_failed": (409, lambda caller: _result(caller, caller.wait_done(_failing(caller)))),
    "execution_cancelled": (409, lambda caller: _result(caller, _cancelled(caller))),
    "validation_failed": (400, lambda caller: caller.post("/run-basket", {})),
    "invalid_json": (400, lambda caller: caller.post_raw(b"{")),
    "callbacks_not_supported": (400, lambda caller: caller.post("/run-basket", NAMED | {"webhook": "x"})),
    "credentials_not_accepted": (400, lambda caller: caller.post("/run-basket", NAMED | {"secret": "x"})),
    "unknown_agent": (400, lambda caller: caller.post("/create-basket", {"name": "a", "agents": ["nobody"]})),
    "cursor_invalid": (400, lambda caller: caller.get("/logs?since=x")),
    "not_found": (404, lambda caller: caller.get("/nowhere")),
    "basket_not_found": (404, lambda caller: caller.get("/baskets/nobody")),
    "agent_not_found": (404, lambda caller: caller.get("/agents/nobody")),
    "execution_not_found": (404, lambda caller: caller.get("/execution-logs/None")),
    "consumer_not_found": (404, lambda caller: caller.get("/consumers/nobody/changes")),
    "cursor_expired": (410, lambda caller: caller.get(f"/executions/changes?since={OTHER_EPOCH}")),
    "method_not_allowed": (405, lambda caller: caller.get("/run-basket")),
    "basket_exists": (409, lambda caller: caller.post("/create-basket", {"name": "working_test", "agents": ["echo"]})),
    "execution_expired": (410, lambda caller: caller.get(f"/execution-logs/{OLD}")),
    "payload_too_large": (413, lambda caller: caller.post_raw(b" " * (1024 * 1024 + 1))),
    "unsupported_media_type": (415, lambda caller: caller.request("POST", "/run-basket", data=b"{}")),
    "idempotency_key_reused": (422, lambda caller: _under_one_key(caller, NAMED, NAMED | {"tags": ["b"]})),
    "overloaded": (503, lambda caller: _with_a_backlog(caller, lambda: caller.post("/run-basket", NAMED))),
    "unavailable": (503, lambda caller: _without_mongod(caller, lambda: caller.post("/run-basket", NAMED))),
    "outcome_unknown": (503, lambda caller: _with_locked_mongod(caller, lambda: caller.post("/run-agent", ECHO))),
}
# Only a bug of Bucket makes a 500, and none is known; tests/unit/api/http/test_problems.py makes one.
# The server's own refusals, further below, and what tests/integration/api/test_slow_callers.py covers.
WITHOUT_CASE = {
    "internal", "uri_too_long", "headers_too_large", "not_implemented", "request_timeout",
    "agent_unavailable",  # tests/acceptance/test_availability.py
    # Of callers with keys: tests/integration/api in auth, integrations and limits.
    "unauthenticated", "forbidden", "key_not_found", "key_not_valid", "rate_limited", "quota_exceeded",
    "integration_not_found", "integration_exists", "integration_state", "integration_incomplete",
    "integration_inactive",
    # Of erased and of sealed content: tests/acceptance/test_erase.py and test_sealed_payloads.py.
    "not_final", "execution_erased", "encryption_key_missing",
    "already_requeued",  # tests/acceptance/test_dead_letters.py
}  # fmt: skip


@pytest.fixture(scope="module")
def caller(make_stack: Callable[..., Stack]) -> Iterator[ApiClient]:
    """Yield a client of a stack of its own with a retention of one day and a backlog of at most a hundred."""
    caller = ApiClient(make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_RETENTION_DAYS="1", BUCKET_BACKLOG_MAX="100"))
    yield caller
    caller.stack.repair()


def _failing(caller: ApiClient) -> str:
    return caller.submit_basket("simulate", input_data={"script": ["failed:card_declined"]})


def _cancelled(caller: ApiClient) -> dict[str, Any]:
    run = caller.submit_basket("working_test", run_after_s=3_600)
    cancelled: dict[str, Any] = caller.request("POST", f"/executions/{run}/cancel").json()
    return cancelled


def _result(caller: ApiClient, view: dict[str, Any]) -> requests.Response:
    return caller.get(f"/executions/{view['execution_id']}/result")


def _under_one_key(caller: ApiClient, *bodies: dict[str, Any]) -> requests.Response:
    return [caller.post("/run-basket", body, Idempotency_Key="one") for body in bodies][-1]


def _with_a_backlog(caller: ApiClient, act: Callable[[], requests.Response]) -> requests.Response:
    # The queue that no worker of this stack reads first: the messages have no receiver and are removed again.
    redis = caller.stack.redis()
    caller.stack.stop("worker")
    try:
        redis.rpush("long", *["x"] * 100)
        return _until_refused(act)
    finally:
        redis.delete("long")
        caller.stack.start("worker")


def _without_mongod(caller: ApiClient, act: Callable[[], requests.Response]) -> requests.Response:
    caller.stack.stop("mongod")
    try:
        # A connection that breaks during a call gives `outcome_unknown`: wait until each process fails to connect.
        wait_until(lambda: all(act().json().get("error_code") == "unavailable" for _ in range(16)))
        return _until_refused(act)
    finally:
        caller.stack.repair()
        _wait_until_healed(caller)


def _with_locked_mongod(caller: ApiClient, act: Callable[[], requests.Response]) -> requests.Response:
    # MongoDB still replies to each check, so it never counts as away, but it writes nothing.
    mongod = caller.stack.mongo().client.admin
    mongod.command("fsync", lock=True)
    try:
        return _until_refused(act)
    finally:
        mongod.command("fsyncUnlock")
        _wait_until_healed(caller)


def _wait_until_healed(caller: ApiClient) -> None:
    """Wait until every process of the API accepts runs; requests reach the processes at random."""

    def is_healed() -> bool:
        return all(caller.post("/run-agent", ECHO).status_code == 202 for _ in range(16))

    wait_until(is_healed, 15, "the API accepts runs again")


def _until_refused(act: Callable[[], requests.Response]) -> requests.Response:
    for _ in range(200):
        if (response := act()).status_code == 503:
            return response
    raise AssertionError("never refused")


def assert_is_problem(response: requests.Response, status: int, code: str) -> None:
    body = response.json()
    assert (response.status_code, body["error_code"]) == (status, code), body
    assert response.headers["Content-Type"] == "application/problem+json"
    assert set(body) == MEMBERS | EXTENSION_MEMBERS.get(code, set())
    assert (body["type"], body["status"]) == (f"/problems/{code}", status)
    assert body["title"] == code.replace("_", " ").capitalize()
    assert body["detail"] == body["message"]
    assert len(body["detail"]) > 10
    assert isinstance(body["details"], list)
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert MOMENT.fullmatch(body["timestamp"])
    assert abs(datetime.now(UTC) - datetime.fromisoformat(body["timestamp"])) < timedelta(seconds=30)
    assert response.headers["Cache-Control"] == "no-store"
    assert ("Retry-After" in response.headers) is (status == 503)
    assert ("Allow" in response.headers) is (status == 405)


def test_a_used_key_is_replayed_even_with_a_full_backlog(caller: ApiClient) -> None:
    first = caller.post("/run-agent", ECHO, Idempotency_Key="held")

    def again() -> requests.Response:
        without_key = caller.post("/run-agent", ECHO)
        replay = caller.post("/run-agent", ECHO, Idempotency_Key="held")
        assert (replay.status_code, replay.headers["Idempotency-Replayed"]) == (202, "true")
        assert replay.json()["execution_id"] == first.json()["execution_id"]
        return without_key

    assert_is_problem(_with_a_backlog(caller, again), 503, "overloaded")


def test_a_batch_with_an_unknown_outcome_is_refused_as_a_whole(caller: ApiClient) -> None:
    batch = {"items": [ECHO_BASKET] * 20}
    assert_is_problem(
        _with_locked_mongod(caller, lambda: caller.post("/run-basket/batch", batch)), 503, "outcome_unknown"
    )


@pytest.mark.parametrize("code", CASES)
def test_each_code_is_returned_as_a_problem(caller: ApiClient, code: str) -> None:
    status, provoke = CASES[code]
    response = provoke(caller)
    assert_is_problem(response, status, code)
    text = caller.get(response.json()["type"])
    assert (text.status_code, text.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert text.text.startswith(f"{code} (HTTP {status})\n\nWhat to do: ")


def test_the_codes_of_runs_have_a_text_too_and_others_none(caller: ApiClient) -> None:
    assert "What happened: the output breaks" in caller.get("/problems/output_invalid").text
    for path in ("/problems/nonsense", "/problems/", "/api/v1/problems/not_found"):
        assert caller.get(path).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/execution-logs/{}"),
        ("GET", "/executions/{}"),
        ("GET", "/executions/{}/outputs/echo"),
        ("GET", "/executions/{}/result"),
        ("POST", "/executions/{}/cancel"),
        ("POST", "/executions/{}/retry"),
        ("POST", "/dead-letters/{}/requeue"),
        ("POST", "/dead-letters/{}/dismiss"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/api/v1"])
def test_a_run_older_than_the_retention_is_410_for_every_request(
    caller: ApiClient, prefix: str, method: str, path: str
) -> None:
    assert_is_problem(caller.request(method, prefix + path.format(OLD)), 410, "execution_expired")


def test_every_view_says_until_when_a_run_is_kept_where_retention_is_set(caller: ApiClient) -> None:
    run = caller.wait_done(caller.submit_basket())
    later = caller.post("/run-basket", NAMED | {"run_after_s": 600}).json()["execution_id"]
    for view in (run, caller.poll(later)):
        rest = datetime.fromisoformat(view["expires_at"]) - datetime.fromisoformat(view["created_at"])
        assert timedelta(days=1) - timedelta(seconds=1) < rest <= timedelta(days=1)
    assert caller.poll(run["execution_id"], fields="expires_at")["expires_at"] == run["expires_at"]
    (row,) = caller.get("/executions", params={"request_id": run["request_id"]}).json()["executions"]
    assert row["expires_at"] == run["expires_at"]
    body = {"items": [{"execution_id": run["execution_id"]}]}
    assert caller.post("/executions/poll", body).json()["changed"][0]["expires_at"] == run["expires_at"]
    caller.request("POST", f"/executions/{later}/cancel")


@pytest.mark.parametrize("path", ["/executions/{}/cancel", "/executions/{}/retry", "/dead-letters/{}/requeue"])
def test_an_unknown_run_younger_than_the_retention_is_404(caller: ApiClient, path: str) -> None:
    young = f"{int(datetime.now(UTC).timestamp()) - 3600}_89ce24ad1b2c3d4e"
    code = "not_found" if "dead-letters" in path else "execution_not_found"
    assert_is_problem(caller.request("POST", path.format(young)), 404, code)


def test_a_batch_is_accepted_as_far_as_the_backlog_has_room(caller: ApiClient) -> None:
    redis = caller.stack.redis()
    attempts: list[list[dict[str, Any]]] = []

    def all_refuse() -> bool:
        return all(caller.post("/run-basket", NAMED).status_code == 503 for _ in range(16))

    def is_taken_in_part() -> bool:
        # The reconciler may have offered earlier runs again: make room for two before each attempt.
        other_messages = count_messages(caller.stack) - redis.llen("long")  # type: ignore[operator]
        redis.ltrim("long", 0, 97 - other_messages)
        keyed = NAMED | {"idempotency_key": f"batch-{len(attempts)}"}
        response = caller.post("/run-basket/batch", {"items": [keyed, keyed, NAMED, NAMED, NAMED]})
        attempts.append(response.json().get("items", []))
        return [item["status"] for item in attempts[-1]] == [202, 202, 202, 503, 503]

    def fill_and_submit() -> requests.Response:
        wait_until(all_refuse, 5, "each process of the API has noticed")
        refused = caller.post("/run-basket/batch", {"items": [NAMED] * 5})
        wait_until(is_taken_in_part, 10, "two items are accepted, because one key twice counts once")
        return refused

    assert_is_problem(_with_a_backlog(caller, fill_and_submit), 503, "overloaded")
    assert {item["error_code"] for item in attempts[-1][3:]} == {"overloaded"}


def test_no_code_of_the_error_tree_is_left_out() -> None:
    def leaves(kind: type[errors.BucketError]) -> Iterator[str]:
        yield kind.error_code
        for child in kind.__subclasses__():
            yield from leaves(child)

    codes = set(leaves(errors.RequestError)) | set(leaves(errors.ServiceError))
    assert codes == set(CASES) | WITHOUT_CASE


START = b"GET /health HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("raw", "status", "code", "detail"),
    [
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long", "too long"),
        (START + b"X-Big: " + b"x" * 9_000 + b"\r\n\r\n", 431, "headers_too_large", "headers are too large"),
        (START + b"X-A: b\r\n" * 200 + b"\r\n", 431, "headers_too_large", "headers are too large"),
        (START + b"Transfer-Encoding: br, chunked\r\n\r\n", 501, "not_implemented", "Transfer-Encoding is not known"),
        (b"GARBAGE\r\n\r\n", 400, "validation_failed", "not HTTP"),
        (b"GET /health HTTP/9.9\r\n\r\n", 400, "validation_failed", "not HTTP"),
        (START + b"no colon\r\n\r\n", 400, "validation_failed", "not HTTP"),
    ],
)
def test_a_request_that_is_not_http_gets_a_problem_too(
    caller: ApiClient, raw: bytes, status: int, code: str, detail: str
) -> None:
    host, _, port = caller.stack.url.removeprefix("http://").partition(":")
    received = b""
    with closing(socket.create_connection((host, int(port)), timeout=10)) as connection:
        connection.sendall(raw)
        while piece := connection.recv(65_536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    response = requests.Response()
    response.status_code, response._content = int(lines[0].split()[1]), body
    response.headers.update(line.split(": ", 1) for line in lines[1:])
    assert_is_problem(response, status, code)
    assert detail in response.json()["detail"]
