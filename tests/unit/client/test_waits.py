"""Waits obey the hints, use ETags and held polls, and end in time."""

from __future__ import annotations

from typing import Any

import pytest

from bucket_client import Execution, ExecutionCancelled, ExecutionFailed, NotFound, ServerFault, Timeout
from bucket_client.effects import Reply
from bucket_client.waits import poll, poll_many, run_and_wait, wait, wait_many
from tests.unit.client.flow_player import NO_REPLY, FlowPlayer, reply


def view(status: str = "running", rev: int = 1, name: str = "a", **members: Any) -> dict[str, Any]:
    done = status in {"completed", "failed", "cancelled"}
    hint = {} if done else {"poll_after_ms": 800}
    return {"execution_id": name, "status": status, "done": done, "rev": rev, "steps": []} | hint | members


def polled(status: str = "running", rev: int = 1, **headers: str) -> Reply:
    return reply(200, view(status, rev), etag=f'W/"a.{rev}"', **headers)


DONE = polled("completed", 9)


def test_a_wait_pauses_as_the_reply_says() -> None:
    player = FlowPlayer([polled(), polled(rev=2), DONE])
    done = player.play(wait(player.settings(), "a"))
    assert done.status == "completed"
    assert player.sleeps == [0.8, 0.8]


def test_the_header_of_a_304_wins_over_the_body_that_is_kept() -> None:
    player = FlowPlayer([polled(), reply(304, retry_after="5"), DONE])
    player.play(wait(player.settings(), "a"))
    assert player.sleeps == [0.8, 5]
    assert [request.headers.get("If-None-Match") for request in player.requests] == [None, 'W/"a.1"', 'W/"a.1"']


def test_a_304_that_has_lost_its_retry_after_does_not_end_a_wait() -> None:
    player = FlowPlayer([polled(), reply(304), DONE])
    assert player.play(wait(player.settings(), "a")).rev == 9
    assert player.sleeps == [0.8, 1.0]


def test_a_poll_is_held_and_one_that_was_held_is_soon_followed_by_the_next() -> None:
    player = FlowPlayer([polled(preference_applied="wait=20"), DONE], request_s=20)
    player.play(wait(player.settings(), "a"))
    assert player.requests[0].headers["Prefer"] == "wait=20"
    assert player.requests[0].params == {"until": "done"}
    assert player.requests[0].hold_s == 20
    assert player.sleeps == [0.25]


def test_progress_is_told_with_each_change_and_then_polls_are_held_only_until_the_next() -> None:
    seen: list[int] = []
    player = FlowPlayer([polled(), reply(304, retry_after="1"), polled(rev=2), DONE])
    player.play(wait(player.settings(), "a", lambda execution: seen.append(execution.rev)))
    assert seen == [1, 2, 9]
    assert player.requests[0].params == {}


def test_a_wait_ends_in_time_with_what_was_seen() -> None:
    player = FlowPlayer([polled()] * 20)
    with pytest.raises(Timeout, match="goes on") as caught:
        player.play(wait(player.settings(), "a", timeout=3))
    assert sum(player.sleeps) == pytest.approx(3)
    assert caught.value.execution is not None
    assert caught.value.execution.status == "running"
    assert all(request.hold_s <= 3 for request in player.requests)


def test_a_wait_outlives_a_restart() -> None:
    player = FlowPlayer([polled(), *[NO_REPLY] * 7, DONE])
    assert player.play(wait(player.settings(retries=1), "a")).status == "completed"


@pytest.mark.parametrize(("status", "kind"), [("failed", ExecutionFailed), ("cancelled", ExecutionCancelled)])
def test_a_run_that_ended_badly_is_raised_or_returned(status: str, kind: type[ExecutionFailed]) -> None:
    error = {"error_code": "agent_error", "message": "no data", "kind": "permanent", "step": "s", "retryable": False}
    ended = reply(200, view(status, error=error, logs=[{"seq": 1, "message": "tried"}]))
    player = FlowPlayer([ended])
    with pytest.raises(ExecutionFailed, match="no data") as caught:
        player.play(wait(player.settings(), "a"))
    assert type(caught.value) is kind
    assert (caught.value.step, caught.value.kind, caught.value.error_code) == ("s", "permanent", "agent_error")
    assert caught.value.log_lines == ["tried"]
    player.outcomes.append(ended)
    assert player.play(wait(player.settings(), "a", check=False)).status == status


def test_a_quick_run_takes_one_request() -> None:
    player = FlowPlayer([reply(200, view("completed", result={"a": 1}), preference_applied="wait=20")])
    assert player.play(run_and_wait(player.settings(), "b", {})).result == {"a": 1}
    assert player.requests[0].headers["Prefer"] == "wait=20"


def test_a_slow_run_is_polled_on_after_its_submit() -> None:
    accepted = {"execution_id": "a", "status": "queued", "done": False, "rev": 1, "poll_after_ms": 500}
    player = FlowPlayer([reply(202, accepted), DONE])
    assert player.play(run_and_wait(player.settings(), "b", {}, timeout=30)).status == "completed"
    assert player.sleeps == [0.5]


def test_a_repeated_submit_of_a_run_that_is_done_is_polled_for_its_result() -> None:
    replayed = {"execution_id": "a", "status": "completed", "done": True, "rev": 4}
    player = FlowPlayer([reply(202, replayed), reply(200, view("completed", 4, result=7))])
    assert player.play(run_and_wait(player.settings(), "b", {}, idempotency_key="k")).result == 7


def many(*changed: dict[str, Any], **members: Any) -> Reply:
    return reply(200, {"changed": list(changed), "unchanged": 0, "not_found": [], "poll_after_ms": 600} | members)


def test_many_are_polled_by_revision_and_only_those_that_are_done_are_fetched() -> None:
    player = FlowPlayer(
        [
            many(view("running", 3, "a"), view("completed", 5, "b")),
            many(view("completed", 5, "b", result=2)),
            many(view("failed", 4, "a")),
            many(view("failed", 4, "a", error={"error_code": "x"})),
        ]
    )
    first, second = player.play(wait_many(player.settings(), ["a", "b"]))
    assert (first.status, second.result) == ("failed", 2)
    bodies = list(player.bodies())
    assert bodies[0]["items"] == [{"execution_id": "a", "rev": None}, {"execution_id": "b", "rev": None}]
    assert bodies[1] == {"items": [{"execution_id": "b"}], "view": "full"}
    assert bodies[2]["items"] == [{"execution_id": "a", "rev": 3}]
    assert player.sleeps == pytest.approx([0.6])


def test_what_did_not_fit_into_a_reply_is_fetched_by_the_next() -> None:
    player = FlowPlayer([many(view(name="a"), left_out=["b"]), many(view(name="b"))])
    found = player.play(poll_many(player.settings(), ["b", "a", "b"]))
    assert [execution.execution_id for execution in found] == ["b", "a", "b"]


def test_more_than_500_are_polled_in_several_requests() -> None:
    ids = [f"id-{number}" for number in range(501)]
    done = [view("completed", 2, name) for name in ids]
    player = FlowPlayer([many(*done[:500]), many(*done[:500]), many(done[500]), many(done[500])])
    assert len(player.play(wait_many(player.settings(), ids))) == 501


def test_an_unknown_id_is_refused_and_a_wait_for_many_ends_in_time() -> None:
    player = FlowPlayer([many(not_found=["a"])])
    with pytest.raises(NotFound, match="does not know a"):
        player.play(wait_many(player.settings(), ["a"]))
    player = FlowPlayer([many(view())] * 5)
    with pytest.raises(Timeout, match="1 of 1"):
        player.play(wait_many(player.settings(), ["a"], timeout=2))


def test_no_id_needs_no_request() -> None:
    player = FlowPlayer()
    assert player.play(wait_many(player.settings(), [])) == []


def test_an_execution_has_the_names_and_types_of_its_json() -> None:
    execution = Execution.from_json(view(created_at="2026-11-21T04:40:00.123Z", tags=["a"], brand_new=1))
    assert execution.created_at is not None
    assert execution.created_at.isoformat() == "2026-11-21T04:40:00.123000+00:00"
    assert (execution.tags, execution.result, execution.raw["brand_new"]) == (["a"], None, 1)


def test_each_of_many_is_polled_no_earlier_than_its_own_reply_says() -> None:
    ids = [f"id-{number}" for number in range(501)]
    slow = many(*(view("running", 1, name) for name in ids[:500]), poll_after_ms=30_000)
    quick = many(view("running", 1, ids[500]), poll_after_ms=250)
    player = FlowPlayer([slow, quick, *[quick] * 11])
    with pytest.raises(Timeout):
        player.play(wait_many(player.settings(), ids, timeout=2.9))
    sizes = [len(body["items"]) for body in player.bodies()]
    assert sizes[0] == 500
    assert set(sizes[1:]) == {1}


def test_a_wait_is_over_in_time_also_if_nobody_replies_and_is_a_timeout_then() -> None:
    player = FlowPlayer([polled(), *[NO_REPLY] * 100])
    with pytest.raises(Timeout, match="connection refused") as caught:
        player.play(wait(player.settings(), "a", timeout=10))
    assert sum(player.sleeps) == pytest.approx(10)
    assert caught.value.execution is not None
    assert player.requests[-1].limit_s <= 10


def test_a_submit_that_is_waited_for_keeps_the_time_of_the_wait_and_bears_its_key() -> None:
    player = FlowPlayer([reply(503)] * 100)
    with pytest.raises(Timeout) as caught:
        player.play(run_and_wait(player.settings(), "b", {}, timeout=4, idempotency_key="k"))
    assert sum(player.sleeps) == pytest.approx(4)
    assert caught.value.idempotency_key == "k"


def test_a_single_fault_of_the_server_does_not_end_a_wait_but_a_lasting_one_does() -> None:
    broken = Reply(200, {}, b'{"execution_id": "a", "sta')
    player = FlowPlayer([reply(500), broken, DONE])
    assert player.play(wait(player.settings(), "a")).status == "completed"
    player = FlowPlayer([reply(500)] * 10)
    with pytest.raises(ServerFault):
        player.play(wait(player.settings(), "a"))
    assert len(player.requests) == 4


@pytest.mark.parametrize("body", [{}, {"execution_id": "a"}, view(created_at="yesterday"), []])
def test_a_reply_that_shows_no_run_is_a_fault_of_the_server(body: Any) -> None:
    player = FlowPlayer([reply(200, body)])
    with pytest.raises(ServerFault):
        player.play(poll(player.settings(), "a"))


def test_a_poll_of_many_that_is_none_is_a_fault_of_the_server() -> None:
    player = FlowPlayer([reply(200, {"items": []})])
    with pytest.raises(ServerFault, match="lacks changed"):
        player.play(wait_many(player.settings(), ["a"]))
    player = FlowPlayer([many(view("completed")), *[many(left_out=["a"])] * 2])
    with pytest.raises(ServerFault, match="none of its runs"):
        player.play(wait_many(player.settings(), ["a"]))


def test_a_hint_of_nothing_is_still_a_pause() -> None:
    player = FlowPlayer([reply(200, view(poll_after_ms=0)), DONE])
    player.play(wait(player.settings(), "a"))
    assert player.sleeps == [0.25]


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_that_makes_no_sense_is_refused(timeout: float) -> None:
    player = FlowPlayer()
    with pytest.raises(ValueError, match="timeout"):
        player.play(wait(player.settings(), "a", timeout=timeout))
    with pytest.raises(TypeError, match="several ids"):
        player.play(wait_many(player.settings(), "abc"))
