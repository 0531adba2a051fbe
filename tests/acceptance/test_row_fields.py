"""``?fields=`` of lists and of the change feed: rows with result, error and metadata, in place of a poll for each."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.acceptance.client import INCOME, ApiClient
from tests.waiting import wait_until

ALWAYS = {"execution_id", "status", "done", "rev"}


def rows_of(caller: ApiClient, tag: str, fields: str) -> list[dict[str, Any]]:
    """Return the rows of the runs with a tag, oldest first, and check that the feed has the same ones."""
    query = {"tag": tag, "fields": fields}
    listed: list[dict[str, Any]] = caller.get("/executions", params=query | {"order": "oldest"}).json()["executions"]

    def of_feed() -> dict[str, dict[str, Any]]:
        since: dict[str, str] = {}
        changes: dict[str, dict[str, Any]] = {}
        while True:
            page = caller.get("/executions/changes", params=query | since).json()
            changes |= {change["execution_id"]: change for change in page["changes"]}
            since = {"since": page["next_since"]}
            if page["caught_up"]:
                return changes

    wait_until(lambda: of_feed() == {row["execution_id"]: row for row in listed}, 10, "the feed shows the same rows")
    return listed


def test_rows_carry_result_error_and_metadata(caller: ApiClient) -> None:
    tag = f"rows-{uuid.uuid4()}"
    done = caller.wait_done(caller.submit_basket(tags=[tag], metadata={"order": 7}, input_data=INCOME, reference="A-7"))
    graph = {"steps": [{"id": "a", "agent": "echo"}, {"id": "b", "agent": "echo"}]}
    body = {"config": graph, "input_data": {"n": 1}, "tags": [tag]}
    forked = caller.wait_done(caller.post("/run-basket", body).json()["execution_id"])
    config = {"name": "raising", "agents": ["raiser"]}
    body = {"config": config, "input_data": {"kind": "ValueError"}, "tags": [tag]}
    failed = caller.wait_done(caller.post("/run-basket", body).json()["execution_id"])
    later = caller.submit_basket(tags=[tag], run_after_s=600)
    rows = rows_of(caller, tag, "result,error, metadata,reference")
    expected = [done, forked, failed, caller.poll(later)]
    shown = ALWAYS | {"result", "error", "metadata"}
    assert [set(row) for row in rows] == [shown | {"reference"}, shown, shown, shown]
    assert rows == [{name: view[name] for name in row} for row, view in zip(rows, expected, strict=True)]
    assert (rows[0]["metadata"], rows[0]["result"]["analysis"]["total"]) == ({"order": 7}, 1000)
    assert (rows[2]["error"]["error_code"], rows[3]["result"]) == ("agent_error", None)
    for fields in ("metadata", "result", "basket_name,progress", "rev"):
        assert [set(row) for row in rows_of(caller, tag, fields)] == [ALWAYS | set(fields.split(","))] * 4
    caller.request("POST", f"/executions/{later}/cancel")


def test_large_results_are_read_up_to_a_limit_and_the_rest_is_where_the_url_says(caller: ApiClient) -> None:
    """A result of 3 MiB is stored beside its run; three of them are more than 8 MiB."""
    tag = f"large-{uuid.uuid4()}"
    runs = []
    for _ in range(3):
        body = {"config": {"agents": ["big"]}, "input_data": {"bytes": 3 * 1024 * 1024}, "tags": [tag]}
        runs.append(caller.wait_done(caller.post("/run-basket", body).json()["execution_id"]))
    rows = caller.get("/executions", params={"tag": tag, "order": "oldest", "fields": "result"}).json()["executions"]
    assert [row["result"] for row in rows[:2]] == [run["result"] for run in runs[:2]]
    omitted = rows[2]["result"]
    assert (omitted["omitted"], omitted["bytes"] > 3 * 1024 * 1024) == (True, True)
    assert caller.get(omitted["url"]).json()["result"] == runs[2]["result"]


@pytest.mark.parametrize("path", ["/executions", "/executions/changes", "/consumers/of-fields/changes"])
def test_an_unknown_field_of_a_row_is_refused(caller: ApiClient, path: str) -> None:
    caller.request("PUT", "/consumers/of-fields")
    for fields in ("logs", "results", "", "result,"):
        refused = caller.get(path, params={"fields": fields})
        assert (refused.status_code, refused.json()["details"][0]["parameter"]) == (400, "fields")
        assert "metadata" in refused.json()["detail"]
    assert caller.get(path, params={"fields": "result"}).status_code == 200
    caller.request("DELETE", "/consumers/of-fields")
