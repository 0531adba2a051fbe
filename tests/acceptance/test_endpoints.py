"""Every row of the contract's table that is there so far: statuses, fields and headers, at the root and versioned."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.acceptance.client import INCOME, Caller

PREFIXES = ["", "/api/v1"]
ID = re.compile(r"[0-9]{10}_[0-9a-f]{16}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ACCEPTED = {
    "execution_id", "status", "done", "rev", "execution_metadata", "status_url", "poll_after_ms", "message",
    "created_at", "request_id",
}  # fmt: skip
POLLED = {
    "execution_id", "basket_name", "status", "done", "rev", "progress", "current_step", "steps", "waiting_for",
    "result", "error", "outputs", "logs", "count", "total", "next_after", "first_seq", "logs_dropped", "tags",
    "metadata", "input_source", "retry_of", "cancel", "execution_metadata", "created_at", "queued_at", "started_at",
    "finished_at", "request_id",
}  # fmt: skip
LINE = {"seq", "execution_id", "agent_name", "step", "event", "level", "message", "timestamp", "status", "data"}
SPEC = {
    "name", "version", "description", "domains", "entry", "capabilities", "input_schema", "output_schema",
    "sample_input", "sample_output", "timeout_s", "retry", "queue",
}  # fmt: skip
BASKET = {"name", "basket_name", "description", "agents", "execution_strategy"}

READABLE = [
    "/execution-logs/{id}", "/executions/{id}", "/executions/{id}/outputs/cashflow_analyzer", "/agents",
    "/agents/cashflow_analyzer", "/baskets", "/baskets/working_test", "/logs", "/agent-logs/cashflow_analyzer",
    "/health", "/ready", "/executions/changes", "/consumers",
]  # fmt: skip


@pytest.fixture(scope="module")
def done(caller: Caller) -> str:
    """The id of a run that has completed."""
    return str(caller.finished(caller.run(input_data=INCOME))["execution_id"])


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_basket_is_accepted_at_once_with_all_that_a_poller_needs(caller: Caller, prefix: str) -> None:
    answer = caller.post(f"{prefix}/run-basket", {"basket_name": "working_test", "input_data": INCOME})
    body = answer.json()
    assert answer.status_code == 202
    assert set(body) == ACCEPTED
    assert ID.fullmatch(body["execution_id"])
    assert MOMENT.fullmatch(body["created_at"])
    assert (body["status"], body["done"], body["rev"]) == ("queued", False, 1)
    assert 250 <= body["poll_after_ms"] <= 1_000
    assert body["status_url"] == answer.headers["Location"] == f"{prefix}/execution-logs/{body['execution_id']}"
    assert body["execution_metadata"] == {
        "execution_id": body["execution_id"],
        "basket_name": "working_test",
        "agents_executed": ["cashflow_analyzer"],
        "strategy": "sequential",
    }
    assert answer.headers["ETag"] == f'W/"{body["execution_id"]}.1"'
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Request-ID"] == body["request_id"]
    assert caller.get(body["status_url"]).status_code == 200


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_agent_is_accepted_as_an_execution_of_one_step(caller: Caller, prefix: str) -> None:
    answer = caller.post(f"{prefix}/run-agent", {"agent_name": "cashflow_analyzer", "input_data": INCOME})
    assert (answer.status_code, set(answer.json())) == (202, ACCEPTED)
    polled = caller.finished(answer.json()["execution_id"])
    assert [step["step"] for step in polled["steps"]] == ["cashflow_analyzer"]
    assert polled["result"] == {"analysis": {"total": 1000, "positive": 1000, "negative": 0}}


@pytest.mark.parametrize(
    "path", ["/executions", "/executions/changes", "/consumers", "/logs", "/agent-logs/echo", "/dead-letters"]
)
def test_whatever_is_polled_is_kept_by_its_caller_alone(caller: Caller, path: str) -> None:
    answer = caller.get(path)
    assert answer.status_code == 200
    assert (answer.headers["Cache-Control"], answer.headers["Vary"]) == ("private, no-cache", "Accept-Encoding")


@pytest.mark.parametrize("path", ["/execution-logs", "/executions", "/api/v1/execution-logs", "/api/v1/executions"])
def test_a_poll_bears_every_field_of_the_contract(caller: Caller, done: str, path: str) -> None:
    answer = caller.get(f"{path}/{done}")
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == POLLED  # and no poll_after_ms, for it is final
    assert set(body["progress"]) == {"percent", "steps_total", "steps_completed", "message"}
    assert set(body["steps"][0]) == {"step", "agent", "status", "attempts", "duration_ms"}
    assert all(set(line) == LINE for line in body["logs"])
    assert answer.headers["ETag"] == f'W/"{done}.{body["rev"]}"'
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_output_stands_alone(caller: Caller, done: str, prefix: str) -> None:
    answer = caller.get(f"{prefix}/executions/{done}/outputs/cashflow_analyzer")
    assert (answer.status_code, answer.json()) == (200, caller.poll(done)["result"])
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("prefix", PREFIXES)
def test_agents_are_a_bare_array_of_specs(caller: Caller, prefix: str) -> None:
    agents = caller.get(f"{prefix}/agents").json()
    assert all(set(spec) == SPEC for spec in agents)
    names = [spec["name"] for spec in agents]
    assert names == sorted(names)
    finance = caller.get(f"{prefix}/agents", params={"domain": "finance"}).json()
    assert [spec["name"] for spec in finance] == ["cashflow_analyzer", "financial_coordinator", "goal_recommender"]
    assert caller.get(f"{prefix}/agents", params={"domain": "nowhere"}).json() == []
    one = caller.get(f"{prefix}/agents/cashflow_analyzer").json()
    assert one == next(spec for spec in agents if spec["name"] == "cashflow_analyzer")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_baskets_are_listed_and_read(caller: Caller, prefix: str) -> None:
    listed = caller.get(f"{prefix}/baskets").json()
    assert set(listed) == {"baskets", "count"}
    assert listed["count"] == len(listed["baskets"]) >= 7
    one = caller.get(f"{prefix}/baskets/working_test").json()
    assert set(one) == BASKET
    assert one["name"] == one["basket_name"] == "working_test"
    assert one in listed["baskets"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_basket_is_created_and_deleted(caller: Caller, prefix: str) -> None:
    name = f"endpoint {len(prefix)}"
    created = caller.post(f"{prefix}/create-basket", {"name": name, "agents": ["echo"]})
    assert (created.status_code, set(created.json())) == (201, {"success", "message", "basket"})
    assert created.json()["success"] is True
    deleted = caller.ask("DELETE", f"{prefix}/baskets/{name}")
    assert (deleted.status_code, set(deleted.json())) == (200, {"success", "message", "cleanup_summary"})
    assert caller.get(f"{prefix}/baskets/{name}").status_code == 404


@pytest.mark.parametrize("path", ["/logs", "/agent-logs/cashflow_analyzer"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_logs_have_lines_and_a_place_to_read_on(caller: Caller, done: str, prefix: str, path: str) -> None:
    body = caller.get(prefix + path).json()
    assert set(body) == {"logs", "count", "next_since"}
    assert body["count"] == len(body["logs"]) > 0
    assert all(set(line) == LINE for line in body["logs"])
    assert isinstance(body["next_since"], str)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_health_and_readiness_are_told(caller: Caller, prefix: str) -> None:
    health = caller.get(f"{prefix}/health")
    services = {"mongodb": "connected", "redis": "connected", "workers": "connected"}
    assert health.status_code == 200
    assert health.json() == {"status": "healthy", "services": services, "version": health.json()["version"]}
    assert caller.get(f"{prefix}/ready").status_code == 200


def test_metrics_are_prometheus_text_at_the_root_alone(caller: Caller, done: str) -> None:
    answer = caller.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    names = {line.split("{")[0] for line in answer.text.splitlines() if not line.startswith("#")}
    assert {"request_rate_total", "latency_bucket", "bucket_executions_total", "bucket_queue_depth"} <= names
    assert any(name.startswith("bucket_step_seconds") for name in names)
    assert 'bucket_executions_total{basket="working_test",status="completed"}' in answer.text
    assert caller.get("/api/v1/metrics").status_code == 404


@pytest.mark.parametrize("path", READABLE)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_head_answers_as_get_without_the_body(caller: Caller, done: str, prefix: str, path: str) -> None:
    path = prefix + path.format(id=done)
    got, head = caller.get(path), caller.ask("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    told = {"Content-Type", "ETag", "Cache-Control", "Vary"}
    assert {name: head.headers.get(name) for name in told} == {name: got.headers.get(name) for name in told}


@pytest.mark.parametrize("path", [*READABLE, "/run-basket", "/run-agent", "/create-basket", "/metrics"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_trailing_slash_is_404_and_never_a_redirect(caller: Caller, done: str, method: str, path: str) -> None:
    answer = caller.ask(method, path.format(id=done) + "/", json={} if method == "POST" else None)
    assert (answer.status_code, "Location" in answer.headers) == (404, False)
    assert answer.json()["error_code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/run-basket", {"POST"}),
        ("GET", "/run-agent", {"POST"}),
        ("GET", "/create-basket", {"POST"}),
        ("PATCH", "/baskets/working_test", {"GET", "DELETE", "HEAD"}),
        *[("POST", path, {"GET", "HEAD"}) for path in READABLE if not path.startswith("/baskets/")],
    ],
)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_another_method_is_405_and_says_which_it_takes(  # noqa: PLR0917
    caller: Caller, done: str, prefix: str, method: str, path: str, allowed: set[str]
) -> None:
    answer = caller.ask(method, prefix + path.format(id=done))
    assert (answer.status_code, answer.json()["error_code"]) == (405, "method_not_allowed")
    assert set(answer.headers["Allow"].split(", ")) == allowed | {"OPTIONS"}


@pytest.mark.parametrize(
    "target",
    ["/health//", "/api//v1/health", "/api/v1", "/api/v2/health", "/api/v1/api/v1/health", "/%2e%2e/health", "/HEALTH"],
)
def test_other_spellings_of_an_address_are_404(caller: Caller, target: str) -> None:
    assert caller.as_is(target).status_code == 404


@pytest.mark.parametrize("path", [*READABLE, "/metrics", "/nowhere"])
def test_every_answer_is_marked(caller: Caller, done: str, path: str) -> None:
    answer = caller.get(path.format(id=done), headers={"X-Request-ID": "my.own:id_1-2"})
    assert answer.headers["X-Request-ID"] == "my.own:id_1-2"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("asked", ["", " ", "a b", "a/b", "x" * 129, "grün", "a,b", "{}"])
def test_a_request_id_of_another_form_is_replaced(caller: Caller, asked: str) -> None:
    made = caller.as_is("/health", X_Request_ID=asked).headers["X-Request-ID"]
    assert re.fullmatch(r"req-[0-9a-f]{20}", made)


def test_the_submits_request_id_stays_in_the_body_and_the_polls_own_in_the_header(caller: Caller) -> None:
    accepted = caller.post("/run-basket", {"basket_name": "working_test"}, X_Request_ID="submit-1")
    polled = caller.get(accepted.json()["status_url"], headers={"X-Request-ID": "poll-1"})
    assert (polled.json()["request_id"], polled.headers["X-Request-ID"]) == ("submit-1", "poll-1")


def test_unknown_query_parameters_are_ignored(caller: Caller, done: str) -> None:
    query: dict[str, Any] = {"nonsense": "1", "$where": "1", "a[b]": "2"}
    paths = ["/execution-logs/{id}", "/agents", "/baskets", "/logs", "/health"]
    assert [caller.get(path.format(id=done), params=query).status_code for path in paths] == [200] * 5
    assert caller.ask("POST", "/run-basket", params=query, json={"basket_name": "working_test"}).status_code == 202


def test_an_id_may_be_percent_encoded(caller: Caller, done: str) -> None:
    encoded = "".join(f"%{ord(letter):02x}" for letter in done)
    assert caller.as_is(f"/execution-logs/{encoded}").status_code == 200
