"""DELETE /executions/{id}: the content of a finished run goes from both stores, and its record stays."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared.live import log_stream
from shared.live.erased_runs import without_erased
from shared.live.redis_client import connect
from shared.live.render import parse_header
from shared.live.views import RenderedView, ViewCache
from tests.acceptance.client import AGENTS, ApiClient
from tests.stack import Stack
from tests.stored_text import places_with
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture
def caller(stack: Stack) -> Iterator[ApiClient]:
    """Yield a client of a stack whose servers a test may stop."""
    yield ApiClient(stack)
    stack.repair()


@pytest.fixture
def content() -> str:
    """Return a text that no other test stores."""
    return f"words-of-the-caller-{uuid.uuid4().hex}"


def run_with_content(caller: ApiClient, content: str, *, fails: bool = False) -> str:
    """Return the id of a finished run that left content wherever a run can leave some."""
    steps = [
        {"id": "small", "agent": "babbler", "input": {"text": content}},
        {"id": "large", "agent": "babbler", "input": {"text": content, "times": 60_000}},
        {
            "id": "last",
            "agent": "babbler",
            "needs": ["small", "large"],
            "retry": "none",
            "input": {"text": content, "fails": fails},
        },
    ]
    body = {
        "config": {"name": "erasable", "steps": steps},
        "input_data": {"a": content},
        "metadata": {"a": content},
        "reference": content,
        "tags": ["erasable"],
    }
    execution_id: str = caller.post("/run-basket", body).json()["execution_id"]
    assert caller.wait_done(execution_id)["status"] == ("failed" if fails else "completed")
    return execution_id


def erase(caller: ApiClient, execution_id: str, status: int = 200) -> dict[str, Any]:
    response = caller.request("DELETE", f"/executions/{execution_id}")
    assert response.status_code == status, response.text
    view: dict[str, Any] = response.json()
    return view


@pytest.mark.parametrize("fails", [False, True])
def test_no_byte_of_the_content_is_left_in_either_store(
    caller: ApiClient, content: str, stack: Stack, *, fails: bool
) -> None:
    execution_id = run_with_content(caller, content, fails=fails)
    caller.get(f"/executions/{execution_id}/outputs/large")
    before = caller.poll(execution_id)
    assert {"executions", "agent_memory", "outputs", "logs", f"execution:{execution_id}"} <= places_with(stack, content)

    erase(caller, execution_id)

    assert places_with(stack, content) == set()
    after = caller.poll(execution_id)
    kept = ("execution_id", "basket_name", "status", "steps", "tags", "created_at", "finished_at", "execution_metadata")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert (after["result"], after["outputs"], after["logs"], after["metadata"]) == (None, {}, [], {})
    assert after["rev"] > before["rev"]
    assert "reference" not in after
    if fails:
        assert after["error"] == before["error"] | {"message": "erased"}


def test_a_poll_says_when_and_the_addresses_of_the_content_are_gone(
    caller: ApiClient, content: str, stack: Stack
) -> None:
    execution_id = run_with_content(caller, content)
    position = caller.get("/executions/changes?since=now").json()["next_since"]
    view = erase(caller, execution_id)

    assert view["erased_at"] == caller.poll(execution_id)["erased_at"]
    for address in ("result", "outputs/large", "outputs/last"):
        response = caller.get(f"/executions/{execution_id}/{address}")
        assert (response.status_code, response.json()["error_code"]) == (410, "execution_erased")
    response = caller.post(f"/executions/{execution_id}/retry", {"from": "start"})
    assert (response.status_code, response.json()["error_code"]) == (409, "not_retryable")
    assert "erased" in response.json()["detail"]
    assert caller.get("/executions?tag=erasable&fields=erased_at,metadata").json()["executions"][0]["metadata"] == {}
    assert {line["event"] for line in caller.get(f"/logs?execution_id={execution_id}").json()["logs"]} == set()

    def feed_shows_it() -> bool:
        changes = caller.get(f"/executions/changes?since={position}").json()["changes"]
        return (execution_id, view["rev"]) in {(row["execution_id"], row["rev"]) for row in changes}

    wait_until(feed_shows_it, 10, "the feed shows the erasure")


def test_it_may_come_twice_and_a_run_that_is_not_done_is_refused(caller: ApiClient, content: str) -> None:
    execution_id = run_with_content(caller, content)
    assert erase(caller, execution_id) == erase(caller, execution_id)

    running = caller.submit_agent("sleeper", seconds=60)
    problem = erase(caller, running, 409)
    assert problem["error_code"] == "not_final"
    assert "cancel it first" in problem["detail"]
    caller.post(f"/executions/{running}/cancel", {})
    ended = caller.wait_done(running)["status"]  # the agent stops early, and may return before it is stopped
    assert erase(caller, running)["status"] == ended
    assert erase(caller, "1763700000_0000000000000000", 404)["error_code"] == "execution_not_found"


def test_the_reason_of_a_cancel_goes_too(caller: ApiClient, content: str, stack: Stack) -> None:
    running = caller.submit_agent("sleeper", seconds=60)
    caller.post(f"/executions/{running}/cancel", {"reason": content})
    caller.wait_done(running)
    assert "executions" in places_with(stack, content)
    erase(caller, running)
    assert places_with(stack, content) == set()


def test_an_erased_run_is_no_dead_letter_and_lines_of_other_runs_stay(
    caller: ApiClient, content: str, stack: Stack
) -> None:
    letter = caller.submit_agent("simulate", script=["failed:worker_lost"])
    caller.wait_done(letter)
    run_with_content(caller, content)

    def letters() -> set[str]:
        return {each["id"] for each in caller.get("/dead-letters").json()["dead_letters"]}

    wait_until(lambda: "logs" in places_with(stack, content), 10, "the lines are in the stream")
    assert letter in letters()
    erase(caller, letter)
    assert letter not in letters()
    requeued = caller.post(f"/dead-letters/{letter}/requeue", {})
    assert (requeued.status_code, requeued.json()["error_code"]) == (404, "not_found")
    assert "logs" in places_with(stack, content)


def test_memories_of_a_later_run_and_of_other_integrators_stay(caller: ApiClient, content: str, stack: Stack) -> None:
    memories = stack.mongo()["agent_memory"]
    own_id, others_id = "public:basket:erasable:babbler", "other:basket:erasable:babbler"
    first, second = run_with_content(caller, f"first-{content}"), run_with_content(caller, f"second-{content}")
    erase(caller, first)
    assert memories.find_one({"_id": own_id}), "the later run has replaced it"
    memories.insert_one(memories.find_one({"_id": own_id}) | {"_id": others_id})
    erase(caller, second)
    assert [each["_id"] for each in memories.find({"_id": {"$in": [own_id, others_id]}})] == [others_id]
    memories.delete_one({"_id": others_id})


def test_a_retry_that_copied_outputs_keeps_its_own(caller: ApiClient, content: str) -> None:
    first = run_with_content(caller, content, fails=True)
    second = caller.post(f"/executions/{first}/retry", {}).json()["execution_id"]
    caller.wait_done(second)
    erase(caller, first)
    assert caller.poll(second)["outputs"]["small"]


def test_a_submit_that_is_repeated_gets_the_erased_run_and_runs_nothing(caller: ApiClient, content: str) -> None:
    body = {"agent_name": "echo", "input_data": {"a": content}}
    execution_id = caller.post("/run-agent", body, Idempotency_Key=content).json()["execution_id"]
    caller.wait_done(execution_id)
    erase(caller, execution_id)
    again = caller.post("/run-agent", body, Idempotency_Key=content)
    assert (again.headers["Idempotency-Replayed"], again.json()["execution_id"]) == ("true", execution_id)


def test_what_a_slow_process_sends_after_the_erasure_is_never_read(
    caller: ApiClient, content: str, stack: Stack
) -> None:
    execution_id = run_with_content(caller, content)
    with connect(stack.redis_url) as client:
        views = ViewCache(client, live_ttl_s=1)
        old_view = client.get(f"execution:{execution_id}")
        line: dict[str, Any] = {
            "execution_id": execution_id,
            "seq": 1,
            "agent_name": "echo",
            "level": "info",
            "event": "agent.log",
        }
        line["timestamp"] = "2026-11-21T12:00:00.000Z"
        erase(caller, execution_id)

        # A reader who read the run before the erasure.
        views.fill(RenderedView("public", execution_id, old_view, parse_header(old_view).rev, is_final=True))
        pipe = client.pipeline(transaction=False)
        views.put_outputs(pipe, {("public", execution_id, "last"): content.encode()})  # the worker that ended it
        log_stream.append_lines(pipe, "public", [repr(line).replace("'", '"').encode()])
        pipe.execute()

        assert "erased_at" in caller.poll(execution_id)
        assert caller.get(f"/executions/{execution_id}/outputs/last").status_code == 410
        assert caller.get(f"/logs?execution_id={execution_id}").json()["logs"] == []
        assert without_erased(client, [line]) == []


@pytest.mark.parametrize("server", ["mongod", "redis"])
def test_a_repeat_completes_what_a_store_that_was_away_has_left(
    caller: ApiClient, content: str, stack: Stack, server: str
) -> None:
    execution_id = run_with_content(caller, content)
    stack.stop(server)
    assert erase(caller, execution_id, 503)["error_code"] in {"unavailable", "outcome_unknown"}
    stack.start(server)
    path = f"/executions/{execution_id}"
    wait_until(lambda: caller.request("DELETE", path).status_code == 200, 15, "each process notices the server")
    assert places_with(stack, content) == set()


def test_content_that_was_left_beside_an_erased_run_goes_with_a_repeat(
    caller: ApiClient, content: str, stack: Stack
) -> None:
    execution_id = run_with_content(caller, content)
    outputs, memories = stack.mongo()["outputs"], stack.mongo()["agent_memory"]
    left = [(outputs, [*outputs.find({"execution_id": execution_id})]), (memories, [*memories.find()])]
    erase(caller, execution_id)
    for collection, documents in left:  # as if the process had died between the two writes
        collection.insert_many(documents)
    assert {"outputs", "agent_memory"} <= places_with(stack, content)
    erase(caller, execution_id)
    assert places_with(stack, content) == set()
