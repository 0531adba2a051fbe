"""The judgement of recorded exchanges: which polls come too early, and which submits are not idempotent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from bucket_client.integration_check.exchanges import Exchange, RecordedReply, RecordedRequest
from bucket_client.integration_check.judgement import (
    broken_hints,
    submit_faults,
    submitted_baskets,
    uses_consumers,
)

RUN, OTHER = "1763700000_89ce24ad1b2c3d4e", "1763700000_0000000000000001"
POLL = f"/execution-logs/{RUN}"


def exchange(
    at: float,
    target: str = POLL,
    reply: Mapping[str, Any] | None = None,
    *,
    method: str = "GET",
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    status: int = 200,
    lasts: float = 0.01,
    delivered: bool = True,
    **reply_headers: str,
) -> Exchange:
    """Return an exchange that begins ``at`` this second and ``lasts`` so many."""
    sent = b"" if body is None else json.dumps(body).encode()
    request = RecordedRequest.read(at, method, target, list((headers or {}).items()), sent)
    names = {name.replace("_", "-"): value for name, value in reply_headers.items()}
    text = b"" if reply is None else json.dumps(reply).encode()
    return Exchange(request, RecordedReply.read(request, at + lasts, status, names, text), delivered)


def state(rev: int = 1, *, poll_after_ms: int | None = 500, run: str = RUN, **more: Any) -> dict[str, Any]:
    hint = {} if poll_after_ms is None else {"poll_after_ms": poll_after_ms}
    return {"execution_id": run, "status": "running", "done": False, "rev": rev} | hint | more


DONE = state(9, poll_after_ms=None, done=True)


def submit(at: float, key: str | None = "k", run: str = RUN, target: str = "/run-basket", **more: Any) -> Exchange:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"basket_name": "b", "input_data": {}}
    options: dict[str, Any] = {"method": "POST", "body": body, "headers": headers, "status": 202} | more
    return exchange(at, target, state(run=run), **options)


def batch(at: float, items: list[dict[str, Any]], runs: list[str], key: str | None = None, **more: Any) -> Exchange:
    reply = {"items": [state(run=run) | {"status": 202} for run in runs]}
    headers = {} if key is None else {"Idempotency-Key": key}
    options: dict[str, Any] = {"method": "POST", "body": {"items": items}, "headers": headers, "status": 202} | more
    return exchange(at, "/run-basket/batch", reply, **options)


def poll_of_many(at: float, *runs: str, **reply: Any) -> Exchange:
    items = [{"execution_id": run} for run in runs]
    body = {"changed": [], "unchanged": len(runs), "not_found": [], "poll_after_ms": 500} | reply
    return exchange(at, "/executions/poll", body, method="POST", body={"items": items})


def early(*exchanges: Exchange) -> list[str]:
    return [found.request for found in broken_hints(exchanges)]


def test_a_poll_that_comes_before_its_hint_is_too_early_and_one_that_waits_is_not() -> None:
    assert early(exchange(0.0, reply=state()), exchange(0.4, reply=state())) == [f"GET {POLL}"]
    assert early(exchange(0.0, reply=state()), exchange(0.52, reply=state())) == []


def test_twenty_milliseconds_too_early_are_tolerated() -> None:
    first = exchange(0.0, reply=state(), lasts=0.01)
    assert early(first, exchange(0.495)) == []
    assert early(first, exchange(0.485)) != []


def test_a_violation_says_what_came_how_early() -> None:
    [found] = broken_hints([exchange(0.0, reply=state(), lasts=0.01), exchange(0.02)])
    assert str(found) == f"GET {POLL} came 10 ms after the reply that said 500 ms"


def test_the_hint_counts_from_the_reply_and_for_each_address_of_the_run() -> None:
    first = exchange(0.0, reply=state(), lasts=0.3)
    for target in (f"/executions/{RUN}", f"/api/v1/executions/{RUN}?fields=status", f"/executions/{RUN}/result"):
        assert len(early(first, exchange(0.6, target))) == 1
    assert early(first, exchange(0.6, f"/executions/{OTHER}")) == []


def test_the_submit_says_when_to_poll_first() -> None:
    assert early(submit(0.0), exchange(0.2)) == [f"GET {POLL}"]
    assert early(submit(0.0), exchange(0.6)) == []


def test_a_long_poll_may_follow_the_submit_at_once() -> None:
    assert early(submit(0.0), exchange(0.02, f"{POLL}?wait=20")) == []
    assert early(submit(0.0), exchange(0.02, headers={"Prefer": "wait=20"})) == []
    assert early(submit(0.0), exchange(0.02, f"{POLL}?wait=0")) != []


def test_a_submit_that_was_held_may_be_followed_at_once() -> None:
    assert early(submit(0.0, preference_applied="wait=1", lasts=1.0), exchange(1.01)) == []


def test_after_a_run_that_is_done_there_is_no_hint() -> None:
    assert early(exchange(0.0, reply=DONE, retry_after="9"), exchange(0.02, f"{POLL}?fields=result")) == []
    assert early(exchange(0.0, reply=state()), exchange(0.6, status=304), exchange(0.62)) == []


def test_of_a_304_the_retry_after_counts_and_of_a_200_the_body() -> None:
    assert early(exchange(0.0, status=304, retry_after="1"), exchange(0.7)) != []
    assert early(exchange(0.0, status=304, retry_after="1"), exchange(1.0)) == []
    assert early(exchange(0.0, reply=state(), retry_after="1"), exchange(0.6)) == []
    without = state(poll_after_ms=None)
    assert early(exchange(0.0, reply=without, retry_after="1"), exchange(0.6)) != []


HELD = f"{POLL}?wait=20"


def test_after_a_long_poll_that_was_granted_or_brought_a_change_the_next_may_come_at_once() -> None:
    first = exchange(0.0, HELD, state(1))
    assert early(first, exchange(0.6, HELD, state(2)), exchange(0.62, HELD)) == []  # a change
    assert early(first, exchange(0.6, HELD, state(1), lasts=20.0), exchange(20.7, HELD)) == []  # held to its end
    granted = exchange(0.6, headers={"Prefer": "wait=20"}, status=304, retry_after="1", preference_applied="wait=20")
    assert early(first, granted, exchange(0.62)) == []


def test_after_a_long_poll_that_was_not_held_the_hint_counts() -> None:
    first = exchange(0.0, HELD, state(1))
    assert len(early(first, exchange(0.6, HELD, state(1)), exchange(0.62, HELD))) == 1
    assert len(early(first, exchange(0.6, HELD, status=304, retry_after="1"), exchange(0.9, HELD))) == 1


def test_a_change_that_an_ordinary_poll_brought_is_no_reason_to_hurry() -> None:
    assert len(early(exchange(0.0, reply=state(1)), exchange(0.6, reply=state(2)), exchange(0.62))) == 1


def test_the_result_has_hints_until_it_is_there_and_its_keys_mean_nothing() -> None:
    target = f"/executions/{RUN}/result"
    waiting = exchange(0.0, target, state(), status=202, retry_after="1")
    assert len(early(waiting, exchange(0.1, target))) == 1
    assert early(waiting, exchange(0.6, target, state(run=OTHER)), exchange(0.62), exchange(0.62, target)) == []
    assert early(waiting, exchange(0.6, target, status=409), exchange(0.62)) == []


def test_a_result_that_looks_like_a_reply_of_bucket_says_nothing() -> None:
    result = {"left_out": 7, "poll_after_ms": 1e9, "items": 1, "total": "x", "changes": {"a": 1}}
    read = exchange(0.0, f"/executions/{RUN}/result", result)
    assert read.reply is not None
    assert (read.reply.poll_after_ms, read.reply.has_more) == (None, False)
    assert exchange(0.0, "/executions/poll", result, method="POST", body={"items": [7, {}]}).request.subjects == ()


def test_a_request_that_the_server_refuses_can_be_judged_too() -> None:
    odd = batch(0.0, [{"idempotency_key": ["a"]}, {"idempotency_key": {}}], [], status=400)
    assert faults(odd) == ""
    assert [exchange(0.0, f"{POLL}?wait={text}").request.hold_s for text in ("nan", "-1", "x", "inf")] == [0, 0, 0, 30]


def test_the_rest_of_a_log_may_be_read_at_once() -> None:
    page = state(next_after=100, total=250)
    assert early(exchange(0.0, f"{POLL}?after=0", page), exchange(0.02, f"{POLL}?after=100")) == []
    whole = state(next_after=250, total=250)
    assert early(exchange(0.0, f"{POLL}?after=0", whole), exchange(0.02, f"{POLL}?after=250")) != []


def test_a_long_poll_that_brought_log_lines_may_be_followed_at_once() -> None:
    page = state(logs=[{"seq": 1}], next_after=1, total=1)
    assert early(submit(0.0), exchange(0.02, f"{HELD}&after=0", page), exchange(0.05, f"{HELD}&after=1")) == []
    assert early(submit(0.0), exchange(0.02, HELD, page), exchange(0.05, HELD)) != []  # all lines, no news


def test_a_poll_of_many_is_too_early_if_none_of_its_runs_may_be_polled() -> None:
    assert early(poll_of_many(0.0, RUN, OTHER), poll_of_many(0.1, RUN, OTHER)) == ["POST /executions/poll"]
    assert early(poll_of_many(0.0, RUN), poll_of_many(0.1, RUN, OTHER)) == []
    assert early(poll_of_many(0.0, RUN, OTHER), poll_of_many(0.6, RUN, OTHER)) == []
    assert early(poll_of_many(0.0, RUN, changed=[DONE]), poll_of_many(0.1, RUN)) == []
    assert early(poll_of_many(0.0, RUN, left_out=[RUN]), poll_of_many(0.1, RUN)) == []


def test_a_poll_of_many_may_follow_the_batch_at_once_but_not_itself() -> None:
    submitted = batch(0.0, [{}, {}], [RUN, OTHER], key="k")
    assert early(submitted, poll_of_many(0.02, RUN, OTHER)) == []
    assert early(submitted, poll_of_many(0.02, RUN, OTHER), poll_of_many(0.1, RUN)) == ["POST /executions/poll"]
    assert early(submitted, exchange(0.02)) == [f"GET {POLL}"]


FEED = "/consumers/c/changes"


def test_the_feed_is_read_on_at_once_after_changes_and_after_its_hint_if_there_were_none() -> None:
    empty = {"changes": [], "next_since": "s", "poll_after_ms": 500}
    page = empty | {"changes": [state()]}
    assert early(exchange(0.0, FEED, page), exchange(0.02, FEED)) == []
    assert early(exchange(0.0, FEED, empty), exchange(0.1, FEED)) == [f"GET {FEED}"]
    assert early(exchange(0.0, FEED, empty), exchange(0.6, FEED)) == []
    assert early(exchange(0.0, FEED, empty), exchange(0.1, f"{FEED}?tag=other")) == []
    assert early(exchange(0.0, f"{FEED}?wait=1", empty, lasts=1.0), exchange(1.1, f"{FEED}?wait=1")) == []


def test_a_change_in_the_feed_or_in_a_list_is_a_reason_to_poll_its_run() -> None:
    first = exchange(0.0, reply=state(1))
    for target, name in ((FEED, "changes"), ("/executions", "executions")):
        assert early(first, exchange(0.1, target, {name: [state(2)]}), exchange(0.2)) == []
        assert early(first, exchange(0.1, target, {name: [state(1)]}), exchange(0.2)) == [f"GET {POLL}"]


@pytest.mark.parametrize("status", [429, 503])
def test_the_retry_after_of_a_refusal_counts_for_the_same_request(status: int) -> None:
    refused = submit(0.0, status=status, retry_after="2")
    [found] = broken_hints([refused, submit(0.5)])
    assert (found.request, found.was_refused, found.allowed_s) == ("POST /run-basket", True, 2.0)
    assert early(refused, submit(2.0)) == []
    assert early(refused, submit(0.5, body={"basket_name": "another"})) == []
    assert early(exchange(0.0, status=status, retry_after="2"), exchange(0.5)) == [f"GET {POLL}"]


def test_a_reply_that_did_not_arrive_binds_nobody() -> None:
    assert early(exchange(0.0, reply=state(), delivered=False), exchange(0.02)) == []
    hung = Exchange(RecordedRequest.read(0.0, "GET", POLL), None, was_delivered=False)
    assert early(hung, exchange(1.0)) == []


def test_polls_that_overlap_are_judged_by_the_replies_that_had_come() -> None:
    assert early(exchange(0.0, reply=state(), lasts=1.0), exchange(0.5, reply=state())) == []


def test_the_recorder_keeps_no_credential() -> None:
    sent = [("Authorization", "Bearer secret"), ("Cookie", "a=secret"), ("Idempotency-Key", "k")]
    assert "secret" not in repr(RecordedRequest.read(0.0, "POST", "/run-basket", sent))


def faults(*exchanges: Exchange, ended_well: bool = True) -> str:
    return "\n".join(submit_faults(exchanges, ended_well=ended_well))


def test_each_submit_needs_a_key() -> None:
    assert faults(submit(0.0)) == ""
    assert faults(submit(0.0, key=None)) == "POST /run-basket has no Idempotency-Key"
    assert "retry has no" in faults(submit(0.0, key=None, target=f"/api/v1/executions/{RUN}/retry", body=None))


def test_a_batch_has_a_key_of_its_own_or_one_in_each_item() -> None:
    items = [{"idempotency_key": "a"}, {"idempotency_key": "b"}]
    assert faults(batch(0.0, items, [RUN, OTHER])) == ""
    assert faults(batch(0.0, [{}, {}], [RUN, OTHER], key="k")) == ""
    assert "in each item" in faults(batch(0.0, [items[0], {}], [RUN, OTHER]))


def test_after_a_lost_reply_the_same_key_is_expected() -> None:
    lost = submit(0.0, delivered=False)
    assert faults(lost, submit(1.0)) == ""
    assert "another Idempotency-Key" in faults(lost, submit(1.0, key="l", run=OTHER))
    assert "not sent again" in faults(lost)
    assert "not sent again" in faults(lost, submit(1.0, key="l", run=OTHER, body={"basket_name": "c"}))
    assert faults(lost, ended_well=False) == ""  # another check says why it ended
    assert faults(lost, exchange(1.0)) == ""  # it found the run in another way


def test_after_a_lost_batch_the_same_keys_of_its_items_are_expected() -> None:
    items = [{"idempotency_key": "a"}, {"idempotency_key": "b"}]
    lost = batch(0.0, items, [RUN, OTHER], delivered=False)
    assert faults(lost, batch(1.0, items, [RUN, OTHER])) == ""
    fresh = [{"idempotency_key": "c"}, {"idempotency_key": "d"}]
    assert "another Idempotency-Key" in faults(lost, batch(1.0, fresh, ["third", "fourth"]))


def test_there_are_no_more_runs_than_keys() -> None:
    assert "there are 2 runs of 1 distinct submits" in faults(
        submit(0.0, key=None, delivered=False), submit(1.0, key=None, run=OTHER)
    )
    assert "there are 2 runs of 1 distinct submits" in faults(submit(0.0), submit(1.0, run=OTHER))
    others = submit(0.0, key=None), submit(1.0, key=None, run=OTHER, body={"basket_name": "c"})
    assert faults(*others) == "POST /run-basket has no Idempotency-Key"  # the other run was another submit


def test_the_baskets_are_those_of_single_submits_and_of_items() -> None:
    assert submitted_baskets([submit(0.0), batch(1.0, [{"basket_name": "c"}], [OTHER]), exchange(2.0)]) == {"b", "c"}


def test_a_consumer_is_a_state_that_two_runs_of_a_command_share() -> None:
    assert uses_consumers([submit(0.0), exchange(1.0, FEED)])
    assert not uses_consumers([submit(0.0), exchange(1.0, "/executions/changes")])
