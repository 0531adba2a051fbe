"""Marked fields (``writeOnly``, ``x-secret``): the agent sees them in clear, and no store and no reply does."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from shared.sealing import key_id_of
from tests.acceptance.client import AGENTS, ApiClient
from tests.stack import Stack
from tests.stored_text import places_with
from tests.waiting import wait_until
from worker.steps.protection.step_protection import MARKED_MAX_BYTES

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(1, 33))).decode()


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_ENCRYPTION_KEYS=f"first:{KEY}")


@pytest.fixture
def caller(stack: Stack) -> ApiClient:
    return ApiClient(stack)


@pytest.fixture
def pin() -> str:
    """Return a secret that no other test uses."""
    return f"pin-{uuid.uuid4().hex}"


def keeper(caller: ApiClient, pin: str, **more: Any) -> dict[str, Any]:
    execution_id = caller.submit_agent("keeper", person={"pin": pin, "name": "Ada"}, **more)
    return caller.wait_done(execution_id)


def everything_shown(caller: ApiClient, execution_id: str) -> str:
    """Return all that the API shows of a run."""
    paths = (
        f"/execution-logs/{execution_id}",
        f"/executions/{execution_id}/result",
        f"/executions/{execution_id}/outputs/keeper",
        "/executions?fields=result,metadata,error",
        f"/logs?execution_id={execution_id}",
        "/dead-letters",
        "/metrics",
    )
    return "\n".join(caller.get(path).text for path in paths)


@pytest.mark.parametrize("more", [{}, {"codes": [{"code": "another-secret"}]}, {"fails_until": 2}, {"raises": True}])
def test_the_agent_gets_the_value_and_no_store_and_no_reply_has_it(
    caller: ApiClient, stack: Stack, pin: str, more: dict[str, Any]
) -> None:
    view = keeper(caller, pin, **more)
    shown = everything_shown(caller, view["execution_id"])
    assert (pin in shown, "another-secret" in shown) == (False, False)
    assert places_with(stack, pin) | places_with(stack, "another-secret") == set()
    assert not any(pin in log.read_text(errors="replace") for log in stack.root.glob("*.log"))
    if more.get("raises"):
        assert view["error"]["message"] == "ValueError: <input.person.pin> is refused"
    else:
        assert view["result"]["is_clear"] is True
        assert view["result"]["echo"] == "***"
        assert {each["code"] for each in view["result"]["seen"]["codes"]} == {"***"}
        assert view["steps"][0]["attempts"] == (3 if more.get("fails_until") else 1)
        assert "the pin is <input.person.pin>" in {line["message"] for line in view["logs"]}


def test_what_an_agent_made_and_marked_is_hidden_from_all_but_the_next_agent(
    caller: ApiClient, stack: Stack, pin: str
) -> None:
    made = f"{pin[::-1]}-made"
    config = {"name": "made", "agents": ["keeper", "teller"]}
    given = {"person": {"pin": pin}, "makes": True}
    reply = caller.post("/run-basket", {"config": config, "input_data": given})
    assert reply.status_code == 202, reply.text
    execution_id = reply.json()["execution_id"]
    view = caller.wait_done(execution_id)
    assert (view["status"], view["result"]["said"]) == ("completed", ["***"])
    assert "<keeper.say.0>" in {line["message"] for line in view["logs"]}, "the next agent has told it"
    assert (made in everything_shown(caller, execution_id), places_with(stack, made)) == (False, set())


def test_an_erased_run_keeps_nothing_that_is_sealed_and_needs_no_key_any_more(
    caller: ApiClient, stack: Stack, pin: str
) -> None:
    execution_id = keeper(caller, pin)["execution_id"]
    assert _sealed_in(stack.mongo()["executions"].find_one({"_id": execution_id})) >= 2
    assert caller.request("DELETE", f"/executions/{execution_id}").status_code == 200
    document = stack.mongo()["executions"].find_one({"_id": execution_id})
    assert (_sealed_in(document), "sealed" in document) == (0, False)


def _sealed_in(value: Any) -> int:
    """Return the number of sealed values in a document."""
    if isinstance(value, bytes):
        return int(key_id_of(value) is not None)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_sealed_in, inner))


def test_an_output_whose_marked_fields_are_too_large_fails_the_step_and_shows_nothing(
    caller: ApiClient, stack: Stack, pin: str
) -> None:
    view = keeper(caller, pin * (MARKED_MAX_BYTES // len(pin) // 2 + 1))  # the agent returns it twice
    assert (view["status"], view["error"]["error_code"]) == ("failed", "output_too_large")
    assert pin not in everything_shown(caller, view["execution_id"])
    assert places_with(stack, pin) == set()


def test_a_marked_number_is_masked_too(caller: ApiClient) -> None:
    execution_id = caller.submit_agent("keeper", person={"pin": 7261})
    assert caller.wait_done(execution_id)["result"]["seen"] == {"codes": [{"code": "***"}]}


def test_the_value_goes_on_into_other_steps_and_stays_protected(caller: ApiClient, stack: Stack, pin: str) -> None:
    steps = [
        {"id": "first", "agent": "keeper", "input": {"person": {"pin": {"from": "input", "pointer": "/deep/0/word"}}}},
        {
            "id": "second",
            "agent": "keeper",
            "needs": ["first"],
            "input": {
                "person": {"pin": {"from": "first", "pointer": "/seen/codes/0/code"}},
                "codes": {"from": "first", "pointer": "/seen/codes"},
            },
        },
        {"id": "passed", "agent": "echo", "input": {"a": {"from": "input", "pointer": "/deep"}}},
        {
            "id": "third",
            "agent": "keeper",
            "needs": ["passed"],
            "input": {"person": {"pin": {"from": "passed", "pointer": "/a/0/word"}}},
        },
    ]  # fmt: skip
    body = {"config": {"name": "flow", "steps": steps}, "input_data": {"deep": [{"word": pin}]}}
    view = caller.wait_done(caller.post("/run-basket", body).json()["execution_id"])
    assert view["status"] == "completed", view
    assert [view["outputs"][step]["is_clear"] for step in ("first", "second", "third")] == [True] * 3
    assert view["outputs"]["passed"] == {"a": [{"word": "***"}]}
    assert pin not in everything_shown(caller, view["execution_id"])
    assert places_with(stack, pin) == set()


def test_a_retry_has_the_values_sealed_for_itself(caller: ApiClient, stack: Stack, pin: str, tmp_path: Any) -> None:
    flaky = {"path": str(tmp_path / "tries"), "failures": 1}
    steps = [
        {"id": "first", "agent": "keeper", "input": {"person": {"from": "input", "pointer": "/person"}}},
        {"id": "flaky", "agent": "flaky", "needs": ["first"], "input": flaky, "retry": "none"},
        {
            "id": "last",
            "agent": "keeper",
            "needs": ["flaky", "first"],
            "input": {
                "person": {"pin": {"from": "first", "pointer": "/echo"}},
                "codes": [{"code": {"from": "input", "pointer": "/person/pin"}}],
            },
        },
    ]  # fmt: skip
    body = {"config": {"name": "again", "steps": steps}, "input_data": {"person": {"pin": pin}}}
    first = caller.wait_done(caller.post("/run-basket", body).json()["execution_id"])
    assert first["status"] == "failed"
    second = caller.post(f"/executions/{first['execution_id']}/retry", {}).json()["execution_id"]
    view = caller.wait_done(second)
    assert (view["status"], view["outputs"]["last"]["is_clear"]) == ("completed", True), view["error"]
    documents = {each["_id"]: each for each in stack.mongo()["executions"].find()}
    assert documents[second]["input"] != documents[first["execution_id"]]["input"]
    assert places_with(stack, pin) == set()


def test_a_value_that_was_copied_to_another_run_does_not_open(caller: ApiClient, stack: Stack, pin: str) -> None:
    victim = caller.submit_agent("keeper", person={"pin": pin})
    stolen = stack.mongo()["executions"].find_one({"_id": victim})["input"]
    later = {"config": {"agents": ["keeper"]}, "input_data": {"person": {"pin": "x"}}, "run_after_s": 1}
    thief = caller.post("/run-basket", later).json()["execution_id"]
    stack.mongo()["executions"].update_one({"_id": thief}, {"$set": {"input": stolen}})
    view = caller.wait_done(thief)
    assert (view["status"], view["error"]["error_code"]) == ("failed", "input_invalid")
    assert pin not in str(view)


def test_the_memory_of_a_marked_output_is_sealed_and_given_back_in_clear(
    caller: ApiClient, stack: Stack, pin: str
) -> None:
    body = {"config": {"name": "memories", "agents": ["keeper"]}, "input_data": {"person": {"pin": pin}}}
    caller.wait_done(caller.post("/run-basket", body).json()["execution_id"])
    again = caller.wait_done(caller.post("/run-basket", body).json()["execution_id"])
    assert (again["result"]["remembered"], again["result"]["is_clear"]) == (True, True)
    assert places_with(stack, pin) == set()


def test_a_refusal_does_not_echo_and_a_basket_must_not_write_it_out(caller: ApiClient, pin: str) -> None:
    wrong = {"agent_name": "keeper", "input_data": {"person": {"pin": [pin]}, "codes": pin}}
    response = caller.post("/run-agent", wrong)
    assert (response.status_code, pin in response.text) == (400, False)
    config = {"name": "written", "steps": [{"agent": "keeper", "input": {"person": {"pin": pin}}}]}
    for path, body in (("/run-basket", {"config": config}), ("/create-basket", config)):
        response = caller.post(path, body)
        assert (response.status_code, pin in response.text) == (400, False)
        assert response.json()["details"][0]["pointer"].endswith("/steps/0/input/person/pin")


def test_the_samples_of_the_catalogue_are_masked(caller: ApiClient) -> None:
    spec = caller.get("/agents/keeper").json()
    assert (spec["sample_input"], spec["sample_output"]["seen"]) == (
        {"person": {"pin": "***"}},
        {"codes": [{"code": "***"}]},
    )


def test_without_keys_the_agent_is_unavailable_and_others_are_not(make_stack: Callable[..., Stack]) -> None:
    caller = ApiClient(make_stack(BUCKET_AGENTS_DIR=str(AGENTS)))
    response = caller.post("/run-agent", {"agent_name": "keeper", "input_data": {"person": {"pin": "x"}}})
    assert (response.status_code, response.json()["error_code"]) == (503, "agent_unavailable")
    assert "BUCKET_ENCRYPTION_KEYS" in response.json()["detail"]

    def is_shown_unavailable() -> bool:
        return bool(caller.get("/agents/keeper").json()["availability"]["status"] == "unavailable")

    wait_until(is_shown_unavailable, 15, "the workers have said so")
    assert caller.wait_done(caller.submit_agent("echo", a=1))["status"] == "completed"


def test_a_run_waits_for_a_key_that_is_missing_and_completes_once_it_is_back(
    caller: ApiClient, stack: Stack, pin: str
) -> None:
    stack.stop("worker")
    execution_id = caller.submit_agent("keeper", person={"pin": pin})
    stack.start("worker", BUCKET_ENCRYPTION_KEYS=f"second:{OTHER_KEY}")

    def is_handed_back() -> bool:
        return any("encryption key 'first'" in line["message"] for line in caller.poll(execution_id)["logs"])

    wait_until(is_handed_back, 15, "the worker has handed it back")
    assert caller.poll(execution_id)["done"] is False
    stack.stop("worker")
    stack.start("worker", BUCKET_ENCRYPTION_KEYS=f"second:{OTHER_KEY},first:{KEY}")
    assert caller.wait_done(execution_id)["result"]["is_clear"] is True
    stack.stop("worker")
    stack.start("worker")
