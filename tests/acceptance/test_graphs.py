"""Parallel baskets and explicit graphs on four worker children, schedules and deadlines, on the real stack."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.client import AGENTS, ApiClient
from tests.faults.inspection import count_messages
from tests.stack import Stack
from tests.step_gate import step_gate
from tests.waiting import wait_until

ECHO = {"agent": "echo"}


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_WORKER_CONCURRENCY="4")


@pytest.fixture
def caller(stack: Stack) -> Iterator[ApiClient]:
    yield ApiClient(stack)
    stack.repair()


def run_graph(
    caller: ApiClient, *steps: dict[str, Any], input_data: dict[str, Any] | None = None, **fields: Any
) -> str:
    body = {"config": {"steps": list(steps)}, "input_data": input_data or {"n": 1}} | fields
    response = caller.post("/run-basket", body)
    assert response.status_code == 202, response.text
    return str(response.json()["execution_id"])


def statuses(view: dict[str, Any]) -> dict[str, str]:
    return {step["step"]: step["status"] for step in view["steps"]}


def store_now(caller: ApiClient) -> datetime:
    """Return the time of the store, by which all times are kept."""
    local_time: datetime = caller.stack.mongo().client.admin.command("hello")["localTime"]
    return local_time.replace(tzinfo=UTC)


def seconds(view: dict[str, Any], since: str = "created_at") -> float:
    """Return how long a run took, by the store's clock."""
    return (datetime.fromisoformat(view["finished_at"]) - datetime.fromisoformat(view[since])).total_seconds()


# Parallel and explicit graphs


def test_each_step_of_a_parallel_basket_gets_the_runs_input_and_the_result_has_them_all(caller: ApiClient) -> None:
    config = {"agents": ["echo", "echo", "echo"], "execution_strategy": "parallel"}
    response = caller.post("/run-basket", {"config": config, "input_data": {"n": 1}})
    assert response.json()["execution_metadata"]["strategy"] == "parallel"
    view = caller.wait_done(response.json()["execution_id"])
    assert view["result"] == {"echo": {"n": 1}, "echo-2": {"n": 1}, "echo-3": {"n": 1}}
    assert view["outputs"] == view["result"]


def test_four_parallel_steps_run_at_the_same_time_on_four_children(caller: ApiClient, tmp_path: Path) -> None:
    config = {"agents": ["counter"] * 4, "execution_strategy": "parallel"}
    with step_gate(tmp_path / "gate") as shut:
        response = caller.post("/run-basket", {"config": config, "input_data": {"file": str(tmp_path / "gate")}})
        execution_id = response.json()["execution_id"]
        # Each goes on only when all have begun: run one after the other, none would ever end.
        wait_until(lambda: set(statuses(caller.poll(execution_id)).values()) == {"running"}, 15, "all four run")
        shut.open()
        view = caller.wait_done(execution_id)
    print(f"\nfour parallel steps: {seconds(view):.3f} s from accept to end")  # noqa: T201
    assert view["status"] == "completed"
    assert {step["attempts"] for step in view["steps"]} == {1}


def test_a_diamond_maps_its_inputs_and_ends_in_the_step_that_no_step_needs(caller: ApiClient) -> None:
    view = caller.wait_done(
        run_graph(
            caller,
            {"id": "a", **ECHO, "input": {"n": {"from": "input", "pointer": "/deep/0"}, "kept": {"x": [1, None]}}},
            {"id": "b", **ECHO, "needs": ["a"], "input": {"left": {"from": "a", "pointer": "/n"}, "more": "b"}},
            {"id": "c", **ECHO, "needs": ["a"], "input": {"right": {"from": "a", "pointer": "/kept/x"}}},
            {"id": "join", **ECHO, "needs": ["b", "c"]},
            {
                "id": "whole",
                **ECHO,
                "needs": ["join", "a"],
                "input": {"all": {"from": "join"}, "in": {"from": "input"}},
            },
            input_data={"deep": [7]},
        )
    )
    assert view["status"] == "completed", view["error"]
    assert view["outputs"]["a"] == {"n": 7, "kept": {"x": [1, None]}}
    assert view["outputs"]["join"] == {"left": 7, "right": [1, None], "more": "b"}, "merged"
    assert view["result"] == {"whole": {"all": view["outputs"]["join"], "in": {"deep": [7]}}}
    assert view["progress"]["percent"] == 100


def test_a_join_whose_schemas_share_a_key_is_refused_with_the_fix(caller: ApiClient) -> None:
    sums = {"agent": "cashflow_analyzer", "input": {"transactions": []}}
    steps = [{"id": "a", **sums}, {"id": "b", **sums}, {"agent": "goal_recommender", "needs": ["a", "b"]}]
    for path, body in (
        ("/run-basket", {"config": {"steps": steps}}),
        ("/create-basket", {"name": "j", "steps": steps}),
    ):
        response = caller.post(path, body)
        assert response.status_code == 400
        (fault,) = response.json()["details"]
        assert fault["pointer"].endswith("/steps/2/needs")
        assert "a and b both give 'analysis'" in fault["message"]
        assert '"input": {"analysis": {"from": "b", "pointer": "/analysis"}}' in fault["message"]
    steps[2]["input"] = {"analysis": {"from": "b", "pointer": "/analysis"}}
    assert caller.wait_done(run_graph(caller, *steps))["status"] == "completed"


def test_a_join_whose_outputs_share_a_key_fails_with_the_place(caller: ApiClient) -> None:
    steps = [{"id": "a", **ECHO}, {"id": "b", **ECHO}, {"id": "join", **ECHO, "needs": ["a", "b"]}]
    view = caller.wait_done(run_graph(caller, *steps))
    assert (view["status"], view["error"]["error_code"], view["error"]["step"]) == ("failed", "input_invalid", "join")
    assert "a and b both give 'n'" in view["error"]["message"]


def test_a_step_is_handed_at_most_32_mib(caller: ApiClient) -> None:
    large = "x" * 900_000
    references = {f"k{number}": {"from": "input", "pointer": "/large"} for number in range(40)}
    steps = [{"id": "a", **ECHO, "input": {"n": 1}}, {"id": "b", **ECHO, "needs": ["a"], "input": references}]
    view = caller.wait_done(run_graph(caller, *steps, input_data={"large": large}))
    assert (view["status"], view["error"]["error_code"]) == ("failed", "input_too_large")
    refused = caller.post(
        "/run-basket", {"config": {"steps": [{**ECHO, "input": references}]}, "input_data": {"large": large}}
    )
    assert refused.status_code == 400
    assert "takes over 33554432 bytes" in refused.json()["message"]


def test_a_join_that_workers_reach_at_the_same_time_runs_once(caller: ApiClient, tmp_path: Path) -> None:
    file = tmp_path / "counted"
    fan = [{"id": f"f{number}", "agent": "echo"} for number in range(4)]
    join = {"id": "join", "agent": "counter", "needs": [step["id"] for step in fan], "input": {"file": str(file)}}
    runs = [run_graph(caller, *fan, join) for _ in range(25)]
    polls = [caller.wait_done(execution_id) for execution_id in runs]
    assert {view["status"] for view in polls} == {"completed"}
    assert sorted(file.read_text().split()) == sorted(f"{execution_id}:join:1" for execution_id in runs)


def test_a_failed_branch_stops_only_the_steps_that_need_it(caller: ApiClient) -> None:
    view = caller.wait_done(
        run_graph(
            caller,
            {"id": "root", **ECHO},
            {"id": "bad", "agent": "raiser", "needs": ["root"], "input": {"kind": "ValueError"}},
            {"id": "good", "agent": "sleeper", "needs": ["root"], "input": {"seconds": 0.3}},
            {"id": "after-good", **ECHO, "needs": ["good"]},
            {"id": "after-bad", **ECHO, "needs": ["bad"]},
            {"id": "join", **ECHO, "needs": ["after-good", "after-bad"]},
        )
    )
    assert (view["status"], view["error"]["step"], view["result"]) == ("failed", "bad", None)
    assert statuses(view) == {
        "root": "completed", "bad": "failed", "good": "completed", "after-good": "completed",
        "after-bad": "skipped", "join": "skipped",
    }  # fmt: skip
    assert view["outputs"]["after-good"]["slept"] is True
    output = caller.get(f"/executions/{view['execution_id']}/outputs/after-good")
    assert (output.status_code, output.json()["slept"]) == (200, True)


def test_a_step_may_have_its_own_retry_and_timeout(caller: ApiClient, tmp_path: Path) -> None:
    flaky = {"agent": "flaky", "input": {"path": str(tmp_path / "tries"), "failures": 3}}
    quick = {"attempts": 4, "wait_s": 0.05, "factor": 1, "wait_max_s": 0.05}
    view = caller.wait_done(run_graph(caller, {**flaky, "retry": quick}))
    assert (view["status"], view["steps"][0]["attempts"]) == ("completed", 4)

    flaky["input"] = {"path": str(tmp_path / "others"), "failures": 1}
    view = caller.wait_done(run_graph(caller, {**flaky, "retry": "none"}))
    assert (view["status"], view["steps"][0]["attempts"]) == ("failed", 1)

    view = caller.wait_done(run_graph(caller, {"agent": "sleeper", "timeout_s": 0.3, "input": {"seconds": 30}}))
    assert (view["status"], view["error"]["error_code"]) == ("failed", "timeout")


def test_a_pointer_to_nothing_in_an_output_is_an_invalid_input(caller: ApiClient) -> None:
    broken = {"id": "b", **ECHO, "needs": ["a"], "input": {"x": {"from": "a", "pointer": "/nope/0"}}}
    view = caller.wait_done(run_graph(caller, {"id": "a", **ECHO}, broken, {"id": "c", **ECHO, "needs": ["b"]}))
    assert (view["status"], view["error"]["error_code"], view["error"]["step"]) == (
        "failed",
        "input_invalid",
        "b",
    )
    assert "/nope/0" in view["error"]["message"]
    assert statuses(view) == {"a": "completed", "b": "failed", "c": "skipped"}


WRONG: list[tuple[str, list[dict[str, Any]], str, str]] = [
    ("circle", [{"id": "a", **ECHO, "needs": ["b"]}, {"id": "b", **ECHO, "needs": ["a"]}], "/0/needs", "circle"),
    ("itself", [{"id": "a", **ECHO, "needs": ["a"]}], "/0/needs", "circle"),
    ("dangling", [{"id": "a", **ECHO}, {"id": "b", **ECHO, "needs": ["z"]}], "/1/needs", "'z', which is no step"),
    ("twice", [{"id": "a", **ECHO}, {"id": "a", **ECHO}], "/1/id", "given twice"),
    ("stranger", [{"id": "a", **ECHO, "input": {"x": {"from": "b"}}}], "/0/input/x/from", "does not need"),
    ("many", [ECHO] * 201, "", "1 to 200"),
    ("none", [], "", "1 to 200"),
    ("no agent", [{"id": "a"}], "/0/agent", "required"),
    ("bad id", [{"id": "A b", **ECHO}], "/0/id", "lower-case"),
    ("bad retry", [{**ECHO, "retry": "often"}], "/0/retry", "often"),
    ("bad policy", [{**ECHO}, {**ECHO, "retry": {"attempts": 0}}], "/1/retry/attempts", "retry.attempts"),
    ("bad timeout", [{**ECHO, "timeout_s": 0}], "/0/timeout_s", "86400"),
    ("long timeout", [{**ECHO, "timeout_s": 86_401}], "/0/timeout_s", "86400"),
    ("condition", [{**ECHO, "when": "x > 1"}], "/0/when", "not a known key"),
    ("other condition", [ECHO, {**ECHO, "if": True}], "/1/if", "not a known key"),
    ("depends_on", [{"id": "a", **ECHO}, {**ECHO, "depends_on": ["a"]}], "/1/depends_on", "did you mean needs?"),
    (
        "default",
        [{**ECHO, "input": {"x": {"from": "input", "pointer": "/n", "default": 1}}}],
        "/0/input/x/default",
        "no defaults",
    ),
    ("no slash", [{**ECHO, "input": {"x": {"from": "input", "pointer": "n"}}}], "/0/input/x/pointer", "'/n'"),
    ("deep", [{**ECHO, "input": {"x": [{"from": "b", "pointer": "/n"}]}}], "/0/input/x/0/from", "no step"),
]


@pytest.mark.parametrize(("steps", "pointer", "words"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_an_invalid_graph_is_refused_with_its_pointer_and_nothing_is_stored(
    caller: ApiClient, steps: list[dict[str, Any]], pointer: str, words: str
) -> None:
    before = caller.document_counts()
    for path, body, prefix in (
        ("/run-basket", {"config": {"steps": steps}}, "/config/steps"),
        ("/create-basket", {"name": "wrong graph", "steps": steps}, "/steps"),
    ):
        refused = caller.post(path, body)
        problem = refused.json()
        assert (refused.status_code, problem["error_code"]) == (400, "validation_failed"), problem
        assert prefix + pointer in [detail["pointer"] for detail in problem["details"]], problem
        assert words in problem["detail"]
    assert caller.document_counts() == before


@pytest.mark.parametrize("path", ["/run-basket", "/create-basket"])
def test_the_faults_of_all_steps_are_told_at_once(caller: ApiClient, path: str) -> None:
    """An unknown agent hid all others before; a refusal for unknown agents alone keeps its own code."""
    steps = [
        {"agent": "nobody", "input": {"x": {"from": "input", "pointer": "n"}}},
        {"id": "b", **ECHO, "needs": ["zz"], "retry": {"attempts": 0}},
        {"agent": "neither"},
    ]
    definition = {"steps": steps}
    refused = caller.post(path, {"config": definition} if path == "/run-basket" else {"name": "wrong"} | definition)
    problem = refused.json()
    assert (refused.status_code, problem["error_code"]) == (400, "validation_failed")
    prefix = "/config/steps" if path == "/run-basket" else "/steps"
    assert {fault["pointer"].removeprefix(prefix) for fault in problem["details"]} == {
        "/0/agent", "/0/input/x/pointer", "/1/needs", "/1/retry/attempts", "/2/agent",
    }  # fmt: skip


def test_an_unknown_key_of_a_basket_is_refused(caller: ApiClient) -> None:
    before = caller.document_counts()
    for path, body, pointer in (
        ("/run-basket", {"config": {"agents": ["echo"], "schedule": "daily"}}, "/config/schedule"),
        ("/create-basket", {"name": "strict", "agents": ["echo"], "schedule": "daily"}, "/schedule"),
    ):
        refused = caller.post(path, body)
        assert (refused.status_code, refused.json()["details"][0]["pointer"]) == (400, pointer)
    assert caller.document_counts() == before


def test_a_reference_below_the_first_level_is_the_data_that_it_names(caller: ApiClient) -> None:
    steps = [
        {"id": "a", **ECHO},
        {"id": "b", **ECHO, "needs": ["a"], "input": {
            "deep": {"list": [{"from": "a", "pointer": "/n"}, {"from": "input", "pointer": "/kept/x/0"}, "literal"]}}},
    ]  # fmt: skip
    body = {"config": {"steps": steps}, "input_data": {"n": 7, "kept": {"x": [1]}}}
    view = caller.wait_done(caller.post("/run-basket", body).json()["execution_id"])
    assert view["result"] == {"b": {"deep": {"list": [7, 1, "literal"]}}}


SUMS = {"agent": "cashflow_analyzer", "input": {"transactions": []}}


@pytest.mark.parametrize(
    ("steps", "pointer", "fix"),
    [
        (
            [{"id": "a", **ECHO, "input": {"x": {"from": "input", "pointer": "n"}}}],
            "/steps/0/input/x/pointer",
            "write '/n'",
        ),
        (
            [{"id": "a", **SUMS}, {"id": "b", **SUMS}, {"agent": "goal_recommender", "needs": ["a", "b"]}],
            "/steps/2/needs",
            "both give 'analysis', and one would be lost: say which",
        ),
    ],
)
def test_a_stored_basket_that_breaks_a_newer_rule_is_readable_and_says_what_is_wrong(
    caller: ApiClient, steps: list[dict[str, Any]], pointer: str, fix: str
) -> None:
    """An older release stored it; a submit is refused, with the fix."""
    definition = {
        "name": f"of release {len(steps)}",
        "description": "",
        "steps": steps,
        "execution_strategy": "graph",
    }
    baskets = caller.stack.mongo()["baskets"]
    baskets.insert_one(
        {"integrator": "public", "name": definition["name"], "definition": json.dumps(definition).encode()}
    )
    try:
        read = caller.get(f"/baskets/{definition['name']}").json()
        assert (read["steps"], read["faults"][0]["pointer"]) == (steps, pointer)
        assert read in caller.get("/baskets").json()["baskets"]
        refused = caller.post("/run-basket", {"basket_name": definition["name"], "input_data": {"n": 1}})
        assert (refused.status_code, refused.json()["details"][0]["pointer"]) == (400, "/basket_name")
        assert "delete it and create it again" in refused.json()["detail"]
        assert fix in refused.json()["detail"]
    finally:
        assert caller.request("DELETE", f"/baskets/{definition['name']}").status_code == 200


def test_an_unknown_agent_is_named(caller: ApiClient) -> None:
    before = caller.document_counts()
    steps = [ECHO, {"agent": "nobody"}]
    refused = caller.post("/run-basket", {"config": {"steps": steps}})
    assert (refused.status_code, refused.json()["error_code"]) == (404, "agent_not_found")
    refused = caller.post("/create-basket", {"name": "wrong", "steps": steps})
    assert (refused.status_code, refused.json()["error_code"]) == (400, "unknown_agent")
    assert refused.json()["details"][0]["pointer"] == "/steps/1/agent"
    assert caller.document_counts() == before


def test_a_graph_and_a_parallel_basket_are_stored_and_run_by_name(caller: ApiClient) -> None:
    steps = [{"id": "a", **ECHO}, {"id": "b", **ECHO, "needs": ["a"], "input": {"m": {"from": "a", "pointer": "/n"}}}]
    created = caller.post("/create-basket", {"name": "kept graph", "steps": steps})
    assert (created.status_code, created.json()["basket"]["steps"]) == (201, steps)
    assert created.json()["basket"]["execution_strategy"] == "graph"
    assert caller.get("/baskets/kept graph").json()["steps"] == steps
    assert caller.wait_done(caller.submit_basket("kept graph", input_data={"n": 5}))["result"] == {"b": {"m": 5}}

    wide = {"name": "kept wide", "agents": ["echo", "echo"], "execution_strategy": "parallel"}
    assert caller.post("/create-basket", wide).status_code == 201
    view = caller.wait_done(caller.submit_basket("kept wide", input_data={"n": 5}))
    assert view["result"] == {"echo": {"n": 5}, "echo-2": {"n": 5}}


def test_a_basket_may_have_200_steps(caller: ApiClient) -> None:
    steps = [{"id": f"s{n}", **ECHO, "needs": [f"s{n - 1}"] if n else []} for n in range(200)]
    view = caller.wait_done(run_graph(caller, *steps))
    assert (view["status"], view["result"], view["progress"]["steps_completed"]) == (
        "completed", {"s199": {"n": 1}}, 200,
    )  # fmt: skip


# Schedules and deadlines


def in_s(delay_s: float, way: str) -> str | float:
    """Return the value of a schedule so far ahead: seconds, or a time with the local UTC offset."""
    if way == "run_after_s":
        return delay_s
    return (datetime.now(UTC) + timedelta(seconds=delay_s)).astimezone(datetime.now().astimezone().tzinfo).isoformat()


def submit(
    caller: ApiClient, agent: str = "echo", input_data: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    response = caller.post("/run-agent", {"agent_name": agent, "input_data": input_data or {}} | fields)
    assert response.status_code == 202, response.text
    body: dict[str, Any] = response.json()
    return body


@pytest.mark.parametrize("way", ["run_after", "run_after_s"])
def test_a_scheduled_run_waits_for_its_time_and_says_so(caller: ApiClient, way: str) -> None:
    body = submit(caller, **{way: in_s(10, way)})
    assert body["status"] == "scheduled"
    view = caller.poll(body["execution_id"])
    assert (view["status"], view["queued_at"], view["waiting_for"]["reason"]) == ("scheduled", None, "schedule")
    assert 0 < view["waiting_for"]["eta_ms"] <= 10_000
    assert view["waiting_for"]["eta_ms"] < view["poll_after_ms"] <= 12_000, "the time at which it may be done"
    caller.request("POST", f"/executions/{body['execution_id']}/cancel")


@pytest.mark.parametrize("way", ["run_after", "run_after_s"])
def test_a_scheduled_run_begins_at_its_time_or_soon_after_it(caller: ApiClient, way: str) -> None:
    def took_s() -> float:
        at = datetime.now(UTC) + timedelta(seconds=1.5)
        view = caller.wait_done(submit(caller, **{way: in_s(1.5, way)})["execution_id"])
        assert view["status"] == "completed"
        assert datetime.fromisoformat(view["started_at"]) >= at - timedelta(milliseconds=50)
        return seconds(view)

    # A busy machine makes one of them late; a schedule that is not kept makes all of them late.
    wait_until(lambda: took_s() < 1.5 + 2, 15, "one of them is done soon after its time")


@pytest.mark.parametrize("moment", ["2020-01-01T00:00:00Z", "2020-01-01t00:00:00.5+02:00"])
def test_a_time_in_the_past_means_now(caller: ApiClient, moment: str) -> None:
    def took_s() -> float:
        body = submit(caller, run_after=moment)
        assert body["status"] == "queued"
        view = caller.wait_done(body["execution_id"])
        assert view["status"] == "completed"
        return seconds(view)

    wait_until(lambda: took_s() < 2, 15, "one of them is done at once, unless this machine is busy each time")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"run_after": "tomorrow"}, "run_after"),
        ({"run_after": "2030-01-01T00:00:00"}, "run_after"),
        ({"run_after": "2030-01-01 00:00:00Z"}, "run_after"),
        ({"run_after": "2030-13-01T00:00:00Z"}, "run_after"),
        ({"run_after": "2026-11-21T00:00:00+00:99"}, "run_after"),
        ({"run_after": "9999-01-01T00:00:00Z"}, "run_after"),
        ({"run_after": 1_800_000_000}, "run_after"),
        ({"run_after_s": -1}, "run_after_s"),
        ({"run_after_s": "5"}, "run_after_s"),
        ({"run_after_s": True}, "run_after_s"),
        ({"run_after_s": 1, "run_after": "2030-01-01T00:00:00Z"}, "run_after_s"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"deadline_s": "soon"}, "deadline_s"),
        ({"start_deadline_s": -1}, "start_deadline_s"),
    ],
    ids=str,
)
def test_an_invalid_time_is_refused(caller: ApiClient, fields: dict[str, Any], field: str) -> None:
    before = caller.document_counts()
    refused = caller.post("/run-agent", {"agent_name": "echo", "input_data": {}} | fields)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "validation_failed")
    assert [detail["pointer"] for detail in refused.json()["details"]] == [f"/{field}"]
    assert caller.document_counts() == before


def test_a_run_not_begun_by_its_start_deadline_fails(caller: ApiClient) -> None:
    caller.stack.stop("worker")
    view = caller.wait_done(submit(caller, start_deadline_s=0.5)["execution_id"])
    assert (view["status"], view["error"]["error_code"]) == ("failed", "start_deadline_exceeded")
    assert view["error"]["kind"] == "timeout"
    assert statuses(view) == {"echo": "cancelled"}
    caller.stack.start("worker")
    wait_until(lambda: count_messages(caller.stack) == 0, 10, "its message is read now, and there is nothing to claim")
    assert caller.poll(view["execution_id"]) == view


def test_a_run_that_began_in_time_is_not_ended_by_its_start_deadline(caller: ApiClient) -> None:
    input_data = {"seconds": 60, "slice_s": 0.05}
    run_graph = submit(caller, "sleeper", input_data, start_deadline_s=4)["execution_id"]
    wait_until(lambda: caller.poll(run_graph)["status"] == "running", 4, "it begins in time")
    created_at = datetime.fromisoformat(caller.poll(run_graph)["created_at"])
    wait_until(lambda: store_now(caller) > created_at + timedelta(seconds=4), 10, "its start deadline has passed")
    executions = caller.stack.mongo().executions
    for _ in range(4):  # because a heartbeat, which also moves due_by, may come before the reconciler's check
        executions.update_one({"_id": run_graph}, {"$set": {"due_by": created_at}})
        wait_until(
            lambda: executions.find_one({"_id": run_graph})["due_by"].replace(tzinfo=UTC) > created_at,
            10,
            "it was checked",
        )
    assert caller.poll(run_graph)["status"] == "running"
    assert caller.request("POST", f"/executions/{run_graph}/cancel").status_code == 202
    caller.wait_done(run_graph)


def test_a_run_past_its_deadline_ends_in_spite_of_a_live_lease_and_frees_its_slot(caller: ApiClient) -> None:
    input_data = {"seconds": 60, "slice_s": 0.05}
    run_ids = [submit(caller, "sleeper", input_data, deadline_s=4)["execution_id"] for _ in range(4)]
    for view in (caller.wait_done(execution_id) for execution_id in run_ids):
        assert (view["status"], view["error"]["error_code"]) == ("failed", "deadline_exceeded")
        assert (view["error"]["kind"], statuses(view)) == ("timeout", {"sleeper": "failed"})
        assert 4 <= seconds(view) < 12
    again = [submit(caller)["execution_id"] for _ in range(4)]
    assert {caller.wait_done(execution_id)["status"] for execution_id in again} == {"completed"}
    wait_until(lambda: caller.stack.logs("worker").count("the lease is lost") >= 4, 5, "all four were asked to stop")


def test_deadlines_count_from_the_time_at_which_a_run_may_begin(caller: ApiClient) -> None:
    body = submit(caller, run_after_s=4.5, deadline_s=4, start_deadline_s=4)
    assert caller.wait_done(body["execution_id"])["status"] == "completed", (
        "counted from the submit, both would have passed before it began"
    )
    body = submit(caller, "sleeper", {"seconds": 60}, run_after_s=0.5, deadline_s=1)
    view = caller.wait_done(body["execution_id"])
    assert view["error"]["error_code"] == "deadline_exceeded"
    assert seconds(view) >= 1.5
