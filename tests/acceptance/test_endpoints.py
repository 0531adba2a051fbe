"""Every endpoint of docs/api.md: statuses, fields and headers, at the root and under ``/api/v1``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.client import INCOME, ApiClient
from tests.waiting import wait_until

PREFIXES = ["", "/api/v1"]
METRICS_DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
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
    "sample_input", "sample_output", "timeout_s", "retry", "queue", "settings",
    "unlisted_without_settings", "availability", "durations",
}  # fmt: skip
BASKET = {"name", "basket_name", "description", "agents", "execution_strategy"}

ERASABLE = {"/executions/{id}", "/executions/changes"}  # the second is as well an id that no run has
READABLE = [
    "/execution-logs/{id}", "/executions/{id}", "/executions/{id}/outputs/cashflow_analyzer", "/agents",
    "/agents/cashflow_analyzer", "/baskets", "/baskets/working_test", "/logs", "/agent-logs/cashflow_analyzer",
    "/health", "/ready", "/executions/changes", "/consumers",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished_id(caller: ApiClient) -> str:
    """Return the id of a completed run."""
    return str(caller.wait_done(caller.submit_basket(input_data=INCOME))["execution_id"])


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_basket_is_accepted_at_once_with_all_fields_that_a_poller_needs(caller: ApiClient, prefix: str) -> None:
    response = caller.post(f"{prefix}/run-basket", {"basket_name": "working_test", "input_data": INCOME})
    body = response.json()
    assert response.status_code == 202
    assert set(body) == ACCEPTED
    assert ID.fullmatch(body["execution_id"])
    assert MOMENT.fullmatch(body["created_at"])
    assert (body["status"], body["done"], body["rev"]) == ("queued", False, 1)
    assert 250 <= body["poll_after_ms"] <= 1_000
    assert body["status_url"] == response.headers["Location"] == f"{prefix}/execution-logs/{body['execution_id']}"
    assert body["execution_metadata"] == {
        "execution_id": body["execution_id"],
        "basket_name": "working_test",
        "agents_executed": ["cashflow_analyzer"],
        "strategy": "sequential",
    }
    assert response.headers["ETag"] == f'W/"{body["execution_id"]}.1"'
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Request-ID"] == body["request_id"]
    assert caller.get(body["status_url"]).status_code == 200


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_agent_is_accepted_as_an_execution_of_one_step(caller: ApiClient, prefix: str) -> None:
    response = caller.post(f"{prefix}/run-agent", {"agent_name": "cashflow_analyzer", "input_data": INCOME})
    assert (response.status_code, set(response.json())) == (202, ACCEPTED)
    view = caller.wait_done(response.json()["execution_id"])
    assert [step["step"] for step in view["steps"]] == ["cashflow_analyzer"]
    assert view["result"] == {"analysis": {"total": 1000, "positive": 1000, "negative": 0}}


@pytest.mark.parametrize(
    "path", ["/executions", "/executions/changes", "/consumers", "/logs", "/agent-logs/echo", "/dead-letters"]
)
def test_polled_resources_are_private_and_not_cached(caller: ApiClient, path: str) -> None:
    response = caller.get(path)
    assert response.status_code == 200
    assert (response.headers["Cache-Control"], response.headers["Vary"]) == (
        "private, no-cache",
        "Accept-Encoding, Authorization",
    )


@pytest.mark.parametrize("path", ["/execution-logs", "/executions", "/api/v1/execution-logs", "/api/v1/executions"])
def test_a_poll_has_every_field_of_the_contract(caller: ApiClient, finished_id: str, path: str) -> None:
    response = caller.get(f"{path}/{finished_id}")
    body = response.json()
    assert response.status_code == 200
    assert set(body) == POLLED  # without poll_after_ms, because it is final
    assert set(body["progress"]) == {"percent", "steps_total", "steps_completed", "message"}
    assert set(body["steps"][0]) == {"step", "agent", "status", "attempts", "duration_ms"}
    assert all(set(line) == LINE for line in body["logs"])
    assert response.headers["ETag"] == f'W/"{finished_id}.{body["rev"]}"'
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert response.headers["Vary"] == "Accept-Encoding, Authorization"
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_output_has_an_address_of_its_own(caller: ApiClient, finished_id: str, prefix: str) -> None:
    response = caller.get(f"{prefix}/executions/{finished_id}/outputs/cashflow_analyzer")
    assert (response.status_code, response.json()) == (200, caller.poll(finished_id)["result"])
    assert response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("prefix", PREFIXES)
def test_agents_are_a_bare_array_of_specs(caller: ApiClient, prefix: str) -> None:
    agents = caller.get(f"{prefix}/agents").json()
    assert all(set(spec) == SPEC for spec in agents)
    names = [spec["name"] for spec in agents]
    assert names == sorted(names)
    finance = caller.get(f"{prefix}/agents", params={"domain": "finance"}).json()
    assert [spec["name"] for spec in finance] == [
        "cashflow_analyzer", "financial_coordinator", "goal_recommender", "statement_import",
    ]  # fmt: skip
    assert caller.get(f"{prefix}/agents", params={"domain": "nowhere"}).json() == []
    spec_by_name = caller.get(f"{prefix}/agents/cashflow_analyzer").json()
    listed = next(spec for spec in agents if spec["name"] == "cashflow_analyzer")
    assert spec_by_name | {"durations": {}} == listed | {"durations": {}}
    assert listed["availability"] == {"status": "available"}
    assert set(listed["durations"]) == {"p50_s", "p95_s", "count"}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_baskets_are_listed_and_read(caller: ApiClient, prefix: str) -> None:
    listed = caller.get(f"{prefix}/baskets").json()
    assert set(listed) == {"baskets", "count"}
    assert listed["count"] == len(listed["baskets"]) >= 7
    basket = caller.get(f"{prefix}/baskets/working_test").json()
    assert set(basket) == BASKET
    assert basket["name"] == basket["basket_name"] == "working_test"
    assert basket in listed["baskets"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_basket_is_created_and_deleted(caller: ApiClient, prefix: str) -> None:
    name = f"endpoint {len(prefix)}"
    created = caller.post(f"{prefix}/create-basket", {"name": name, "agents": ["echo"]})
    assert (created.status_code, set(created.json())) == (201, {"success", "message", "basket"})
    assert created.json()["success"] is True
    deleted = caller.request("DELETE", f"{prefix}/baskets/{name}")
    assert (deleted.status_code, set(deleted.json())) == (200, {"success", "message", "cleanup_summary"})
    assert caller.get(f"{prefix}/baskets/{name}").status_code == 404


@pytest.mark.parametrize("path", ["/logs", "/agent-logs/cashflow_analyzer"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_logs_have_lines_and_a_cursor_to_read_on(caller: ApiClient, finished_id: str, prefix: str, path: str) -> None:
    body = caller.get(prefix + path).json()
    assert set(body) == {"logs", "count", "next_since"}
    assert body["count"] == len(body["logs"]) > 0
    assert all(set(line) == LINE for line in body["logs"])
    assert isinstance(body["next_since"], str)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_health_and_readiness_are_reported(caller: ApiClient, prefix: str) -> None:
    wait_until(lambda: caller.get(f"{prefix}/health").json()["status"] == "healthy", 10, "a reconciler leads too")
    health = caller.get(f"{prefix}/health")
    assert health.status_code == 200
    body = health.json()
    assert set(body) == {"status", "reasons", "services", "parts", "dependencies", "version"}
    assert (body["reasons"], body["dependencies"]) == ([], [])
    words = {"mongodb": "connected", "redis": "connected", "workers": "connected"}
    assert body["services"] == body["parts"] | words, "callers of earlier releases know the words"
    assert {part["status"] for part in body["parts"].values()} == {"healthy"}
    assert {name for name, part in body["parts"].items() if part["criticality"] == "critical"} == {"mongodb"}
    assert caller.get(f"{prefix}/ready").status_code == 200


def test_metrics_are_prometheus_text_and_only_at_the_root(caller: ApiClient, finished_id: str) -> None:
    response = caller.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    names = {re.split("[ {]", line)[0] for line in response.text.splitlines() if not line.startswith("#")}
    documented = set(re.findall(r"`(bucket_\w+)", METRICS_DOCUMENT.read_text(encoding="utf-8")))
    bases = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}
    assert {name for name in bases if name.startswith("bucket_")} <= documented
    assert {"request_rate_total", "latency_bucket", "bucket_executions_total", "bucket_queue_depth"} <= names
    assert any(name.startswith("bucket_step_seconds") for name in names)
    assert 'bucket_executions_total{basket="working_test",status="completed"}' in response.text
    assert caller.get("/api/v1/metrics").status_code == 404


@pytest.mark.parametrize("path", READABLE)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_head_answers_as_get_without_the_body(caller: ApiClient, finished_id: str, prefix: str, path: str) -> None:
    path = prefix + path.format(id=finished_id)
    get, head = caller.get(path), caller.request("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    names = {"Content-Type", "ETag", "Cache-Control", "Vary"}
    assert {name: head.headers.get(name) for name in names} == {name: get.headers.get(name) for name in names}


@pytest.mark.parametrize("path", [*READABLE, "/run-basket", "/run-agent", "/create-basket", "/metrics"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_trailing_slash_is_404_and_never_a_redirect(
    caller: ApiClient, finished_id: str, method: str, path: str
) -> None:
    response = caller.request(method, path.format(id=finished_id) + "/", json={} if method == "POST" else None)
    assert (response.status_code, "Location" in response.headers) == (404, False)
    assert response.json()["error_code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/run-basket", {"POST"}),
        ("GET", "/run-agent", {"POST"}),
        ("GET", "/create-basket", {"POST"}),
        ("PATCH", "/baskets/working_test", {"GET", "DELETE", "HEAD"}),
        *[
            ("POST", path, {"GET", "HEAD"} | ({"DELETE"} if path in ERASABLE else set()))
            for path in READABLE
            if not path.startswith("/baskets/")
        ],
    ],
)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_another_method_is_405_and_lists_the_allowed_ones(  # noqa: PLR0917
    caller: ApiClient, finished_id: str, prefix: str, method: str, path: str, allowed: set[str]
) -> None:
    response = caller.request(method, prefix + path.format(id=finished_id))
    assert (response.status_code, response.json()["error_code"]) == (405, "method_not_allowed")
    assert set(response.headers["Allow"].split(", ")) == allowed | {"OPTIONS"}


@pytest.mark.parametrize(
    "target",
    ["/health//", "/api//v1/health", "/api/v1", "/api/v2/health", "/api/v1/api/v1/health", "/%2e%2e/health", "/HEALTH"],
)
def test_other_spellings_of_an_address_are_404(caller: ApiClient, target: str) -> None:
    assert caller.get_raw(target).status_code == 404


@pytest.mark.parametrize("path", [*READABLE, "/metrics", "/nowhere"])
def test_every_response_has_a_request_id_and_nosniff(caller: ApiClient, finished_id: str, path: str) -> None:
    response = caller.get(path.format(id=finished_id), headers={"X-Request-ID": "my.own:id_1-2"})
    assert response.headers["X-Request-ID"] == "my.own:id_1-2"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("sent_id", ["", " ", "a b", "a/b", "x" * 129, "grün", "a,b", "{}"])
def test_an_invalid_request_id_is_replaced(caller: ApiClient, sent_id: str) -> None:
    request_id = caller.get_raw("/health", X_Request_ID=sent_id).headers["X-Request-ID"]
    assert re.fullmatch(r"req-[0-9a-f]{16}", request_id)


def test_the_submits_request_id_stays_in_the_body_and_the_polls_own_in_the_header(caller: ApiClient) -> None:
    accepted = caller.post("/run-basket", {"basket_name": "working_test"}, X_Request_ID="submit-1")
    view = caller.get(accepted.json()["status_url"], headers={"X-Request-ID": "poll-1"})
    assert (view.json()["request_id"], view.headers["X-Request-ID"]) == ("submit-1", "poll-1")


COLLECTIONS = [
    "/executions", "/executions/changes", "/consumers", "/dead-letters", "/agents", "/baskets", "/logs",
    "/agent-logs/echo", "/consumers/nobody/changes",
]  # fmt: skip


@pytest.mark.parametrize("path", COLLECTIONS)
def test_a_collection_refuses_query_parameters_that_it_does_not_know(caller: ApiClient, path: str) -> None:
    """They were ignored before: a list with a misspelt filter returned everything."""
    for prefix in ("", "/api/v1"):
        response = caller.get(prefix + path, params={"nonsense": "1", "$where": "1", "limits": "2"})
        problem = response.json()
        assert (response.status_code, problem["error_code"]) == (400, "validation_failed")
        assert [fault["parameter"] for fault in problem["details"]] == ["nonsense", "$where", "limits"]


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("/executions?state=failed", "status"), ("/executions?tags=a", "tag"), ("/executions?basket_name=a", "basket"),
        ("/executions?since=a", "updated_since"), ("/executions/changes?tags=a", "tag"), ("/logs?agent_name=", "agent"),
        ("/agents?domains=a", "domain"), ("/dead-letters?limits=1", "limit"),
    ],
)  # fmt: skip
def test_a_misspelt_query_parameter_is_refused_with_the_nearest(caller: ApiClient, target: str, meant: str) -> None:
    response = caller.get(target)
    assert (response.status_code, f"did you mean {meant}?" in response.json()["detail"]) == (400, True)


@pytest.mark.parametrize("path", COLLECTIONS)
def test_a_collection_takes_every_query_parameter_that_its_contract_has(caller: ApiClient, path: str) -> None:
    document = caller.get("/openapi.json").json()
    template = path.replace("echo", "{name}").replace("nobody", "{name}")
    references = [each["$ref"].rpartition("/")[2] for each in document["paths"][template]["get"]["parameters"]]
    parameters = [document["components"]["parameters"][reference] for reference in references]
    names = [parameter["name"] for parameter in parameters if parameter["in"] == "query"]
    response = caller.get(path, params=dict.fromkeys(names, "x") | {"zzz": "1"})
    assert [fault["parameter"] for fault in response.json()["details"]] == ["zzz"]
    assert all(name in response.json()["detail"] for name in names) or not names


def test_the_routes_of_one_thing_ignore_unknown_query_parameters(caller: ApiClient, finished_id: str) -> None:
    query: dict[str, Any] = {"nonsense": "1", "$where": "1", "a[b]": "2"}
    paths = ["/execution-logs/{id}", "/executions/{id}", "/agents/echo", "/baskets/working_test", "/health"]
    assert [caller.get(path.format(id=finished_id), params=query).status_code for path in paths] == [200] * 5
    assert caller.request("POST", "/run-basket", params=query, json={"basket_name": "working_test"}).status_code == 202


def test_an_id_may_be_percent_encoded(caller: ApiClient, finished_id: str) -> None:
    encoded = "".join(f"%{ord(character):02x}" for character in finished_id)
    assert caller.get_raw(f"/execution-logs/{encoded}").status_code == 200
