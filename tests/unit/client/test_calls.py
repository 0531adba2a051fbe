"""What the client repeats, how long it waits, and which error comes at last."""

from __future__ import annotations

import pytest

from bucket_client import errors
from bucket_client.calls import Patience, call, call_json, encode, pause_before_repeat
from bucket_client.effects import NoReply, Reply, Request
from tests.unit.client.flow_player import NO_REPLY, FlowPlayer, reply

GET = Request("GET", "/health")


def problem(status: int, code: str, **headers: str) -> Reply:
    body = {"detail": f"about {code}", "error_code": code, "request_id": "req-1", "details": [{"pointer": "/a"}]}
    return reply(status, body, **headers)


@pytest.mark.parametrize(
    "outcome",
    [NO_REPLY, *(problem(status, "unavailable") for status in (408, 429, 502, 503, 504)), reply(502)],
    ids=str,
)
def test_what_may_pass_is_repeated_until_it_succeeds(outcome: Reply | NoReply) -> None:
    player = FlowPlayer([outcome, outcome, reply(200, {"ok": True})])
    assert player.play(call_json(player.settings(), GET)) == {"ok": True}
    assert (len(player.requests), len(player.sleeps)) == (3, 2)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 500, 501, 302])
def test_what_would_be_refused_again_is_not_repeated(status: int) -> None:
    player = FlowPlayer([problem(status, "some_code")])
    with pytest.raises(errors.BucketError):
        player.play(call(player.settings(), GET))
    assert len(player.requests) == 1


def test_an_unavailable_agent_is_told_at_once_and_outlived_by_a_wait() -> None:
    refused = problem(503, "agent_unavailable", retry_after="30")
    player = FlowPlayer([refused])
    with pytest.raises(errors.Unavailable, match="agent_unavailable"):
        player.play(call(player.settings(), GET))
    assert (len(player.requests), player.sleeps) == (1, [])
    player = FlowPlayer([refused, reply(200, {})])
    player.play(call(player.settings(), GET, Patience.for_a_wait(player.settings())))
    assert player.sleeps == [30]


def test_pauses_double_up_to_a_bound_and_half_of_each_is_chance() -> None:
    player = FlowPlayer()
    pauses = [pause_before_repeat(player.settings(chance=1.0), attempt, None) for attempt in range(8)]
    assert pauses == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert pause_before_repeat(player.settings(chance=0.0), 2, None) == 1


def test_no_repeat_comes_before_retry_after() -> None:
    player = FlowPlayer([problem(503, "unavailable", retry_after="7"), reply(200, {})])
    player.play(call(player.settings(), GET))
    assert player.sleeps == [7]


def test_the_retries_are_counted() -> None:
    player = FlowPlayer([NO_REPLY] * 10)
    with pytest.raises(errors.Unavailable, match="connection refused"):
        player.play(call(player.settings(retries=2), GET))
    assert len(player.requests) == 3


def test_no_pause_ends_after_the_deadline() -> None:
    player = FlowPlayer([problem(503, "unavailable", retry_after="30")] * 10)
    with pytest.raises(errors.Unavailable):
        player.play(call(player.settings(retries=100), GET))
    assert player.sleeps == [30, 30, 30]  # the deadline is 30 s for a request and 60 s for repeats


def test_a_wait_outlives_any_number_of_failures_but_not_an_outage_of_ten_minutes() -> None:
    player = FlowPlayer([NO_REPLY] * 1000)
    with pytest.raises(errors.Unavailable):
        player.play(call(player.settings(), GET, Patience.for_a_wait(player.settings())))
    assert 585 < sum(player.sleeps) <= 600


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (problem(400, "validation_failed"), errors.Invalid),
        (problem(413, "payload_too_large"), errors.Invalid),
        (problem(401, "unauthorised"), errors.Forbidden),
        (problem(404, "basket_not_found"), errors.NotFound),
        (problem(410, "execution_expired"), errors.NotFound),
        (problem(409, "basket_exists"), errors.Conflict),
        (problem(422, "idempotency_key_reused"), errors.Conflict),
        (problem(429, "rate_limited"), errors.RateLimited),
        (problem(503, "overloaded"), errors.Overloaded),
        (problem(503, "outcome_unknown"), errors.Unavailable),
        (reply(504), errors.Unavailable),
        (problem(500, "internal"), errors.ServerFault),
        (reply(302, location="http://elsewhere.example/"), errors.ServerFault),
    ],
    ids=lambda value: getattr(value, "__name__", getattr(value, "status", "")),
)
def test_each_reply_has_its_kind_of_error(outcome: Reply, kind: type[errors.BucketError]) -> None:
    player = FlowPlayer([outcome])
    with pytest.raises(errors.BucketError) as caught:
        player.play(call(player.settings(retries=0), GET))
    assert type(caught.value) is kind
    assert caught.value.status == outcome.status
    if outcome.body:
        assert (caught.value.request_id, caught.value.pointers) == ("req-1", ["/a"])


def test_a_page_that_is_not_json_is_no_reply_of_bucket() -> None:
    player = FlowPlayer([Reply(200, {}, b"<html>welcome</html>"), reply(200, [1])])
    with pytest.raises(errors.ServerFault, match="does the address lead to Bucket"):
        player.play(call_json(player.settings(), GET))
    with pytest.raises(errors.ServerFault, match="no object"):
        player.play(call_json(player.settings(), GET))


def test_a_warning_of_a_reply_is_raised_at_the_callers_line() -> None:
    player = FlowPlayer([reply(200, {"warnings": ["unknown field 'inputz' was ignored"]})])
    with pytest.warns(errors.BucketWarning, match="inputz") as caught:
        player.play(call_json(player.settings(), GET))
    assert caught[0].filename.endswith("flow_player.py")


@pytest.mark.parametrize("body", [{"a": {1, 2}}, {"a": float("nan")}, {"a": object()}])
def test_what_json_cannot_say_is_refused_before_it_is_sent(body: object) -> None:
    with pytest.raises(errors.Invalid, match="JSON"):
        encode(body)
