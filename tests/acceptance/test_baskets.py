"""Baskets: seeded once, created and deleted by callers, and the same in every process of the API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

import worker.agents
from shared.catalogue.seed_baskets import load_seed_baskets
from tests.acceptance.client import AGENTS, INCOME, ApiClient
from tests.stack import Stack
from tests.waiting import wait_until

SEEDED = {str(basket["name"]): basket for basket in load_seed_baskets()}
BUILT_IN = Path(worker.agents.__file__).parent
PROCESSES = 2
MANY_REQUESTS = 24  # connections reach the processes at random: all at one process is 1 in 8 million


@pytest.fixture(scope="module")
def caller(make_stack: Callable[..., Stack]) -> ApiClient:
    """A client of a stack of its own, because the API is restarted here."""
    return ApiClient(make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_API_PROCESSES=str(PROCESSES)))


def statuses(caller: ApiClient, name: str) -> set[int]:
    """Return the statuses of a basket in all processes of the API."""
    return {caller.get(f"/baskets/{quote(name)}").status_code for _ in range(MANY_REQUESTS)}


def refusals(caller: ApiClient, name: str) -> set[tuple[int, str | None]]:
    """Return the status and error code with which all processes of the API refuse to run a basket."""
    responses = [caller.post("/run-basket", {"basket_name": name}) for _ in range(MANY_REQUESTS)]
    return {(response.status_code, response.json().get("error_code")) for response in responses}


def executed(caller: ApiClient, name: str) -> object:
    """Run a basket and return the agents that were executed."""
    return caller.wait_done(caller.submit_basket(name))["execution_metadata"]["agents_executed"]


def test_the_seeded_baskets_are_there_and_run_with_their_samples(caller: ApiClient) -> None:
    baskets = caller.get("/baskets").json()["baskets"]
    assert [basket["name"] for basket in baskets] == sorted(SEEDED)
    assert all(basket["agents"] == SEEDED[basket["name"]]["agents"] for basket in baskets)
    runs = {name: caller.submit_basket(name) for name in SEEDED}
    assert {name: caller.wait_done(run)["error"] for name, run in runs.items()} == dict.fromkeys(SEEDED)


def test_each_agent_runs_with_its_sample(caller: ApiClient) -> None:
    names = {path.name for path in BUILT_IN.iterdir() if (path / "agent_spec.json").is_file()}
    specs = [spec for spec in caller.get("/agents").json() if spec["name"] in names]
    assert len(specs) >= 4
    runs = {spec["name"]: caller.submit_agent(spec["name"], **spec["sample_input"]) for spec in specs}
    assert {name: caller.wait_done(run)["error"] for name, run in runs.items()} == dict.fromkeys(runs)


@pytest.mark.parametrize("name", ["a", "Two words", "a+b", "1.2-3_4", "x" * 100, "a "])
def test_a_basket_is_created_visible_in_each_process_run_and_deleted(caller: ApiClient, name: str) -> None:
    created = caller.post("/create-basket", {"name": name, "agents": ["cashflow_analyzer"], "description": "mine"})
    assert created.status_code == 201, created.text
    assert created.json()["basket"] == {
        "name": name,
        "basket_name": name,
        "description": "mine",
        "agents": ["cashflow_analyzer"],
        "execution_strategy": "sequential",
    }
    assert statuses(caller, name) == {200}
    again = caller.post("/create-basket", {"name": name, "agents": ["echo"]})
    assert (again.status_code, again.json()["error_code"]) == (409, "basket_exists")
    run = caller.wait_done(caller.submit_basket(name, input_data=INCOME))
    assert run["result"]["analysis"]["total"] == 1000
    deleted = caller.request("DELETE", f"/baskets/{quote(name)}")
    assert (deleted.status_code, deleted.json()["success"]) == (200, True)
    assert statuses(caller, name) == {404}
    assert caller.poll(run["execution_id"]) == run
    wait_until(lambda: refusals(caller, name) == {(404, "basket_not_found")}, 6, "no process has it cached")
    assert caller.request("DELETE", f"/baskets/{quote(name)}").status_code == 404


def test_a_plus_in_an_address_is_a_plus(caller: ApiClient) -> None:
    caller.post("/create-basket", {"name": "c+d", "agents": ["echo"]})
    assert caller.get("/baskets/c+d").json()["name"] == "c+d"
    assert caller.get("/baskets/c%2Bd").json()["name"] == "c+d"
    assert caller.get("/baskets/c%20d").status_code == 404


def test_a_deleted_name_can_be_used_again(caller: ApiClient) -> None:
    for agents in (["echo"], ["cashflow_analyzer", "goal_recommender"]):
        assert caller.post("/create-basket", {"name": "phoenix", "agents": agents}).status_code == 201
        assert caller.get("/baskets/phoenix").json()["agents"] == agents
        wait_until(lambda: executed(caller, "phoenix") == agents, 6, "no process has the old one cached")  # noqa: B023
        assert caller.request("DELETE", "/baskets/phoenix").status_code == 200


def test_a_run_keeps_the_basket_that_it_started_with(caller: ApiClient) -> None:
    caller.post("/create-basket", {"name": "moving", "agents": ["sleeper", "echo"]})
    run = caller.submit_basket("moving", input_data={"seconds": 0.3})
    caller.request("DELETE", "/baskets/moving")
    caller.post("/create-basket", {"name": "moving", "agents": ["raiser"]})
    done = caller.wait_done(run)
    assert (done["status"], done["execution_metadata"]["agents_executed"]) == ("completed", ["sleeper", "echo"])


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("name", ["nobody", "$ne", '{"$gt": ""}', "x" * 200, " a", "ü"])
def test_a_basket_that_is_not_there_is_404(caller: ApiClient, method: str, name: str) -> None:
    response = caller.request(method, f"/baskets/{quote(name)}")
    assert (response.status_code, response.json()["error_code"]) == (404, "basket_not_found")
    assert "not found" in response.json()["detail"]


def test_a_deleted_seed_stays_deleted_after_a_restart_and_the_rest_stays(caller: ApiClient) -> None:
    caller.post("/create-basket", {"name": "kept", "agents": ["echo"]})
    run = caller.wait_done(caller.submit_basket("goal_test"))
    assert caller.request("DELETE", "/baskets/goal_test").status_code == 200
    caller.stack.stop("api")
    caller.stack.start("api")
    assert statuses(caller, "goal_test") == {404}
    assert statuses(caller, "kept") == {200}
    assert caller.poll(run["execution_id"]) == run
    created = caller.post("/create-basket", {"name": "goal_test", "agents": ["echo"]})
    assert created.status_code == 201
    caller.stack.stop("api")
    caller.stack.start("api")
    assert caller.get("/baskets/goal_test").json()["agents"] == ["echo"]
