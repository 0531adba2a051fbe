"""Refusals: each invalid request is refused at once with a helpful message, and nothing of it is stored."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.acceptance.client import ApiClient

RUN, AGENT, CREATE = "/run-basket", "/run-agent", "/create-basket"
KEYS = ["password", "passwd", "secret", "api_key", "access_token", "refresh_token", "private_key", "client_secret",
        "authorization"]  # fmt: skip
SPELT = ["Password", "API-KEY", "apiKey", "AccessToken", "refresh-token", "PRIVATEKEY", "Client-Secret", "_secret_"]
INPUT = {"basket_name": "working_test"}
RUN_ID = "1763700000_0000000000000000"


@pytest.fixture(autouse=True)
def _nothing_is_stored(caller: ApiClient) -> Iterator[None]:
    """Count the stored documents before and after each refusal."""
    before = caller.document_counts()
    yield
    assert caller.document_counts() == before


def assert_refused(response: requests.Response, status: int, code: str, *words: str) -> dict[str, Any]:
    """Check the status, the error code and the ``words`` in the detail, and return the problem."""
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["error_code"]) == (status, code), body
    missing = [word for word in words if word not in body["detail"]]
    assert not missing, f"{missing} not in {body['detail']!r}"
    return body


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (RUN, {}, ["must provide basket_name or config"]),
        (RUN, {"basket_name": None, "config": None}, ["must provide basket_name or config"]),
        (RUN, {"basket_name": 7}, ["/basket_name", "string"]),
        (RUN, {"basket_name": {"$gt": ""}}, ["/basket_name", "string"]),
        (RUN, {"basket_name": ["working_test"]}, ["/basket_name", "string"]),
        (RUN, {"config": []}, ["/config", "a JSON object"]),
        (RUN, {"config": {}}, ["agents is required, or steps"]),
        (RUN, {"config": {"agents": []}}, ["/config/agents", "1 to 200"]),
        (RUN, {"config": {"agents": ["echo"] * 201}}, ["/config/agents", "1 to 200"]),
        (RUN, {"config": {"agents": "echo"}}, ["/config/agents"]),
        (RUN, {"config": {"agents": [3]}}, ["/config/agents/0"]),
        (RUN, {"config": {"agents": [{"$ne": 1}]}}, ["/config/agents/0"]),
        (RUN, {"config": {"agents": ["echo"], "name": "../x"}}, ["/config/name"]),
        (RUN, {"config": {"agents": ["echo"], "name": "a\n"}}, ["/config/name"]),
        (RUN, {"config": {"agents": ["echo"], "execution_strategy": "sideways"}}, ["/config/execution_strategy"]),
        (RUN, INPUT | {"input_data": []}, ["/input_data", "a JSON object"]),
        (RUN, INPUT | {"input_data": {"transactions": "all"}}, ["/input_data/transactions", "cashflow_analyzer"]),
        (RUN, INPUT | {"input_data": {"other": 1}}, ["transactions", "required"]),
        (RUN, INPUT | {"tags": ["a"] * 21}, ["/tags", "at most 20 tags"]),
        (RUN, INPUT | {"tags": [""]}, ["/tags/0"]),
        (RUN, INPUT | {"tags": ["a" * 65]}, ["/tags/0"]),
        (RUN, INPUT | {"tags": [1]}, ["/tags/0"]),
        (RUN, INPUT | {"tags": "a"}, ["/tags"]),
        (RUN, INPUT | {"metadata": []}, ["/metadata", "a JSON object"]),
        (RUN, INPUT | {"run_after_s": -1}, ["/run_after_s", "0 to 315360000 seconds"]),
        (AGENT, {"agent_name": "echo"}, ["input_data is required"]),
        (AGENT, {"input_data": {}}, ["agent_name is required"]),
        (AGENT, {"agent_name": {"$gt": ""}, "input_data": {}}, ["/agent_name"]),
        (AGENT, {"agent_name": "echo", "input_data": {}, "stateful": "yes"}, ["/stateful"]),
        (CREATE, {"agents": ["echo"]}, ["name is required"]),
        (CREATE, {"name": "a"}, ["agents is required"]),
        (CREATE, {"name": "../x", "agents": ["echo"]}, ["/name"]),
        (CREATE, {"name": {"$gt": ""}, "agents": ["echo"]}, ["/name"]),
        (CREATE, {"name": "a" * 101, "agents": ["echo"]}, ["/name"]),
        (CREATE, {"name": "a", "agents": ["echo"], "description": "x" * 2001}, ["/description"]),
        (CREATE, {"name": "a", "agents": ["echo"], "execution_strategy": 7}, ["/execution_strategy"]),
    ],
)
def test_an_invalid_body_is_400_with_its_pointer(caller: ApiClient, path: str, body: Any, words: list[str]) -> None:
    problem = assert_refused(caller.post(path, body), 400, "validation_failed", *words)
    assert len(problem["detail"]) < 1_000


@pytest.mark.parametrize(("path", "where"), [(RUN, "/config"), (CREATE, "")])
def test_a_large_basket_is_refused_because_lists_contain_it(caller: ApiClient, path: str, where: str) -> None:
    def basket(size: int) -> dict[str, Any]:
        definition = {"name": "large", "steps": [{"agent": "echo", "input": {"text": "x" * size}}]}
        return {"config": definition} if path == RUN else definition

    problem = assert_refused(
        caller.post(path, basket(64 * 1024)), 400, "validation_failed", "at most 65536", "input_data"
    )
    assert problem["details"][0]["pointer"] == where


def test_each_error_of_the_input_has_its_pointer(caller: ApiClient) -> None:
    input_data = {"transactions": [{"id": 1, "amount": "x"}, {"amount": 1}, 3, {"id": 2, "amount": 1}]}
    problem = assert_refused(caller.post(RUN, INPUT | {"input_data": input_data}), 400, "validation_failed")
    pointers = {detail["pointer"] for detail in problem["details"]}
    assert pointers == {f"/input_data/transactions/{at}" for at in ("0/amount", "1", "2")}


@pytest.mark.parametrize("name", ["nobody", "", "../x", "..", "$where", "a\u0000b", "x" * 10_000, "Ünknown", "a/b"])
def test_a_basket_that_is_not_there_is_404(caller: ApiClient, name: str) -> None:
    problem = assert_refused(caller.post(RUN, {"basket_name": name}), 404, "basket_not_found", "not found")
    assert len(problem["detail"]) < 300


@pytest.mark.parametrize("name", ["cashflow_analyser", "", "../echo", "$where", "a\u0000b", "x" * 10_000])
def test_an_agent_that_is_not_there_is_404(caller: ApiClient, name: str) -> None:
    body = {"agent_name": name, "input_data": {}}
    problem = assert_refused(caller.post(AGENT, body), 404, "agent_not_found", "not found")
    assert len(problem["detail"]) < 300


def test_an_inline_basket_with_an_unknown_agent_is_404_with_the_nearest(caller: ApiClient) -> None:
    response = caller.post(RUN, {"config": {"agents": ["echo", "cashflow_analyser"]}})
    assert_refused(response, 404, "agent_not_found", "not found", "cashflow_analyzer")


def test_a_new_basket_with_an_unknown_agent_is_400_with_its_pointer(caller: ApiClient) -> None:
    response = caller.post(CREATE, {"name": "a", "agents": ["echo", "nobody"]})
    problem = assert_refused(response, 400, "unknown_agent", "nobody", "not found")
    assert [detail["pointer"] for detail in problem["details"]] == ["/agents/1"]


def test_a_basket_that_does_not_exist_is_404_with_the_nearest(caller: ApiClient) -> None:
    nearest = "did you mean 'working_test'?"
    assert_refused(caller.post(RUN, {"basket_name": "working_tset"}), 404, "basket_not_found", nearest)
    assert_refused(caller.get("/baskets/Working_Test"), 404, "basket_not_found", nearest)
    assert_refused(caller.request("DELETE", "/baskets/workingtest"), 404, "basket_not_found", nearest)
    assert_refused(caller.get("/baskets/zzz"), 404, "basket_not_found", "GET /baskets lists those there are")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RUN, {"workflow": "working_test"}),
        (RUN, {"workflow": 1, "basket_name": 7}),
        (RUN, INPUT | {"workflow": 1, "input_data": {"transactions": 1}}),
        (RUN, {"workflow": 1, "config": {"steps": [{"agent": "echo", "needs": ["b"]}]}}),
        (AGENT, {"workflow": 1, "input_data": {}}),
        ("/run-basket/batch", {"workflow": []}),
        ("/executions/poll", {"workflow": []}),
    ],
)
def test_a_400_names_the_keys_of_the_body_that_were_ignored(caller: ApiClient, path: str, body: dict[str, Any]) -> None:
    """They may be its reason, as where a name was sent under a key that no one knows."""
    ignored = "unknown field 'workflow' was ignored"
    problem = assert_refused(caller.post(path, body), 400, "validation_failed", ignored)
    assert problem["warnings"][0] == ignored
    if path == RUN:
        (item,) = caller.post("/run-basket/batch", {"items": [body]}).json()["items"]
        assert (item["status"], item["warnings"]) == (400, problem["warnings"])
        assert item["detail"] == problem["detail"]


def test_an_existing_name_is_409(caller: ApiClient) -> None:
    response = caller.post(CREATE, {"name": "working_test", "agents": ["echo"]})
    assert_refused(response, 409, "basket_exists", "working_test", "another name")


@pytest.mark.parametrize("path", ["/execution-logs/", "/executions/", "/baskets/", "/agents/", "/agent-logs/"])
@pytest.mark.parametrize(
    "name",
    ["..%2fx", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%7b%22$gt%22%3a%22%22%7d", "$where", "%00", "%ff", "x" * 7_000],
)
def test_an_impossible_name_is_404_and_is_cut(caller: ApiClient, path: str, name: str) -> None:
    response = caller.get_raw(path + name)
    assert response.status_code == 404
    assert len(response.json()["detail"]) < 300


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ([("X-Idempotency-Key", "a")], "X-Idempotency-Key"),
        ([("Idempotency_Key", "a")], "Idempotency_Key"),
        ([("x_idempotency_key", "a")], "X_Idempotency_Key"),
        ([("Idempotency-Key", "a"), ("Idempotency_Key", "a")], "Idempotency_Key"),
        ([("IdempotencyKey", "a")], "Idempotencykey"),
        ([("Idempotency-Token", "a")], "Idempotency-Token"),
        ([("Idempotency-Key", "a"), ("Idempotency-Key", "a")], "Idempotency-Key"),
        ([("Idempotency-Key", "a,b")], "Idempotency-Key"),
    ],
)
@pytest.mark.parametrize("path", [RUN, AGENT, "/run-basket/batch", f"/executions/{RUN_ID}/retry"])
def test_a_header_that_was_meant_as_an_idempotency_key_is_refused(
    caller: ApiClient, path: str, headers: list[tuple[str, str]], named: str
) -> None:
    """It was ignored before, or two headers were one key: silence here means two runs."""
    content = {"agent_name": "echo", "input_data": {}} if path == AGENT else INPUT | {"items": [INPUT]}
    body = json.dumps(content).encode()
    connection = http.client.HTTPConnection(urlsplit(caller.stack.url).netloc, timeout=10)
    with closing(connection):
        connection.putrequest("POST", path)
        for name, value in [*headers, ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]:
            connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        problem = json.loads(reply.read())
    assert (reply.status, problem["error_code"]) == (400, "validation_failed")
    assert problem["details"][0]["header"] == named
    assert "Idempotency-Key" in problem["detail"]


@pytest.mark.parametrize("path", [RUN, AGENT, CREATE])
@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "",
                                  "application/json; charset=latin-1", "application/json;charset=utf-16"])  # fmt: skip
def test_another_content_type_is_415(caller: ApiClient, path: str, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    assert_refused(caller.request("POST", path, data=b"{}", headers=headers), 415, "unsupported_media_type", "JSON")


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip"])
def test_a_compressed_body_is_415_and_not_invalid_json(caller: ApiClient, coding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    response = caller.request("POST", RUN, data=gzip.compress(b"{}"), headers=headers)
    assert_refused(response, 415, "unsupported_media_type", "compressed", "Content-Encoding")


def _padded(size: int) -> bytes:
    return b'{"basket_name": "nobody"}'.ljust(size)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_1_mib_is_413_to_the_byte(caller: ApiClient, is_chunked: bool) -> None:
    def post(size: int) -> requests.Response:
        body = _padded(size)
        return caller.post_raw((body[at : at + 65_536] for at in range(0, size, 65_536)) if is_chunked else body)

    assert_refused(post(1024 * 1024), 404, "basket_not_found")
    assert_refused(post(1024 * 1024 + 1), 413, "payload_too_large", "1 MiB")
    assert_refused(post(8 * 1024 * 1024), 413, "payload_too_large", "1 MiB")


def _nested(levels: int, opening: str, closing: str) -> bytes:
    inner = levels - 1
    return (
        '{"basket_name": "nobody", "metadata": {"a": ' + opening * (inner - 1) + "1" + closing * (inner - 1) + "}}"
    ).encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_32_levels_are_accepted_and_33_are_refused(caller: ApiClient, opening: str, closing: str) -> None:
    assert_refused(caller.post_raw(_nested(32, opening, closing)), 404, "basket_not_found")
    assert_refused(caller.post_raw(_nested(33, opening, closing)), 400, "invalid_json", "32 levels")
    assert_refused(caller.post_raw(_nested(100_000, opening, closing)), 400, "invalid_json", "32 levels")


@pytest.mark.parametrize("path", [RUN, AGENT, CREATE])
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", ["empty"]),
        (b" \n", ["empty"]),
        (b"{", ["line 1"]),
        (b'{"a": 1,}', ["line 1"]),
        (b"{'a': 1}", ["line 1"]),
        (b'{"a": 1} x', ["line 1"]),
        (b"\xef\xbb\xbf{}", ["byte order mark"]),
        (b'{"a": "\xff"}', ["UTF-8"]),
        (b'{"a": "\x00"}', ["line 1"]),
        (b'{"a": NaN}', ["/a", "NaN"]),
        (b'{"a": [1, Infinity]}', ["/a/1", "infinities"]),
        (b'{"a": -Infinity}', ["/a", "infinities"]),
        (b'{"a": 1e999}', ["/a", "too large"]),
        (b'{"a": -1e999}', ["/a", "too large"]),
        (b'{"a": 9223372036854775808}', ["/a", "64 bits", "string"]),
        (b'{"a": -9223372036854775809}', ["/a", "64 bits", "string"]),
        (b'{"a": 1' + b"0" * 5_000 + b"}", ["/a", "64 bits"]),
        (b'{"a": "\\ud800"}', ["/a", "surrogate"]),
        (b'{"\\udfff": 1}', ["surrogate"]),
        (b'{"a\\u0000b": 1}', ["NUL"]),
        (b'{"a": {"b": 1, "b": 1}}', ["/a/b", "twice"]),
    ],
)
def test_invalid_json_and_json_that_no_store_accepts_are_refused(
    caller: ApiClient, path: str, raw: bytes, words: list[str]
) -> None:
    problem = assert_refused(caller.post_raw(raw, path), 400, "invalid_json", *words)
    assert len(problem["detail"]) < 500


@pytest.mark.parametrize("path", [RUN, AGENT, CREATE])
@pytest.mark.parametrize("raw", [b"[]", b"null", b'"a"', b"3", b"true", b'[{"basket_name": "working_test"}]'])
def test_a_body_that_is_not_an_object_is_refused(caller: ApiClient, path: str, raw: bytes) -> None:
    assert_refused(caller.post_raw(raw, path), 400, "validation_failed", "object")


@pytest.mark.parametrize("key", ["callback", "callback_url", "webhook", "webhook_url", "notify_url"])
def test_callbacks_are_refused(caller: ApiClient, key: str) -> None:
    for path, body, at in (
        (RUN, INPUT | {key: "http://me/"}, f"/{key}"),
        (RUN, INPUT | {key: None}, f"/{key}"),
        (RUN, {"config": {"agents": ["echo"], key: "http://me/"}}, f"/config/{key}"),
        (AGENT, {"agent_name": "echo", "input_data": {}, key: 1}, f"/{key}"),
        (CREATE, {"name": "a", "agents": ["echo"], key: 1}, f"/{key}"),
    ):
        assert_refused(caller.post(path, body), 400, "callbacks_not_supported", at, "poll status_url")


@pytest.mark.parametrize("key", KEYS + SPELT)
def test_credentials_are_refused_at_any_depth_and_never_logged_or_returned(caller: ApiClient, key: str) -> None:
    value = f"hunter2-of-{key}"
    deep = INPUT | {"input_data": {"transactions": [], "more": [{"a": [[{key: {"value": value}}]]}]}}
    for path, body, at in (
        (RUN, INPUT | {key: value}, f"/{key}"),
        (RUN, INPUT | {"metadata": {key: value}}, f"/metadata/{key}"),
        (RUN, deep, f"/input_data/more/0/a/0/0/{key}"),
        (AGENT, {"agent_name": "echo", "input_data": {key: [value]}}, f"/input_data/{key}"),
        (CREATE, {"name": "a", "agents": ["echo"], key: value}, f"/{key}"),
    ):
        response = caller.post(path, body)
        problem = assert_refused(response, 400, "credentials_not_accepted", at)
        assert problem["details"][0]["pointer"] == at
        assert value not in response.text
        assert value not in str(response.headers)
    # A later request is in the log already, so an earlier one would be there too.
    last_request_id = caller.get(f"/nowhere-{key}").headers["X-Request-ID"]
    assert last_request_id in caller.stack.logs("api")
    assert value not in caller.stack.logs("api")


def test_only_a_whole_key_is_a_credential(caller: ApiClient) -> None:
    harmless = {"passwords": 1, "secretary": 2, "token": 3, "my_api_key_name": 4, "authorization_code": 5}
    assert_refused(caller.post(RUN, {"basket_name": "nobody", "input_data": harmless}), 404, "basket_not_found")


def test_no_other_value_of_a_refused_body_is_logged(caller: ApiClient) -> None:
    value = "a-very-private-value"
    assert_refused(caller.post(RUN, INPUT | {"input_data": {"transactions": value}}), 400, "validation_failed")
    assert_refused(caller.post_raw(json.dumps({"basket_name": "nobody", "a": value}).encode()), 404, "basket_not_found")
    last_request_id = caller.get("/nowhere").headers["X-Request-ID"]
    assert last_request_id in caller.stack.logs("api")
    assert value not in caller.stack.logs("api")
