"""What goes out with a call: headers, keys, bodies; what comes back; redirects; old answers."""

from __future__ import annotations

import functools
import gzip
from typing import Any

import httpx2
import pytest
import redis

from tests.integration.worker.gateway.conftest import KEY, Harness
from tests.provider_stub import HUGE_BYTES, ProviderStub, Received, Reply
from worker.gateway.gateway_errors import GatewayError


def test_calls_are_those_of_httpx(harness: Harness, stub: ProviderStub) -> None:
    http = harness.gateway(traceparent="00-aa-bb-01")
    response = http.get(f"{stub.url}/echo", params={"a": "1"}, headers={"X-Own": "x"}, auth=("user", "password"))
    echoed = response.json()["headers"]
    assert (response.status_code, response.stale, response.elapsed.total_seconds() > 0) == (200, False, True)
    assert (echoed["x-request-id"], echoed["traceparent"], echoed["x-own"]) == ("req-1", "00-aa-bb-01", "x")
    assert echoed["user-agent"].startswith("bucket/")
    assert echoed["authorization"].startswith("Basic ")
    assert "idempotency-key" not in echoed
    assert stub.requests[-1].query == {"a": ["1"]}
    for send, options, body in (
        (http.post, {"json": {"a": 1}}, '{"a":1}'),
        (http.put, {"content": iter([b"a", b"b"])}, None),
        (http.patch, {"data": {"a": "1"}}, "a=1"),
        (http.delete, {}, ""),
    ):
        echoed = send(f"{stub.url}/echo", **options).json()
        assert body is None or echoed["body"] == body


def test_each_write_of_a_step_has_a_key_that_is_the_same_in_its_repeats_and_in_the_next_attempt(
    harness: Harness, stub: ProviderStub
) -> None:
    for _attempt in range(2):
        http = harness.gateway()
        http.post(f"{stub.url}/sequence/503,200,503,200")
        http.get(f"{stub.url}/json")
        http.patch(f"{stub.url}/echo")
        http.put(f"{stub.url}/echo", idempotency_key="own")
        http.delete(f"{stub.url}/echo")
    keys = [request.headers.get("idempotency-key") for request in stub.requests]
    assert keys == [KEY, KEY, None, f"{KEY}:2", "own", f"{KEY}:4"] * 2


def test_an_unknown_option_is_an_error(harness: Harness, stub: ProviderStub) -> None:
    with pytest.raises(TypeError, match="parms"):
        harness.gateway().get(f"{stub.url}/json", parms={})


def test_a_redirect_within_the_origin_keeps_what_was_sent(harness: Harness, stub: ProviderStub) -> None:
    response = harness.gateway().post(
        f"{stub.url}/redirect/307?to=/echo", json={"a": 1}, headers={"Authorization": "Bearer s3cret"}
    )
    assert response.json()["body"] == '{"a":1}'
    assert response.json()["headers"]["authorization"] == "Bearer s3cret"
    assert response.json()["headers"]["idempotency-key"] == KEY


def test_a_redirect_to_another_origin_takes_no_credentials_along(harness: Harness, stub: ProviderStub) -> None:
    with ProviderStub() as other:
        harness.hosts.append(other.url)
        headers = {"Authorization": "Bearer s3cret", "X-Api-Key": "s3cret", "Accept": "text/x"}
        http = harness.gateway()
        response = http.post(f"{stub.url}/redirect/307?to={other.url}/echo", headers=headers, auth=("u", "s3cret"))
        assert "s3cret" not in response.text
        assert "idempotency-key" not in response.json()["headers"]
        assert response.json()["headers"]["accept"] == "text/x"


@pytest.mark.parametrize(
    ("to", "kind"),
    [
        ("https://elsewhere.example/", "not_allowed"),
        ("file:///etc/passwd", "not_allowed"),
        ("http://a:b/", "bad_response"),
    ],
)
def test_a_redirect_elsewhere_is_not_followed(harness: Harness, stub: ProviderStub, to: str, kind: str) -> None:
    with pytest.raises(GatewayError) as caught:
        harness.gateway().get(f"{stub.url}/redirect/302", params={"to": to})
    assert caught.value.kind == kind
    assert len(stub.requests) == 1


def test_redirects_end_after_five(harness: Harness, stub: ProviderStub) -> None:
    stub.reply("/loop", lambda _: Reply(302, b"", {"Location": "/loop"}))
    with pytest.raises(GatewayError, match="redirects more than 5 times"):
        harness.gateway().get(f"{stub.url}/loop")
    assert stub.count("/loop") == 6
    assert harness.gateway().get(f"{stub.url}/loop", follow_redirects=False).status_code == 302


def test_cookies_of_one_step_are_not_sent_by_another(harness: Harness, stub: ProviderStub) -> None:
    stub.reply("/login", lambda _: Reply(headers={"Set-Cookie": "session=1"}))
    outbound = harness.outbound()
    first = harness.gateway(outbound)
    first.get(f"{stub.url}/login")
    assert first.get(f"{stub.url}/echo").json()["headers"]["cookie"] == "session=1"
    assert "cookie" not in harness.gateway(outbound).get(f"{stub.url}/echo").json()["headers"]


def test_the_last_good_answer_stands_in_for_a_failed_read_if_the_agent_asks(
    harness: Harness, stub: ProviderStub, redis_client: redis.Redis
) -> None:
    replies = iter([Reply(body={"rate": 1}, headers={"Set-Cookie": "session=1"})])
    stub.reply("/rates", lambda _: next(replies, Reply(503)))
    url = f"{stub.url}/rates"
    auth: dict[str, Any] = {"headers": {"Authorization": "Bearer one"}, "fallback": True}
    assert harness.gateway().get(url, **auth).stale is False

    stale = harness.gateway().get(url, **auth)
    assert (stale.stale, stale.json(), stale.headers["content-type"]) == (True, {"rate": 1}, "application/json")
    assert "set-cookie" not in stale.headers
    assert stale.stale_s is not None
    assert harness.lines[-1][0].startswith("an old answer is used")
    [key] = redis_client.keys("answer:*")
    assert 0 < redis_client.ttl(key) <= 86_400

    others: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"integrator": "other"}, auth),
        ({"agent": "other"}, auth),
        ({"settings": {"RATES_API_KEY": "other"}}, auth),
        ({}, {"fallback": True}),
        ({}, {**auth, "auth": ("user", "password")}),
        ({}, {**auth, "params": {"page": 2}}),
        ({}, {"headers": auth["headers"]}),
    ]
    for facts, options in others:
        with pytest.raises(GatewayError):
            harness.gateway(**facts).get(url, **options)


def test_a_client_error_is_no_reason_for_an_old_answer_and_a_large_one_is_not_kept(
    harness: Harness, stub: ProviderStub, redis_client: redis.Redis
) -> None:
    replies = iter([Reply(), Reply(404)])
    stub.reply("/gone", lambda _: next(replies))
    harness.gateway().get(f"{stub.url}/gone", fallback=True)
    with pytest.raises(GatewayError, match="client_error"):
        harness.gateway().get(f"{stub.url}/gone", fallback=True)

    def large(_: Received) -> Reply:
        return Reply(body=b" " * 300_000)

    stub.reply("/large", large)
    harness.gateway().get(f"{stub.url}/large", fallback=True)
    assert len(redis_client.keys("answer:*")) == 1
    with pytest.raises(ValueError, match="GET alone"):
        harness.gateway().post(f"{stub.url}/gone", fallback=True)


def test_a_compressed_body_is_whole_or_an_error(harness: Harness, stub: ProviderStub) -> None:
    members, headers = gzip.compress(b'{"a": ') + gzip.compress(b"1}"), {"Content-Encoding": "gzip"}
    stub.reply("/members", lambda _: Reply(body=members, headers=headers))
    stub.reply("/incomplete", lambda _: Reply(body=members[:-9], headers=headers))
    assert harness.gateway().get(f"{stub.url}/members").json() == {"a": 1}
    with pytest.raises(GatewayError, match="bad_response"):
        harness.gateway().get(f"{stub.url}/incomplete")


def test_an_old_answer_is_refused_if_its_credentials_cannot_be_told(harness: Harness, stub: ProviderStub) -> None:
    def bearer(token: str) -> Any:
        def sign(request: Any) -> Any:
            request.headers["Authorization"] = f"Bearer {token}"
            return request

        return sign

    http = harness.gateway()
    assert http.get(f"{stub.url}/echo", auth=bearer("one")).is_success
    for auth in (bearer("one"), functools.partial(bearer("two"))):
        with pytest.raises(ValueError, match="put them into headers instead"):
            http.get(f"{stub.url}/echo", auth=auth, fallback=True)
    assert http.get(f"{stub.url}/echo", auth=httpx2.BasicAuth("user", "password"), fallback=True).is_success


def test_a_head_of_a_large_file_is_no_large_answer(harness: Harness, stub: ProviderStub) -> None:
    stub.reply("/file", lambda _: Reply(body=b" " * HUGE_BYTES))
    response = harness.gateway().request("HEAD", f"{stub.url}/file")
    assert (response.status_code, response.content) == (200, b"")
