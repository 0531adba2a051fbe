"""Submits: accepted fields, what is stored of them, and one run for one idempotency key however often it is sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks.harness.mongod_profiler import recording
from tests.acceptance.client import INCOME, ApiClient

NAMED: dict[str, Any] = {"basket_name": "working_test", "input_data": INCOME}


def warnings_of(caller: ApiClient, body: dict[str, Any], path: str = "/run-basket") -> list[str]:
    response = caller.post(path, body)
    assert response.status_code in {201, 202}, response.text
    warnings: list[str] = response.json().get("warnings", [])
    return warnings


def test_an_inline_basket_runs_without_a_name(caller: ApiClient) -> None:
    config = {"agents": ["cashflow_analyzer", "goal_recommender"]}
    response = caller.post("/run-basket", {"config": config, "input_data": INCOME})
    assert response.json()["execution_metadata"]["agents_executed"] == config["agents"]
    view = caller.wait_done(response.json()["execution_id"])
    assert (view["basket_name"], view["result"]) == ("inline", {"recommendations": ["Increase savings"]})


def test_the_name_wins_over_a_config_even_an_invalid_one(caller: ApiClient) -> None:
    for config in ({"name": "mine", "agents": ["goal_recommender"]}, {"agents": []}, 3, None):
        response = caller.post("/run-basket", {"basket_name": "working_test", "config": config})
        assert response.json()["execution_metadata"]["basket_name"] == "working_test", response.text


def test_a_null_name_counts_as_absent(caller: ApiClient) -> None:
    response = caller.post("/run-basket", {"basket_name": None, "config": {"name": "mine", "agents": ["echo"]}})
    assert response.json()["execution_metadata"]["basket_name"] == "mine"


SAMPLE_WARNING = "no input_data was sent: the run uses the sample_input of its first agent"


@pytest.mark.parametrize("fields", [{}, {"input_data": None}])
def test_without_input_the_sample_is_run_and_the_run_says_so(caller: ApiClient, fields: dict[str, Any]) -> None:
    accepted = caller.post("/run-basket", {"basket_name": "working_test"} | fields).json()
    assert accepted["warnings"] == [SAMPLE_WARNING]
    view = caller.wait_done(accepted["execution_id"])
    sample = caller.get("/agents/cashflow_analyzer").json()
    assert (view["input_source"], view["result"]) == ("sample", sample["sample_output"])


def test_an_empty_input_is_an_input_like_any_other(caller: ApiClient) -> None:
    """It was taken for the sample before: a caller with an empty order got the result of somebody else's."""
    view = caller.wait_done(caller.submit_agent("echo"))
    assert (view["input_source"], view["result"]) == ("request", {})
    for path, body in (
        ("/run-basket", {"basket_name": "working_test", "input_data": {}}),
        ("/run-agent", {"agent_name": "cashflow_analyzer", "input_data": {}}),
    ):
        refused = caller.post(path, body)
        assert (refused.status_code, refused.json()["details"][0]["pointer"]) == (400, "/input_data")
        assert '"transactions" is a required property' in refused.json()["detail"]


def test_a_config_beside_a_name_is_ignored_with_a_warning(caller: ApiClient) -> None:
    body = {"basket_name": "working_test", "config": {"agents": ["nobody"], "zzz": 1}, "input_data": INCOME}
    ignored = "config was ignored, because basket_name is given; send only one of them"
    assert warnings_of(caller, body) == [ignored]
    (item,) = caller.post("/run-basket/batch", {"items": [body]}).json()["items"]
    assert (item["status"], item["warnings"]) == (202, [ignored])


def test_submitted_input_is_run_and_the_run_says_so(caller: ApiClient) -> None:
    assert caller.wait_done(caller.submit_basket(input_data=INCOME))["input_source"] == "request"


STEP_OF_NULLS = {"agent": "echo", **dict.fromkeys(("id", "needs", "input", "retry", "timeout_s"))}
POLICY_OF_NULLS = dict.fromkeys(("attempts", "wait_s", "factor", "wait_max_s", "budget_s"))
OPTIONAL = ("tags", "metadata", "run_after", "run_after_s", "start_deadline_s", "deadline_s")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/run-basket", {"basket_name": "working_test", **dict.fromkeys(("config", "input_data", *OPTIONAL))}),
        ("/run-basket", {"basket_name": None, "config": {
            "agents": ["echo"], **dict.fromkeys(("name", "description", "steps", "execution_strategy"))}}),
        ("/run-basket", {"config": {"agents": None, "steps": [
            STEP_OF_NULLS, STEP_OF_NULLS | {"retry": POLICY_OF_NULLS},
            STEP_OF_NULLS | {"input": {"x": {"from": "input", "pointer": None}}}]}}),
        ("/run-agent", {"agent_name": "echo", "input_data": {}, **dict.fromkeys(("stateful", *OPTIONAL))}),
        ("/run-basket/batch", {"items": [NAMED | dict.fromkeys(("idempotency_key", "config", *OPTIONAL))]}),
        ("/create-basket", {"name": "of nulls", "steps": [STEP_OF_NULLS],
                            **dict.fromkeys(("description", "agents", "execution_strategy"))}),
    ],
)  # fmt: skip
def test_null_is_taken_wherever_a_member_may_be_left_out(caller: ApiClient, path: str, body: dict[str, Any]) -> None:
    response = caller.post(path, body)
    assert response.status_code in {201, 202}, response.text
    if path == "/run-basket/batch":
        assert [item["status"] for item in response.json()["items"]] == [202], response.text
    elif path == "/create-basket":
        assert response.json()["basket"] == {
            "name": "of nulls", "basket_name": "of nulls", "description": "", "execution_strategy": "graph",
            "steps": [{"agent": "echo"}],
        }  # fmt: skip
        assert caller.request("DELETE", "/baskets/of nulls").status_code == 200
    else:
        view = caller.wait_done(response.json()["execution_id"])
        assert (view["status"], view["tags"], view["metadata"]) == ("completed", [], {})


def test_null_is_taken_in_the_bodies_of_other_routes_too(caller: ApiClient) -> None:
    run = caller.wait_done(caller.submit_agent("raiser", kind="ValueError"))["execution_id"]
    item = {"execution_id": run, "rev": None}
    assert caller.post("/executions/poll", {"items": [item], "view": None}).status_code == 200
    assert caller.post(f"/executions/{run}/retry", {"from": None}).status_code == 202
    assert caller.post(f"/executions/{run}/cancel", {"reason": None}).status_code == 200
    assert caller.request("PUT", "/consumers/of-null", json={"since": None}).status_code == 201
    assert caller.request("DELETE", "/consumers/of-null").status_code == 200


def test_tags_and_metadata_come_back_as_they_were_sent(caller: ApiClient) -> None:
    tags = ["", "a" * 64, *[f"t{number}" for number in range(18)], "ü€😀"][1:]
    metadata = {"order": 7, "of": {"nobody's": [1.5, None, True, "ü\u0000"]}, "$set": {"a.b": 1}, "": ""}
    view = caller.wait_done(caller.submit_basket(tags=tags, metadata=metadata))
    assert (view["tags"], view["metadata"]) == (tags, metadata)


def test_an_input_reaches_the_agent_unchanged(caller: ApiClient) -> None:
    input_data = {
        "max": 2**63 - 1,
        "min": -(2**63),
        "pi": 3.141592653589793,
        "tiny": 5e-324,
        "$ne": {"a.b": None},
        "n": "\u0000",
    }
    assert caller.wait_done(caller.submit_agent("echo", **input_data))["result"] == input_data


def test_metadata_may_have_16_kib_and_no_more(caller: ApiClient) -> None:
    def of_bytes(size: int) -> dict[str, Any]:
        return {"basket_name": "working_test", "metadata": {"a": "x" * (size - len('{"a":""}'))}}

    assert caller.post("/run-basket", of_bytes(16_384)).status_code == 202
    refused = caller.post("/run-basket", of_bytes(16_385))
    assert (refused.status_code, refused.json()["details"][0]["pointer"]) == (400, "/metadata")
    assert "16385" in refused.json()["detail"]


def test_unknown_fields_that_are_no_near_miss_are_ignored_and_named(caller: ApiClient) -> None:
    """Misspelt ones are refused since they made a run of the sample; see test_misspelt_keys.py."""
    given = NAMED | {"input_data": INCOME}
    assert warnings_of(caller, given) == []
    agent = {"agent_name": "echo", "input_data": {}}
    state = "unknown field 'state' was ignored; did you mean stateful?"
    assert warnings_of(caller, agent | {"state": 1, "zzz": 2}, "/run-agent") == [
        state,
        "unknown field 'zzz' was ignored",
    ]
    in_body = "was ignored; send it as the header Idempotency-Key, or a repeat runs twice"
    for path, body in (("/run-basket", given), ("/run-agent", agent)):
        for key in ("idempotency_key", "Idempotency_Kye"):
            assert warnings_of(caller, body | {key: "x"}, path) == [f"unknown field '{key}' {in_body}"]


def test_a_malformed_traceparent_or_prefer_is_ignored(caller: ApiClient) -> None:
    for headers in ({"traceparent": "no"}, {"Prefer": "wait=ages"}, {}):
        reply = caller.post("/run-basket", NAMED, **headers)
        assert reply.status_code == 202
        assert "traceparent" not in caller.wait_done(reply.json()["execution_id"])


def test_a_run_shows_the_traceparent_that_it_was_submitted_with(caller: ApiClient) -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    execution_id = caller.post("/run-basket", NAMED, traceparent=traceparent).json()["execution_id"]
    assert caller.wait_done(execution_id)["traceparent"] == traceparent


def test_a_media_type_with_suffix_or_charset_is_accepted(caller: ApiClient) -> None:
    for kind in ("application/json; charset=UTF-8", "application/vnd.mine+json", "Application/JSON"):
        assert caller.post_raw(b'{"basket_name": "working_test"}', **{"Content-Type": kind}).status_code == 202


def test_one_key_makes_one_run_and_returns_its_current_state(caller: ApiClient) -> None:
    first = caller.post("/run-basket", NAMED, Idempotency_Key="one", X_Request_ID="the-first")
    assert "Idempotency-Replayed" not in first.headers
    execution_id = first.json()["execution_id"]
    done = caller.wait_done(execution_id)
    again = caller.post("/run-basket", NAMED, Idempotency_Key="one")
    body = again.json()
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert (body["execution_id"], body["status"], body["done"]) == (execution_id, "completed", True)
    assert body["rev"] == done["rev"]
    assert again.headers["ETag"] == f'W/"{execution_id}.{done["rev"]}"'
    assert body["request_id"] == "the-first"
    assert "poll_after_ms" not in body
    assert "Retry-After" not in again.headers
    assert caller.stack.mongo().executions.count_documents({"idempotency.key": "one"}) == 1


def test_a_replay_of_an_unfinished_run_says_when_to_poll(caller: ApiClient) -> None:
    body = {"agent_name": "sleeper", "input_data": {"seconds": 1}}
    first = caller.post("/run-agent", body, Idempotency_Key="under way")
    again = caller.post("/run-agent", body, Idempotency_Key="under way")
    assert again.json()["execution_id"] == first.json()["execution_id"]
    assert again.json()["done"] is False
    assert again.json()["poll_after_ms"] >= 250
    assert int(again.headers["Retry-After"]) >= 1


def test_the_same_body_may_be_formatted_differently_and_use_the_other_prefix(caller: ApiClient) -> None:
    raw = b'{"basket_name":"working_test","input_data":{"transactions":[{"id":1,"amount":1000.0}]}}'
    other = b' {"input_data": {"transactions": [{"amount": 1e3, "id": 1}]}, "basket_name": "work\\u0069ng_test"}'
    first = caller.post_raw(raw, **{"Idempotency-Key": "other words"})
    again = caller.post_raw(other, "/api/v1/run-basket", **{"Idempotency-Key": "other words"})
    assert again.json()["execution_id"] == first.json()["execution_id"]
    assert (
        again.json()["status_url"]
        == again.headers["Location"]
        == f"/api/v1/execution-logs/{again.json()['execution_id']}"
    )


def test_a_key_used_for_another_body_or_route_is_422_and_makes_no_run(caller: ApiClient) -> None:
    agent = {"agent_name": "echo", "input_data": {"a": 1}}
    accepted = caller.post("/run-agent", agent, Idempotency_Key="taken")
    assert accepted.status_code == 202
    holder = accepted.json()["execution_id"]
    before = caller.document_counts()
    for path, body in (
        ("/run-agent", agent | {"input_data": {"a": True}}),
        ("/run-agent", agent | {"tags": ["b"]}),
        ("/run-agent", agent | {"unknown": 1}),
        ("/run-agent", {"agent_name": "nobody", "input_data": {}}),
        ("/run-basket", {"basket_name": "working_test"}),
    ):
        response = caller.post(path, body, Idempotency_Key="taken")
        assert (response.status_code, response.json()["error_code"]) == (422, "idempotency_key_reused")
        assert (response.json()["used_by"], holder in response.json()["detail"]) == (holder, True)
    assert caller.document_counts() == before


def test_a_repeat_of_a_run_that_is_done_does_not_say_to_poll(caller: ApiClient) -> None:
    body = NAMED | {"input_data": INCOME}
    first = caller.post("/run-basket", body, Idempotency_Key="finished").json()
    assert first["message"] == "accepted; poll status_url until done is true"
    caller.wait_done(first["execution_id"])
    again = caller.post("/run-basket", body, Idempotency_Key="finished")
    assert (again.status_code, again.headers["Idempotency-Replayed"], again.json()["done"]) == (202, "true", True)
    assert again.json()["message"] == "this run is done; status_url has its result or error"


def test_a_new_key_costs_one_insert_and_no_query(caller: ApiClient) -> None:
    caller.stack.stop("worker")
    body = {"agent_name": "echo", "input_data": {"a": 1}}
    try:
        with recording(caller.stack.mongo()) as entries:
            response = caller.post("/run-agent", body, Idempotency_Key="costs")
            replay = caller.post("/run-agent", body, Idempotency_Key="costs")
    finally:
        caller.stack.start("worker")
    assert replay.json()["execution_id"] == response.json()["execution_id"]
    operations = [
        entry["op"] for entry in entries if entry.get("appName") == "bucket-api" and "executions" in entry["ns"]
    ]
    assert operations == ["insert", "insert", "query"], "only the second queried for the run with this key"


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "grün", "\x7f"])
def test_an_invalid_key_is_refused(caller: ApiClient, key: str) -> None:
    before = caller.document_counts()
    response = caller.request("POST", "/run-basket", json=NAMED, headers={"Idempotency-Key": key.encode("latin-1")})
    assert (response.status_code, response.json()["error_code"]) == (400, "validation_failed")
    assert "idempotency-key" in response.json()["detail"].lower()
    assert caller.document_counts() == before


@pytest.mark.parametrize("key", ["!", "x" * 255, "$where", '{"$gt": ""}', "a.b c~"])
def test_any_printable_key_is_accepted_unchanged(caller: ApiClient, key: str) -> None:
    first = caller.post("/run-basket", NAMED, Idempotency_Key=key)
    again = caller.post("/run-basket", NAMED, Idempotency_Key=key)
    assert first.json()["execution_id"] == again.json()["execution_id"]
    assert caller.stack.mongo().executions.count_documents({"idempotency.key": {"$eq": key}}) == 1


def test_a_refused_request_reserves_nothing(caller: ApiClient) -> None:
    wrong = {"basket_name": "working_test", "input_data": {"transactions": 3}}
    assert caller.post("/run-basket", wrong, Idempotency_Key="second try").status_code == 400
    accepted = caller.post("/run-basket", NAMED, Idempotency_Key="second try")
    assert (accepted.status_code, "Idempotency-Replayed" in accepted.headers) == (202, False)


def test_fifty_at_once_under_one_key_are_one_run(caller: ApiClient, tmp_path: Any) -> None:
    runs = tmp_path / "runs"
    body = {"agent_name": "counter", "input_data": {"file": str(runs)}}
    with ThreadPoolExecutor(50) as pool:
        responses = list(pool.map(lambda _: caller.post("/run-agent", body, Idempotency_Key="fifty"), range(50)))
    assert {response.status_code for response in responses} == {202}
    ids = {response.json()["execution_id"] for response in responses}
    assert len(ids) == 1
    assert sum("Idempotency-Replayed" not in response.headers for response in responses) == 1
    caller.wait_done(ids.pop())
    assert len(runs.read_text(encoding="utf-8").splitlines()) == 1
    assert caller.stack.mongo().executions.count_documents({"idempotency.key": "fifty"}) == 1
