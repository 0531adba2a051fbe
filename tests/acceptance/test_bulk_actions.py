"""Bulk actions on a real stack: hundreds of runs, dry runs, cancels midway, refused filters, repeated requests."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.acceptance.client import ApiClient
from tests.waiting import wait_until


def post_action(caller: ApiClient, body: Any) -> Any:
    return caller.request("POST", "/executions/actions", json=body)


def act(caller: ApiClient, action: str, filters: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Post a bulk action, wait for its end and return its counts."""
    response = post_action(caller, {"action": action, "filter": filters, **more})
    assert response.status_code == 202, response.text
    view = caller.wait_done(response.json()["execution_id"])
    assert view["status"] == "completed", view
    result: dict[str, Any] = view["result"]
    return result


def counts(matched: int, done: int = 0, failed: int = 0, skipped: int = 0, *, dry_run: bool = False) -> dict[str, Any]:
    return {"matched": matched, "done": done, "failed": failed, "skipped": skipped, "dry_run": dry_run}


def submit_many(caller: ApiClient, number: int, tag: str, **more: Any) -> list[str]:
    """Submit runs of the agent ``raiser`` or ``echo`` in batches, and return their ids."""
    config = more.pop("config", {"name": "many", "steps": [{"agent": "echo", "retry": "none"}]})
    item = {"config": config, "input_data": {}, "tags": [tag], **more}
    ids: list[str] = []
    while len(ids) < number:
        size = min(100, number - len(ids))
        replies = caller.post("/run-basket/batch", {"items": [item] * size}).json()["items"]
        ids += [reply["execution_id"] for reply in replies]
    return ids


def failing(caller: ApiClient, number: int, tag: str, kind: str = "TransientError") -> list[str]:
    config = {"name": f"failing {tag}", "steps": [{"agent": "raiser", "retry": "none"}]}
    ids = submit_many(caller, number, tag, config=config, input_data={"kind": kind, "message": "no"})
    wait_until(lambda: count(caller, status="failed", tag=tag) == number, 30, "all have failed")
    return ids


def count(caller: ApiClient, **query: Any) -> int:
    return len(caller.get("/executions", params={"limit": 1000, **query}).json()["executions"])


def new_tag() -> str:
    return f"bulk-{uuid.uuid4().hex[:12]}"


def test_hundreds_of_waiting_runs_are_counted_and_then_cancelled(caller: ApiClient) -> None:
    tag = new_tag()
    submit_many(caller, 320, tag, run_after_s=3600)
    assert act(caller, "cancel", {"tag": tag}, dry_run=True) == counts(320, dry_run=True)
    assert count(caller, tag=tag, status="scheduled") == 320
    assert act(caller, "cancel", {"tag": tag}, limit=20.0) == counts(20, done=20)
    response = post_action(caller, {"action": "cancel", "filter": {"tag": tag, "status": "scheduled,queued"}})
    action = response.json()["execution_id"]
    assert caller.wait_done(action)["result"] == counts(300, done=300)
    cancelled = caller.get("/executions", params={"tag": tag, "status": "cancelled", "limit": 1000}).json()
    assert len(cancelled["executions"]) == 320
    assert f"bulk action {action}" in cancelled["executions"][0]["error"]["message"]
    assert act(caller, "cancel", {"tag": tag}) == counts(0)


def test_failed_runs_are_retried_once_each_and_their_dead_letters_go(caller: ApiClient) -> None:
    tag = new_tag()
    ids = failing(caller, 60, tag)
    code = caller.poll(ids[0])["error"]["error_code"]
    assert act(caller, "retry", {"tag": tag, "error_code": "nothing"}) == counts(0)
    assert act(caller, "retry", {"tag": tag, "error_code": code}) == counts(60, done=60)
    wait_until(lambda: count(caller, tag=tag, status="failed") == 120, 30, "the retries have failed too")
    for each in ids[:5]:
        assert count(caller, retry_of=each) == 1
    letters = caller.get("/dead-letters", params={"basket": f"failing {tag}", "limit": 1000}).json()["dead_letters"]
    assert len(letters) == 60
    assert {letter["id"] for letter in letters}.isdisjoint(ids), "each was replaced by its retry"


def test_finished_runs_are_erased_and_erased_ones_are_skipped(caller: ApiClient) -> None:
    tag = new_tag()
    ids = submit_many(caller, 30, tag)
    wait_until(lambda: count(caller, tag=tag, status="completed") == 30, 30, "all are done")
    assert caller.request("DELETE", f"/executions/{ids[7]}").status_code == 200
    assert act(caller, "erase", {"tag": tag}) == counts(30, done=29, skipped=1)
    assert all("erased_at" in caller.poll(each) for each in ids[::10])
    assert act(caller, "retry", {"tag": tag}) == counts(0)


def test_an_action_does_not_match_itself_nor_what_comes_after_it(caller: ApiClient) -> None:
    before = act(caller, "cancel", {"basket": "bulk_action"}, dry_run=True)
    assert before == counts(0, dry_run=True)
    assert act(caller, "erase", {"basket": "bulk_action"}, dry_run=True)["matched"] >= 1


def test_an_action_is_cancelled_midway_and_what_is_done_stays_done(caller: ApiClient) -> None:
    tag = new_tag()
    submit_many(caller, 600, tag, run_after_s=3600)
    action = post_action(caller, {"action": "cancel", "filter": {"tag": tag}}).json()["execution_id"]
    wait_until(lambda: count(caller, tag=tag, status="cancelled") >= 20, 20, "it has begun")
    caller.request("POST", f"/executions/{action}/cancel")
    view = caller.wait_done(action)
    assert (view["status"], view["error"]["error_code"]) == ("cancelled", "cancelled")
    done = count(caller, tag=tag, status="cancelled")
    assert 20 <= done < 600
    assert act(caller, "cancel", {"tag": tag}) == counts(600 - done, done=600 - done)


def test_the_same_request_with_the_same_key_is_the_same_action(caller: ApiClient) -> None:
    tag, key = new_tag(), uuid.uuid4().hex
    body = {"action": "cancel", "filter": {"tag": tag}}
    first = post_with_key(caller, body, key)
    second = post_with_key(caller, body, key)
    assert second.json()["execution_id"] == first.json()["execution_id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    other = post_with_key(caller, body | {"dry_run": True}, key)
    assert (other.status_code, other.json()["error_code"]) == (422, "idempotency_key_reused")
    caller.wait_done(first.json()["execution_id"])


def post_with_key(caller: ApiClient, body: Any, key: str) -> Any:
    return caller.request("POST", "/executions/actions", json=body, headers={"Idempotency-Key": key})


def test_an_action_is_in_the_feed_and_cannot_be_retried(caller: ApiClient) -> None:
    since = caller.get("/executions/changes", params={"since": "now"}).json()["next_since"]
    action = post_action(caller, {"action": "cancel", "filter": {"tag": new_tag()}}).json()["execution_id"]
    view = caller.wait_done(action)
    assert view["basket_name"] == "bulk_action"

    def is_in_feed() -> bool:
        page = caller.get("/executions/changes", params={"since": since}).json()
        return action in {change["execution_id"] for change in page["changes"]}

    wait_until(is_in_feed, 10, "it is in the feed")
    refused = caller.post(f"/executions/{action}/retry", {"from": "start"})
    assert (refused.status_code, refused.json()["error_code"]) == (409, "not_retryable")


def test_nobody_runs_the_agent_of_bulk_actions_otherwise(caller: ApiClient) -> None:
    given = {"action": "erase", "filter": {"tag": "x"}}
    assert caller.post("/run-agent", {"agent_name": "bulk_action", "input_data": given}).status_code == 404
    config = {"agents": ["bulk_action"]}
    assert caller.post("/run-basket", {"config": config, "input_data": given}).status_code in {400, 404}
    assert caller.post("/create-basket", {"name": "mine", **config}).json()["error_code"] == "unknown_agent"
    assert "bulk_action" not in {agent["name"] for agent in caller.get("/agents").json()}


@pytest.mark.parametrize(
    ("body", "pointer", "text"),
    [
        ({"action": "cancel"}, "/filter", "at least one of"),
        ({"action": "cancel", "filter": {}}, "/filter", "at least one of"),
        ({"action": "cancel", "filter": []}, "/filter", "an object"),
        ({"action": "cancel", "filter": "status=failed"}, "/filter", "an object"),
        ({"action": "cancle", "filter": {"tag": "x"}}, "/action", "did you mean cancel?"),
        ({"action": {"$ne": 1}, "filter": {"tag": "x"}}, "/action", "must be cancel"),
        ({"filter": {"tag": "x"}}, "/action", "must be cancel"),
        ({"action": "cancel", "filter": {"baskt": "x"}}, "/filter", "did you mean basket?"),
        ({"action": "cancel", "filter": {"$where": "1"}}, "/filter", "'$where' is not known here"),
        ({"action": "cancel", "filter": {"tag": "x", "integrator": "other"}}, "/filter", "not known here"),
        ({"action": "cancel", "filter": {"tag": {"$ne": "x"}}}, "/filter/tag", "must be a text"),
        ({"action": "cancel", "filter": {"tag": None}}, "/filter/tag", "must be a text"),
        ({"action": "cancel", "filter": {"basket": ["a"]}}, "/filter/basket", "must be a text"),
        ({"action": "cancel", "filter": {"tag": "x" * 501}}, "/filter/tag", "must be a text"),
        ({"action": "cancel", "filter": {"status": "waiting"}}, "/filter/status", "one or several of"),
        ({"action": "cancel", "filter": {"status": {"$in": ["failed"]}}}, "/filter/status", "one or several of"),
        ({"action": "cancel", "filter": {"status": "completed"}}, "/filter/status", "name scheduled"),
        ({"action": "retry", "filter": {"status": "completed"}}, "/filter/status", "name failed"),
        ({"action": "cancel", "filter": {"created_before": "yesterday"}}, "/filter/created_before", "its offset"),
        ({"action": "cancel", "filter": {"created_after": 7}}, "/filter/created_after", "its offset"),
        ({"action": "cancel", "filter": {"tag": "x"}, "dry_run": "yes"}, "/dry_run", "true or false"),
        ({"action": "cancel", "filter": {"tag": "x"}, "limit": 0}, "/limit", "whole number"),
        ({"action": "cancel", "filter": {"tag": "x"}, "limit": True}, "/limit", "whole number"),
        ({"action": "cancel", "filter": {"tag": "x"}, "dryrun": True}, "", "did you mean dry_run?"),
    ],
)
def test_a_faulty_action_is_refused_with_its_place(caller: ApiClient, body: Any, pointer: str, text: str) -> None:
    refused = post_action(caller, body)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "validation_failed"), refused.text
    assert pointer in {detail["pointer"] for detail in refused.json()["details"]}
    assert text in refused.json()["detail"]


def test_dead_letters_are_dismissed_and_their_runs_stay(caller: ApiClient) -> None:
    tag, other = new_tag(), new_tag()
    ids = failing(caller, 60, tag)
    failing(caller, 3, other, kind="ValueError")  # a retry would not help: no dead letters
    assert caller.request("POST", f"/dead-letters/{ids[0]}/requeue").status_code == 202
    assert caller.request("POST", f"/dead-letters/{ids[1]}/dismiss").status_code == 200
    wait_until(lambda: count(caller, tag=tag, status="failed") == 61, 30, "the requeue has failed too")
    assert act(caller, "dismiss", {"tag": tag}, dry_run=True) == counts(59, dry_run=True)
    assert act(caller, "dismiss", {"tag": tag}) == counts(59, done=59)
    letters = caller.get("/dead-letters", params={"basket": f"failing {tag}", "limit": 1000}).json()["dead_letters"]
    assert letters == []
    assert {caller.poll(each)["status"] for each in ids[:5]} == {"failed"}
    assert [act(caller, "dismiss", {"tag": each}) for each in (tag, other)] == [counts(0), counts(0)]


def test_only_what_is_a_dead_letter_now_is_requeued(caller: ApiClient) -> None:
    tag = new_tag()
    requeued, dismissed, untouched = failing(caller, 3, tag)
    assert caller.request("POST", f"/dead-letters/{requeued}/requeue").status_code == 202
    assert caller.request("POST", f"/dead-letters/{dismissed}/dismiss").status_code == 200
    wait_until(lambda: count(caller, tag=tag, status="failed") == 4, 30, "the requeue has failed too")
    assert act(caller, "retry", {"tag": tag, "dead_letter": "true"}) == counts(2, done=2)
    assert [count(caller, retry_of=each) for each in (requeued, dismissed, untouched)] == [1, 0, 1]
