"""Readers without payloads: they follow runs, and see nothing that callers or agents have put into them."""

from __future__ import annotations

import pytest

from shared.domain.access.caller import Role
from tests.callers import ACME, SECRET, ApiCaller, Callers

PAYLOADS = ("result", "outputs", "logs", "metadata")


@pytest.fixture
def reader(callers: Callers) -> ApiCaller:
    return callers.new(Role.READER, ACME)


@pytest.fixture(params=[True, False], ids=["redis", "mongodb"])
def runs(request: pytest.FixtureRequest, callers: Callers) -> list[str]:
    """A completed and a failed run, in Redis or not."""
    made = [callers.completed(callers.acme, metadata={"x": SECRET}), callers.failed(callers.acme)]
    callers.feed(*made)
    if not request.param:
        callers.empty_redis()
    return made


def test_no_reply_shows_a_payload(callers: Callers, reader: ApiCaller, runs: list[str]) -> None:
    items = [{"execution_id": run} for run in runs]
    for run in runs:
        whole, part = callers.acme.get(f"/executions/{run}"), reader.get(f"/executions/{run}")
        assert part.status_code == 200
        assert whole.json.keys() - part.json.keys() == set(PAYLOADS)
        assert part.headers["ETag"] == whole.headers["ETag"]
        assert reader.get(f"/executions/{run}", If_None_Match=part.headers["ETag"]).status_code == 304
        assert SECRET in whole.text
        assert SECRET not in part.text
    assert reader.get(f"/executions/{runs[1]}").json["error"]["error_code"] == "boom"
    replies = [
        reader.get(f"/executions/{runs[1]}?fields=error,status"),
        reader.get(f"/executions/{runs[1]}?wait=1"),
        reader.get("/executions"),
        reader.get("/executions?fields=error,progress"),
        reader.get("/executions/changes"),
        reader.get("/executions/changes?fields=error"),
        reader.post("/executions/poll", {"items": items}),
        reader.post("/executions/poll", {"items": items, "view": "full"}),
    ]
    for reply in replies:
        assert reply.status_code == 200, reply.text
        assert runs[1] in reply.text
        assert SECRET not in reply.text
    assert SECRET in callers.acme.get("/executions?fields=error").text
    full = replies[-1].json["changed"]
    assert {name for view in full for name in PAYLOADS if name in view} == set()
    assert all("steps" in view for view in full)


def test_who_asks_for_a_payload_is_told_what_is_missing(callers: Callers, reader: ApiCaller) -> None:
    run = callers.completed(callers.acme)
    paths = [
        *(f"/executions/{run}?fields=status,{name}" for name in PAYLOADS),
        f"/executions/{run}?after=0",
        "/executions?fields=result",
        "/executions/changes?fields=metadata",
        f"/executions/{run}/result",
        f"/executions/{run}/outputs/cashflow_analyzer",
        "/logs",
        "/agent-logs/cashflow_analyzer",
    ]
    for path in paths:
        refused = reader.get(path)
        assert (refused.status_code, refused.json["error_code"]) == (403, "forbidden"), path
        assert "payloads" in refused.json["detail"], path
    sees = callers.new(Role.READER, ACME, payloads=True)
    assert [sees.get(path).status_code for path in paths] == [200] * len(paths)


def test_a_result_may_have_any_key_that_a_poll_has(callers: Callers) -> None:
    """What limits read of a view must not be taken from what an agent returned."""
    result = {"a": 1, "finished_at": "never", "request_id": "x", "status": "queued", "done": False, "rev": "none"}
    execution_id = callers.acme.submit()
    callers.finish(execution_id, result=result)
    for _ in range(2):
        poll = callers.acme.get(f"/execution-logs/{execution_id}")
        assert (poll.status_code, poll.json["result"]) == (200, result), poll.text
