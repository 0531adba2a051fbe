"""The feed: when a page is acknowledged, what an expired cursor leads to, and results that did not fit into a page."""

from __future__ import annotations

from typing import Any

import pytest

from bucket_client import NotFound
from bucket_client.effects import Emit, Reply, Request
from bucket_client.feed import changes
from tests.unit.client.flow_player import NO_REPLY, FlowPlayer, reply

CREATED = reply(200, {"consumer": "c", "cursor": "0"})
ACKED = reply(200, {"consumer": "c", "cursor": "1"})


def row(name: str, *, done: bool = True, **members: Any) -> dict[str, Any]:
    return {"execution_id": name, "status": "completed" if done else "running", "done": done, "rev": 3} | members


def page(*rows: dict[str, Any], cursor: str = "1", caught_up: bool = False) -> Reply:
    return reply(200, {"changes": list(rows), "next_since": cursor, "caught_up": caught_up, "poll_after_ms": 700})


EMPTY = page(caught_up=True)


def test_a_page_is_acknowledged_only_when_more_is_asked_for() -> None:
    player = FlowPlayer([CREATED, page(row("a"), row("b")), ACKED])
    flow = changes(player.settings(), "c")
    outcome, sent = None, []
    while True:
        effect = flow.send(outcome)
        if isinstance(effect, Emit) and effect.value.execution_id == "b":
            break
        assert isinstance(effect, Request | Emit)
        sent += [effect.path] if isinstance(effect, Request) else []
        outcome = player._outcome_of(effect)
    assert sent == ["/consumers/c", "/consumers/c/changes"]
    asked = flow.send(None)
    assert isinstance(asked, Request)
    assert (asked.path, asked.body) == ("/consumers/c/ack", b'{"cursor":"1"}')


def test_an_empty_page_is_acknowledged_too_and_followed_by_the_pause_that_it_asks_for() -> None:
    player = FlowPlayer([CREATED, page(cursor="5"), ACKED, EMPTY, ACKED])
    player.play(changes(player.settings(), "c", follow=False))
    assert [body["cursor"] for body in player.bodies()] == ["5", "1"]
    assert player.sleeps == [0.7]


def test_only_ends_are_yielded_on_request_and_filters_are_sent() -> None:
    player = FlowPlayer([CREATED, page(row("a", done=False), row("b")), ACKED, EMPTY, ACKED])
    player.play(changes(player.settings(), "c", basket="x", tag="t", only_done=True, page_size=7, follow=False))
    assert [run.execution_id for run in player.emitted] == ["b"]
    assert {name: player.requests[1].params[name] for name in ("basket", "tag", "limit")} == {
        "basket": "x",
        "tag": "t",
        "limit": "7",
    }


def test_a_restart_of_the_server_is_outlived() -> None:
    player = FlowPlayer([NO_REPLY, CREATED, reply(503), NO_REPLY, page(row("a")), *[NO_REPLY] * 7, ACKED, EMPTY, ACKED])
    player.play(changes(player.settings(retries=0), "c", follow=False))
    assert [run.execution_id for run in player.emitted] == ["a"]


def test_a_consumer_that_was_away_for_too_long_reads_the_list_and_goes_on_from_its_cursor() -> None:
    resync = {"since": "9", "list": "/prefix/api/v1/executions?updated_since=2026-11-21T00:00:00Z&order=updated"}
    expired = reply(410, {"error_code": "cursor_expired", "detail": "too old", "resync": resync})
    first = reply(200, {"executions": [row("a"), row("b", done=False)], "next_cursor": "n"})
    last = reply(200, {"executions": [row("c")], "next_cursor": None})
    player = FlowPlayer([CREATED, expired, first, last, ACKED, EMPTY, ACKED])
    player.play(changes(player.settings(), "c", tag="t", only_done=True, follow=False))
    assert [run.execution_id for run in player.emitted] == ["a", "c"]
    listed = [request for request in player.requests if request.path == "/executions"]
    assert [request.params.get("cursor") for request in listed] == [None, "n"]
    assert (listed[0].params["updated_since"], listed[0].params["tag"]) == ("2026-11-21T00:00:00Z", "t")
    assert next(iter(player.bodies())) == {"cursor": "9"}


def test_an_unknown_consumer_is_no_expired_one() -> None:
    player = FlowPlayer([CREATED, reply(404, {"error_code": "consumer_not_found", "detail": "gone"})])
    with pytest.raises(NotFound, match="gone"):
        player.play(changes(player.settings(), "c"))


def test_a_result_that_is_gone_does_not_stop_the_feed() -> None:
    omitted = {"omitted": True, "bytes": 9, "url": "/executions/a?fields=result"}
    gone = reply(410, {"error_code": "execution_expired", "detail": "gone"})
    player = FlowPlayer([CREATED, page(row("a", result=omitted)), gone, ACKED, EMPTY, ACKED])
    player.play(changes(player.settings(), "c", follow=False))
    assert [(run.execution_id, run.result) for run in player.emitted] == [("a", None)]


def test_a_result_that_did_not_fit_is_fetched_and_one_that_only_looks_so_is_kept() -> None:
    omitted = {"omitted": True, "bytes": 9, "url": "/executions/a?fields=result"}
    player = FlowPlayer(
        [
            CREATED,
            page(row("a", result=omitted), row("b", result=omitted | {"url": "/elsewhere"})),
            reply(200, {"result": "whole"}),
            ACKED,
            EMPTY,
            ACKED,
        ]
    )
    player.play(changes(player.settings(), "c", follow=False))
    assert [run.result for run in player.emitted] == ["whole", omitted | {"url": "/elsewhere"}]
