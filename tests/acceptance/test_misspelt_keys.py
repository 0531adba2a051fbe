"""Misspelt keys: refused with the right key, in every body, and nothing runs on the sample in place of real data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.client import INCOME, ApiClient

RUN, AGENT, BATCH, CREATE, POLL = "/run-basket", "/run-agent", "/run-basket/batch", "/create-basket", "/executions/poll"
NAMED = {"basket_name": "working_test"}
ID = "1763700000_0000000000000000"
RETRY, CANCEL = f"/executions/{ID}/retry", f"/executions/{ID}/cancel"


@pytest.fixture(autouse=True)
def _nothing_is_stored(caller: ApiClient) -> Iterator[None]:
    before = caller.document_counts()
    yield
    assert caller.document_counts() == before


def faults_of(caller: ApiClient, path: str, body: dict[str, Any]) -> dict[str, str]:
    """Return the message of each pointer of a refusal."""
    response = caller.post(path, body)
    problem = response.json()
    assert (response.status_code, problem["error_code"]) == (400, "validation_failed"), problem
    assert all(fault["message"] in problem["detail"] for fault in problem["details"][:3])
    return {fault["pointer"]: fault["message"] for fault in problem["details"]}


@pytest.mark.parametrize(
    ("path", "body", "pointer", "meant"),
    [
        *((RUN, NAMED | {key: INCOME}, f"/{key}", "input_data")
          for key in ("input", "inputs", "data", "payload", "inputData", "input-data", "Input_Data", "input_dta")),
        (RUN, {"basket": "working_test"}, "/basket", "basket_name"),
        (RUN, {"name": "working_test"}, "/name", "basket_name"),
        (RUN, {"basketName": "working_test"}, "/basketName", "basket_name"),
        (RUN, NAMED | {"delay": 5}, "/delay", "run_after_s"),
        (RUN, NAMED | {"tag": ["a"]}, "/tag", "tags"),
        (RUN, NAMED | {"deadline": 5}, "/deadline", "deadline_s"),
        (RUN, {"config": {"agents": ["echo"], "strategy": "parallel"}}, "/config/strategy", "execution_strategy"),
        (RUN, {"config": {"agent": ["echo"]}}, "/config/agent", "agents"),
        (RUN, {"config": {"steps": [{"agent": "echo"}, {"agent": "echo", "need": []}]}}, "/config/steps/1/need",
         "needs"),
        (RUN, {"config": {"steps": [{"agent": "echo", "retry": {"attempt": 2}}]}}, "/config/steps/0/retry/attempt",
         "attempts"),
        (AGENT, {"agent": "echo", "input_data": {}}, "/agent", "agent_name"),
        (AGENT, {"agent_name": "echo", "input": {}}, "/input", "input_data"),
        (BATCH, {"ids": []}, "/ids", "items"),
        (BATCH, {"Items": [NAMED]}, "/Items", "items"),
        (POLL, {"executions": [ID]}, "/executions", "items"),
        (POLL, {"ids": [ID]}, "/ids", "items"),
        (POLL, {"items": [{"execution_id": ID}], "vew": "full"}, "/vew", "view"),
        (POLL, {"items": [{"executionId": ID}]}, "/items/0/executionId", "execution_id"),
        (POLL, {"items": [{"execution_id": ID, "Rev": 1}]}, "/items/0/Rev", "rev"),
        (CREATE, {"name": "x", "agent": ["echo"]}, "/agent", "agents"),
        (CREATE, {"name": "x", "steps": [{"agent": "echo", "timeout": 3}]}, "/steps/0/timeout", "timeout_s"),
        (RETRY, {"From": "start"}, "/From", "from"),
        (CANCEL, {"reasons": "late"}, "/reasons", "reason"),
        ("/consumers/night/ack", {"cursors": "x"}, "/cursors", "cursor"),
    ],
)  # fmt: skip
def test_a_misspelt_key_is_refused_with_the_right_one(
    caller: ApiClient, path: str, body: dict[str, Any], pointer: str, meant: str
) -> None:
    assert f"did you mean {meant}?" in faults_of(caller, path, body)[pointer]


def test_a_misspelt_key_of_a_new_consumer_is_refused(caller: ApiClient) -> None:
    response = caller.request("PUT", "/consumers/misspelt", json={"sinse": "now"})
    assert (response.status_code, response.json()["details"][0]["pointer"]) == (400, "/sinse")


def test_all_faults_are_told_at_once_without_those_that_a_misspelt_key_explains(caller: ApiClient) -> None:
    body = {"basket": "working_test", "inputs": 5, "tags": "a", "config": None, "run_after_s": -1}
    assert faults_of(caller, RUN, body).keys() == {"/basket", "/inputs", "/tags", "/run_after_s"}
    steps = [{"agent": "echo", "needz": []}, {"agent": 3}, {"agent": "echo", "timeout_s": 0, "when": "x"}]
    assert faults_of(caller, RUN, {"config": {"steps": steps}}).keys() == {
        "/config/steps/0/needz", "/config/steps/1/agent", "/config/steps/2/timeout_s", "/config/steps/2/when",
    }  # fmt: skip


def test_a_misspelt_key_refuses_its_item_of_a_batch_alone(caller: ApiClient) -> None:
    body = caller.post(BATCH, {"items": [NAMED | {"inputs": INCOME}, {"basket": "working_test"}]}).json()
    assert [item["details"][0]["pointer"] for item in body["items"]] == ["/inputs", "/basket"]
