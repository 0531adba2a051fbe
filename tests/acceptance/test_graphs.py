"""Parallel baskets and explicit graphs on four worker children, schedules and deadlines, on the real stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.client import AGENTS, Caller
from tests.faults.inspection import messages
from tests.stack import Stack
from tests.step_gate import gate
from tests.waiting import wait_until

ECHO = {"agent": "echo"}


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_WORKER_CONCURRENCY="4")


@pytest.fixture
def caller(stack: Stack) -> Iterator[Caller]:
    yield Caller(stack)
    stack.mend()


def run(caller: Caller, *steps: dict[str, Any], given: dict[str, Any] | None = None, **more: Any) -> str:
    body = {"config": {"steps": list(steps)}, "input_data": given or {"n": 1}} | more
    answer = caller.post("/run-basket", body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["execution_id"])


def statuses(polled: dict[str, Any]) -> dict[str, str]:
    return {step["step"]: step["status"] for step in polled["steps"]}


def now_of(caller: Caller) -> datetime:
    """The store's own time, by which all moments are kept."""
    told: datetime = caller.stack.mongo().client.admin.command("hello")["localTime"]
    return told.replace(tzinfo=UTC)


def seconds(polled: dict[str, Any], since: str = "created_at") -> float:
    """How long a run took, by the store's clock."""
    return (datetime.fromisoformat(polled["finished_at"]) - datetime.fromisoformat(polled[since])).total_seconds()


# Parallel and explicit graphs


def test_each_step_of_a_parallel_basket_gets_the_runs_input_and_the_result_has_them_all(caller: Caller) -> None:
    config = {"agents": ["echo", "echo", "echo"], "execution_strategy": "parallel"}
    answer = caller.post("/run-basket", {"config": config, "input_data": {"n": 1}})
    assert answer.json()["execution_metadata"]["strategy"] == "parallel"
    polled = caller.finished(answer.json()["execution_id"])
    assert polled["result"] == {"echo": {"n": 1}, "echo-2": {"n": 1}, "echo-3": {"n": 1}}
    assert polled["outputs"] == polled["result"]


def test_four_parallel_steps_run_at_the_same_time_on_four_children(caller: Caller, tmp_path: Path) -> None:
    config = {"agents": ["counter"] * 4, "execution_strategy": "parallel"}
    with gate(tmp_path / "gate") as shut:
        answer = caller.post("/run-basket", {"config": config, "input_data": {"file": str(tmp_path / "gate")}})
        execution_id = answer.json()["execution_id"]
        # Each goes on once all of them have begun: one after the other, none would ever end.
        wait_until(lambda: set(statuses(caller.poll(execution_id)).values()) == {"running"}, 15, "all four run")
        shut.open()
        polled = caller.finished(execution_id)
    print(f"\nfour parallel steps: {seconds(polled):.3f} s from accept to end")  # noqa: T201
    assert polled["status"] == "completed"
    assert {step["attempts"] for step in polled["steps"]} == {1}


def test_a_diamond_maps_its_inputs_and_ends_in_the_step_that_nobody_needs(caller: Caller) -> None:
    polled = caller.finished(
        run(
            caller,
            {"id": "a", **ECHO, "input": {"n": {"from": "input", "pointer": "/deep/0"}, "kept": {"x": [1, None]}}},
            {"id": "b", **ECHO, "needs": ["a"], "input": {"left": {"from": "a", "pointer": "/n"}, "both": "b"}},
            {"id": "c", **ECHO, "needs": ["a"], "input": {"right": {"from": "a", "pointer": "/kept/x"}, "both": "c"}},
            {"id": "join", **ECHO, "needs": ["b", "c"]},
            {
                "id": "whole",
                **ECHO,
                "needs": ["join", "a"],
                "input": {"all": {"from": "join"}, "in": {"from": "input"}},
            },
            given={"deep": [7]},
        )
    )
    assert polled["status"] == "completed", polled["error"]
    assert polled["outputs"]["a"] == {"n": 7, "kept": {"x": [1, None]}}
    assert polled["outputs"]["join"] == {"left": 7, "right": [1, None], "both": "c"}, "merged in the order of needs"
    assert polled["result"] == {"whole": {"all": polled["outputs"]["join"], "in": {"deep": [7]}}}
    assert polled["progress"]["percent"] == 100


def test_a_join_that_workers_reach_at_once_runs_once(caller: Caller, tmp_path: Path) -> None:
    file = tmp_path / "counted"
    fan = [{"id": f"f{number}", "agent": "echo"} for number in range(4)]
    join = {"id": "join", "agent": "counter", "needs": [step["id"] for step in fan], "input": {"file": str(file)}}
    runs = [run(caller, *fan, join) for _ in range(25)]
    polls = [caller.finished(execution_id) for execution_id in runs]
    assert {polled["status"] for polled in polls} == {"completed"}
    assert sorted(file.read_text().split()) == sorted(f"{execution_id}:join:1" for execution_id in runs)


def test_a_branch_that_fails_stops_what_needs_it_and_nothing_else(caller: Caller) -> None:
    polled = caller.finished(
        run(
            caller,
            {"id": "root", **ECHO},
            {"id": "bad", "agent": "raiser", "needs": ["root"], "input": {"kind": "ValueError"}},
            {"id": "good", "agent": "sleeper", "needs": ["root"], "input": {"seconds": 0.3}},
            {"id": "after-good", **ECHO, "needs": ["good"]},
            {"id": "after-bad", **ECHO, "needs": ["bad"]},
            {"id": "join", **ECHO, "needs": ["after-good", "after-bad"]},
        )
    )
    assert (polled["status"], polled["error"]["step"], polled["result"]) == ("failed", "bad", None)
    assert statuses(polled) == {
        "root": "completed", "bad": "failed", "good": "completed", "after-good": "completed",
        "after-bad": "skipped", "join": "skipped",
    }  # fmt: skip
    assert polled["outputs"]["after-good"]["slept"] is True
    output = caller.get(f"/executions/{polled['execution_id']}/outputs/after-good")
    assert (output.status_code, output.json()["slept"]) == (200, True)


def test_a_step_may_have_a_retry_and_a_timeout_of_its_own(caller: Caller, tmp_path: Path) -> None:
    flaky = {"agent": "flaky", "input": {"path": str(tmp_path / "tries"), "failures": 3}}
    quick = {"attempts": 4, "wait_s": 0.05, "factor": 1, "wait_max_s": 0.05}
    polled = caller.finished(run(caller, {**flaky, "retry": quick}))
    assert (polled["status"], polled["steps"][0]["attempts"]) == ("completed", 4)

    flaky["input"] = {"path": str(tmp_path / "others"), "failures": 1}
    polled = caller.finished(run(caller, {**flaky, "retry": "none"}))
    assert (polled["status"], polled["steps"][0]["attempts"]) == ("failed", 1)

    polled = caller.finished(run(caller, {"agent": "sleeper", "timeout_s": 0.3, "input": {"seconds": 30}}))
    assert (polled["status"], polled["error"]["error_code"]) == ("failed", "timeout")


def test_a_place_that_an_output_does_not_have_is_an_invalid_input(caller: Caller) -> None:
    broken = {"id": "b", **ECHO, "needs": ["a"], "input": {"x": {"from": "a", "pointer": "/nope/0"}}}
    polled = caller.finished(run(caller, {"id": "a", **ECHO}, broken, {"id": "c", **ECHO, "needs": ["b"]}))
    assert (polled["status"], polled["error"]["error_code"], polled["error"]["step"]) == (
        "failed",
        "input_invalid",
        "b",
    )
    assert "/nope/0" in polled["error"]["message"]
    assert statuses(polled) == {"a": "completed", "b": "failed", "c": "skipped"}


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
    ("bad policy", [{**ECHO}, {**ECHO, "retry": {"attempts": 0}}], "/1/retry", "retry.attempts"),
    ("bad timeout", [{**ECHO, "timeout_s": 0}], "/0/timeout_s", "86400"),
    ("long timeout", [{**ECHO, "timeout_s": 86_401}], "/0/timeout_s", "86400"),
]


@pytest.mark.parametrize(("steps", "pointer", "words"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_graph_that_cannot_run_is_refused_where_it_is_wrong_and_nothing_is_stored(
    caller: Caller, steps: list[dict[str, Any]], pointer: str, words: str
) -> None:
    before = caller.stored()
    for path, body, prefix in (
        ("/run-basket", {"config": {"steps": steps}}, "/config/steps"),
        ("/create-basket", {"name": "wrong graph", "steps": steps}, "/steps"),
    ):
        refused = caller.post(path, body)
        problem = refused.json()
        assert (refused.status_code, problem["error_code"]) == (400, "validation_failed"), problem
        assert prefix + pointer in [detail["pointer"] for detail in problem["details"]], problem
        assert words in problem["detail"]
    assert caller.stored() == before


def test_an_agent_that_is_not_there_is_told(caller: Caller) -> None:
    before = caller.stored()
    steps = [ECHO, {"agent": "nobody"}]
    refused = caller.post("/run-basket", {"config": {"steps": steps}})
    assert (refused.status_code, refused.json()["error_code"]) == (404, "agent_not_found")
    refused = caller.post("/create-basket", {"name": "wrong", "steps": steps})
    assert (refused.status_code, refused.json()["error_code"]) == (400, "unknown_agent")
    assert refused.json()["details"][0]["pointer"] == "/steps/1/agent"
    assert caller.stored() == before


def test_a_graph_and_a_parallel_basket_are_kept_and_run_by_name(caller: Caller) -> None:
    steps = [{"id": "a", **ECHO}, {"id": "b", **ECHO, "needs": ["a"], "input": {"m": {"from": "a", "pointer": "/n"}}}]
    made = caller.post("/create-basket", {"name": "kept graph", "steps": steps})
    assert (made.status_code, made.json()["basket"]["steps"]) == (201, steps)
    assert made.json()["basket"]["execution_strategy"] == "graph"
    assert caller.get("/baskets/kept graph").json()["steps"] == steps
    assert caller.finished(caller.run("kept graph", input_data={"n": 5}))["result"] == {"b": {"m": 5}}

    wide = {"name": "kept wide", "agents": ["echo", "echo"], "execution_strategy": "parallel"}
    assert caller.post("/create-basket", wide).status_code == 201
    polled = caller.finished(caller.run("kept wide", input_data={"n": 5}))
    assert polled["result"] == {"echo": {"n": 5}, "echo-2": {"n": 5}}


def test_a_basket_may_have_200_steps(caller: Caller) -> None:
    steps = [{"id": f"s{n}", **ECHO, "needs": [f"s{n - 1}"] if n else []} for n in range(200)]
    polled = caller.finished(run(caller, *steps))
    assert (polled["status"], polled["result"], polled["progress"]["steps_completed"]) == (
        "completed", {"s199": {"n": 1}}, 200,
    )  # fmt: skip


# Schedules and deadlines


def in_s(delay_s: float, way: str) -> str | float:
    """A moment so far ahead, as it is told: with an offset, for it is the same wherever it is written."""
    if way == "run_after_s":
        return delay_s
    return (datetime.now(UTC) + timedelta(seconds=delay_s)).astimezone(datetime.now().astimezone().tzinfo).isoformat()


def submit(caller: Caller, agent: str = "echo", given: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    answer = caller.post("/run-agent", {"agent_name": agent, "input_data": given or {}} | more)
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("way", ["run_after", "run_after_s"])
def test_a_scheduled_run_waits_for_its_moment_and_says_so(caller: Caller, way: str) -> None:
    body = submit(caller, **{way: in_s(10, way)})
    assert body["status"] == "scheduled"
    polled = caller.poll(body["execution_id"])
    assert (polled["status"], polled["queued_at"], polled["waiting_for"]["reason"]) == ("scheduled", None, "schedule")
    assert 0 < polled["waiting_for"]["eta_ms"] <= 10_000
    assert polled["waiting_for"]["eta_ms"] < polled["poll_after_ms"] <= 12_000, "when it may be over"
    caller.ask("POST", f"/executions/{body['execution_id']}/cancel")


@pytest.mark.parametrize("way", ["run_after", "run_after_s"])
def test_a_scheduled_run_begins_at_its_moment_and_soon_after_it(caller: Caller, way: str) -> None:
    def took_s() -> float:
        at = datetime.now(UTC) + timedelta(seconds=1.5)
        polled = caller.finished(submit(caller, **{way: in_s(1.5, way)})["execution_id"])
        assert polled["status"] == "completed"
        assert datetime.fromisoformat(polled["started_at"]) >= at - timedelta(milliseconds=50)
        return seconds(polled)

    # A machine that stands still makes one of them late; a moment that nobody looks after makes all of them late.
    wait_until(lambda: took_s() < 1.5 + 2, 15, "one of them is over soon after its moment")


@pytest.mark.parametrize("moment", ["2020-01-01T00:00:00Z", "2020-01-01t00:00:00.5+02:00"])
def test_a_moment_in_the_past_is_now(caller: Caller, moment: str) -> None:
    def took_s() -> float:
        body = submit(caller, run_after=moment)
        assert body["status"] == "queued"
        polled = caller.finished(body["execution_id"])
        assert polled["status"] == "completed"
        return seconds(polled)

    wait_until(lambda: took_s() < 2, 15, "one of them is over at once, unless this machine stands still each time")


@pytest.mark.parametrize(
    ("more", "field"),
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
def test_a_moment_of_another_form_is_refused(caller: Caller, more: dict[str, Any], field: str) -> None:
    before = caller.stored()
    refused = caller.post("/run-agent", {"agent_name": "echo", "input_data": {}} | more)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "validation_failed")
    assert [detail["pointer"] for detail in refused.json()["details"]] == [f"/{field}"]
    assert caller.stored() == before


def test_a_run_that_nobody_began_by_its_start_deadline_has_failed(caller: Caller) -> None:
    caller.stack.stop("worker")
    polled = caller.finished(submit(caller, start_deadline_s=0.5)["execution_id"])
    assert (polled["status"], polled["error"]["error_code"]) == ("failed", "start_deadline_exceeded")
    assert polled["error"]["kind"] == "timeout"
    assert statuses(polled) == {"echo": "cancelled"}
    caller.stack.start("worker")
    wait_until(lambda: messages(caller.stack) == 0, 10, "its bell rings now, and finds nothing to claim")
    assert caller.poll(polled["execution_id"]) == polled


def test_one_that_began_in_time_is_not_held_to_its_start_deadline(caller: Caller) -> None:
    given = {"seconds": 60, "slice_s": 0.05}
    run = submit(caller, "sleeper", given, start_deadline_s=4)["execution_id"]
    wait_until(lambda: caller.poll(run)["status"] == "running", 4, "it begins in time")
    created_at = datetime.fromisoformat(caller.poll(run)["created_at"])
    wait_until(lambda: now_of(caller) > created_at + timedelta(seconds=4), 10, "its start deadline is over")
    executions = caller.stack.mongo().executions
    for _ in range(4):  # for a heartbeat, which moves it too, may come before the reconciler's look
        executions.update_one({"_id": run}, {"$set": {"due_by": created_at}})
        wait_until(
            lambda: executions.find_one({"_id": run})["due_by"].replace(tzinfo=UTC) > created_at, 10, "looked at"
        )
    assert caller.poll(run)["status"] == "running"
    assert caller.ask("POST", f"/executions/{run}/cancel").status_code == 202
    caller.finished(run)


def test_a_live_lease_does_not_save_a_run_past_its_deadline_and_its_slot_is_free_again(caller: Caller) -> None:
    given = {"seconds": 60, "slice_s": 0.05}
    late = [submit(caller, "sleeper", given, deadline_s=4)["execution_id"] for _ in range(4)]
    for polled in (caller.finished(execution_id) for execution_id in late):
        assert (polled["status"], polled["error"]["error_code"]) == ("failed", "deadline_exceeded")
        assert (polled["error"]["kind"], statuses(polled)) == ("timeout", {"sleeper": "failed"})
        assert 4 <= seconds(polled) < 12
    again = [submit(caller)["execution_id"] for _ in range(4)]
    assert {caller.finished(execution_id)["status"] for execution_id in again} == {"completed"}
    wait_until(lambda: caller.stack.logs("worker").count("the lease is lost") >= 4, 5, "all four were asked to stop")


def test_deadlines_count_from_the_moment_at_which_a_run_may_begin(caller: Caller) -> None:
    body = submit(caller, run_after_s=4.5, deadline_s=4, start_deadline_s=4)
    assert caller.finished(body["execution_id"])["status"] == "completed", "from its submit they were over before it"
    body = submit(caller, "sleeper", {"seconds": 60}, run_after_s=0.5, deadline_s=1)
    polled = caller.finished(body["execution_id"])
    assert polled["error"]["error_code"] == "deadline_exceeded"
    assert seconds(polled) >= 1.5
