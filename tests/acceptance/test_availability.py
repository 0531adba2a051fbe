"""One broken agent stops no other: it is listed as unavailable, submits that need it are refused with the reason."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.acceptance.client import ApiClient
from tests.stack import SecondProcess, Stack
from tests.waiting import wait_until

SECRET = "k3y-of-the-rates"
GOOD = "def run(given, ctx):\n    return {}\n"
ASKS = """
def run(given, ctx):
    ctx.log("asked with " + ctx.settings["RATES_API_KEY"])
    if given.get("fail"):
        raise ValueError("refused: " + ctx.settings["RATES_API_KEY"])
    return {"length": len(ctx.settings["RATES_API_KEY"])}
"""
IMPORTS = "# an agent\nimport a_package_that_is_not_there\n"
REASONS = {
    "broken_import": "agent.py cannot be loaded: ModuleNotFoundError: No module named 'a_package_that_is_not_there' "
    "(agent.py line 2); name its package in requirements.txt beside agent_spec.json, then run: bucketd agents install",
    "unset": "the required setting RATES_API_KEY is not set",
    "wrong_spec": "agent_spec.json: queue must be one of default, long",
    "lost_package": "package no_such_package is not installed",
}


def write_agent(home: Path, name: str, source: str = GOOD, **changes: Any) -> None:
    folder = home / name
    folder.mkdir(parents=True)
    spec = {
        "name": name,
        "version": "1.0.0",
        "description": "Tests.",
        "domains": ["availability"],
        "entry": "agent:run",
        "capabilities": {"chainable": True, "memory_access": False, "idempotent": True},
        "input_schema": {"type": "object"},
        "output_schema": {"type": "object"},
        "sample_input": {},
        "sample_output": {},
    }
    (folder / "agent_spec.json").write_text(json.dumps(spec | changes))
    (folder / "agent.py").write_text(source)


def install_package(site: Path) -> None:
    """Write a distribution as an installer leaves it: a package with an agent, and its entry points."""
    write_agent(
        site / "rates_agents", "packaged", "from rates_agents import RATE\n" + GOOD.replace("{}", "{'rate': RATE}")
    )
    (site / "rates_agents" / "__init__.py").write_text("RATE = 2\n")
    info = site / "rates_agents-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rates-agents\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[bucket.agents]\nrates = rates_agents.packaged\nlost_package = no_such_package.agents\n"
    )


@pytest.fixture(scope="module")
def caller(make_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> ApiClient:
    """Return a client of a stack with good and broken agents, in a directory and in an installed package."""
    home, site = tmp_path_factory.mktemp("agents"), tmp_path_factory.mktemp("site")
    write_agent(home, "good")
    write_agent(home, "wrong_spec", queue="fast")
    write_agent(home, "broken_import", IMPORTS)
    write_agent(home, "unset", ASKS, settings=["RATES_API_KEY"])
    write_agent(home, "hidden", ASKS, settings=["RATES_API_KEY"], unlisted_without_settings=True)
    install_package(site)
    caller = ApiClient(make_stack(BUCKET_AGENTS_DIR=str(home), PYTHONPATH=str(site)))
    wait_until_unavailable(caller, "unset")
    return caller


def agent(caller: ApiClient, name: str) -> dict[str, Any]:
    view: dict[str, Any] = caller.get(f"/agents/{name}").json()
    return view


def wait_until_unavailable(caller: ApiClient, name: str, status: str = "unavailable") -> None:
    # Many reads: each process of the API notices by itself.
    wait_until(
        lambda: all(agent(caller, name)["availability"]["status"] == status for _ in range(16)),
        20,
        f"{name} is {status}",
    )


@contextmanager
def worker_with_the_setting(caller: ApiClient) -> Iterator[SecondProcess]:
    with caller.stack.second_process("worker", RATES_API_KEY=SECRET) as second:
        name = f"{socket.gethostname()}:{second.pid}"
        wait_until_unavailable(caller, "unset", "available")
        yield second
    caller.stack.redis().zrem("workers", name)  # the presence of a killed worker would last 15 s


def assert_refused(response: requests.Response, name: str) -> None:
    assert response.status_code == 503
    problem = response.json()
    assert problem["error_code"] == "agent_unavailable"
    assert f"agent {name!r} is unavailable: {REASONS[name]}" in problem["detail"]
    assert response.headers["Retry-After"] == "30"


def test_every_agent_is_listed_truthfully(caller: ApiClient) -> None:
    listed = {spec["name"]: spec for spec in caller.get("/agents").json()}
    assert list(listed) == sorted(listed)
    reasons = {name: spec["availability"].get("reason") for name, spec in listed.items()}
    assert {name: reason for name, reason in reasons.items() if reason is not None} == REASONS
    assert {"cashflow_analyzer", "good", "packaged", "simulate"} < listed.keys()
    assert not {"hidden", "law_agent"} & listed.keys()
    assert "queue" not in listed["wrong_spec"]
    assert listed["wrong_spec"]["description"] == "Tests."
    assert listed["unset"]["settings"] == [{"name": "RATES_API_KEY", "required": True, "description": ""}]
    of_domain = caller.get("/agents", params={"domain": "availability"}).json()
    assert [spec["name"] for spec in of_domain] == ["broken_import", "good", "packaged", "unset", "wrong_spec"]


def test_the_good_ones_run_and_have_durations(caller: ApiClient) -> None:
    assert agent(caller, "packaged")["durations"] == {"p50_s": None, "p95_s": None, "count": 0}
    assert caller.wait_done(caller.submit_agent("good"))["status"] == "completed"
    assert caller.wait_done(caller.submit_agent("packaged"))["result"] == {"rate": 2}
    wait_until(lambda: agent(caller, "packaged")["durations"]["count"] == 1, what="the duration is recorded")
    assert 0 <= agent(caller, "packaged")["durations"]["p95_s"] < 5


@pytest.mark.parametrize("name", REASONS)
def test_a_submit_that_needs_an_unavailable_agent_is_refused_with_the_reason(caller: ApiClient, name: str) -> None:
    before = caller.document_counts()
    assert_refused(caller.post("/run-agent", {"agent_name": name, "input_data": {}}), name)
    config = {"agents": ["good", name], "execution_strategy": "sequential"}
    assert_refused(caller.post("/run-basket", {"config": config, "input_data": {}}), name)
    batch = caller.post("/run-basket/batch", {"items": [{"config": config}, {"basket_name": "working_test"}]}).json()
    assert [(item["status"], item.get("error_code")) for item in batch["items"]] == [
        (503, "agent_unavailable"),
        (202, None),
    ]
    assert caller.document_counts()["executions"] == before["executions"] + 1


def test_another_fault_of_a_submit_is_told_first(caller: ApiClient) -> None:
    config = {"agents": ["broken_import", "nobody"]}
    assert caller.post("/run-basket", {"config": config, "input_data": {}}).json()["error_code"] == "agent_not_found"
    config = {"agents": ["wrong_spec", "nobody"]}
    assert caller.post("/run-basket", {"config": config, "input_data": {}}).json()["error_code"] == "agent_not_found"


@pytest.mark.parametrize("name", REASONS)
def test_a_basket_of_an_unavailable_agent_can_be_stored_and_shows_why_it_cannot_run(
    caller: ApiClient, name: str
) -> None:
    basket = f"needs {name}"
    steps = [{"id": "first", "agent": "good"}, {"agent": name, "needs": ["first"]}]
    assert caller.post("/create-basket", {"name": basket, "steps": steps}).status_code == 201
    fault = {"pointer": "/steps/1/agent", "message": f"agent {name!r} is unavailable: {REASONS[name]}"}
    assert caller.get(f"/baskets/{basket}").json()["faults"] == [fault]
    assert_refused(caller.post("/run-basket", {"basket_name": basket, "input_data": {}}), name)


def test_an_agent_that_is_not_set_up_is_not_there(caller: ApiClient) -> None:
    assert caller.get("/agents/hidden").status_code == 404
    refused = caller.post("/run-agent", {"agent_name": "hidden", "input_data": {}})
    assert (refused.status_code, refused.json()["error_code"]) == (404, "agent_not_found")
    assert "not found: it is not set up here, because the required setting RATES_API_KEY" in refused.json()["detail"]


def test_each_unavailable_agent_is_one_warning_in_each_log_and_the_worker_stays(caller: ApiClient) -> None:
    for name, expected in (
        ("api", ["lost_package", "wrong_spec"]),
        ("worker", ["broken_import", "lost_package", "unset", "wrong_spec"]),
    ):
        lines = [json.loads(line) for line in caller.stack.logs(name).splitlines() if line.startswith("{")]
        lines = [line for line in lines if line["event"] == "an agent is unavailable"]
        warned = [line["agent"] for line in lines if line["level"] == "warning"]
        assert sorted(warned) == expected
    assert caller.stack.is_alive("worker")


def test_another_worker_that_has_the_setting_makes_the_agent_available(caller: ApiClient) -> None:
    with worker_with_the_setting(caller) as second:
        assert "hidden" in [spec["name"] for spec in caller.get("/agents").json()]
        caller.stack.stop("worker")  # or it would take the steps first, and hand them back
        assert caller.wait_done(caller.submit_agent("unset"))["result"] == {"length": len(SECRET)}
        body, key = {"agent_name": "unset", "input_data": {"fail": True}}, {"Idempotency_Key": "before it was gone"}
        view = caller.wait_done(caller.post("/run-agent", body, **key).json()["execution_id"])
        assert view["error"]["message"] == "ValueError: refused: <RATES_API_KEY>"
        assert "asked with <RATES_API_KEY>" in [line["message"] for line in view["logs"]]
        shown = f"{view} {caller.get('/agents').text} {second.output()}"
        assert "the agent raised" in shown
        assert SECRET not in shown
        caller.stack.start("worker")
    wait_until_unavailable(caller, "unset")
    run = view["execution_id"]
    assert_refused(caller.request("POST", f"/executions/{run}/retry"), "unset")
    replayed = caller.post("/run-agent", body, **key)
    assert (replayed.status_code, replayed.json()["execution_id"]) == (202, run)
