"""What a submit sends: one key for all of its repeats, and only options that exist."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from bucket_client import Unavailable
from bucket_client.submits import retry, run, run_agent
from tests.unit.client.flow_player import NO_REPLY, FlowPlayer, reply

ACCEPTED = reply(202, {"execution_id": "a", "status": "queued", "done": False, "rev": 1, "poll_after_ms": 500})


def sent(player: FlowPlayer) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(player.requests[-1].body or b"")
    return body


def test_every_repeat_of_a_submit_carries_the_same_key_and_every_submit_another() -> None:
    player = FlowPlayer([NO_REPLY, reply(503), ACCEPTED, ACCEPTED])
    player.play(run(player.settings(), "b", {}))
    player.play(run(player.settings(), "b", {}))
    keys = [request.headers["Idempotency-Key"] for request in player.requests]
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]


def test_a_key_of_the_callers_own_is_sent_and_comes_back_with_an_unknown_outcome() -> None:
    player = FlowPlayer([NO_REPLY])
    with pytest.raises(Unavailable) as caught:
        player.play(run(player.settings(retries=0), "b", {}, idempotency_key="order-17"))
    assert player.requests[0].headers["Idempotency-Key"] == "order-17"
    assert caught.value.idempotency_key == "order-17"


def test_options_are_members_of_the_body_and_headers() -> None:
    player = FlowPlayer([ACCEPTED])
    at = datetime(2026, 12, 1, 8, tzinfo=UTC)
    player.play(
        run(player.settings(), "b", {"x": 1}, tags=("a",), run_after=at, deadline_s=5, request_id="r-1", reference=None)
    )
    assert sent(player) == {
        "basket_name": "b",
        "input_data": {"x": 1},
        "tags": ["a"],
        "run_after": "2026-12-01T08:00:00+00:00",
        "deadline_s": 5,
    }
    assert player.requests[0].headers["X-Request-ID"] == "r-1"


def test_a_definition_is_sent_as_config_and_no_input_as_none() -> None:
    player = FlowPlayer([ACCEPTED, ACCEPTED])
    player.play(run(player.settings(), {"agents": ["echo"]}))
    assert sent(player) == {"config": {"agents": ["echo"]}}
    player.play(run_agent(player.settings(), "echo", {"x": 1}, stateful=True))
    assert sent(player) == {"agent_name": "echo", "input_data": {"x": 1}, "stateful": True}


def test_a_misspelt_option_is_refused_with_the_right_one() -> None:
    player = FlowPlayer()
    options: dict[str, Any] = {"tagz": ["a"]}
    with pytest.raises(TypeError, match="did you mean 'tags'"):
        player.play(run(player.settings(), "b", {}, **options))
    with pytest.raises(TypeError, match="there are deadline_s"):
        player.play(run(player.settings(), "b", {}, zzz=1))  # type: ignore[call-arg]


def test_a_time_without_a_zone_is_refused() -> None:
    player = FlowPlayer()
    with pytest.raises(ValueError, match="time zone"):
        player.play(run(player.settings(), "b", {}, run_after=datetime(2026, 12, 1)))  # noqa: DTZ001


def test_a_retry_carries_a_key_too() -> None:
    player = FlowPlayer([ACCEPTED])
    player.play(retry(player.settings(), "a", start="start"))
    assert sent(player) == {"from": "start"}
    assert player.requests[0].headers["Idempotency-Key"]
