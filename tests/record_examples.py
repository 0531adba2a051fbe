"""``python -m tests.record_examples`` records replies of a real stack as the examples of the OpenAPI document."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import requests

from api.feed import cursors
from compose.embedded.group_reaper import GroupReaper
from tests.acceptance.client import AGENTS, INCOME, ApiClient
from tests.openapi_conformance import PROBLEM
from tests.stack import Stack

EXAMPLES_FILE: Final = Path(__file__).parents[1] / "api" / "openapi" / "examples.json"
LINES_SHOWN: Final = 3

Examples = dict[str, dict[str, dict[str, Any]]]


class Recorder:
    """Sends requests, and keeps each request and reply under the name of its operation."""

    def __init__(self, caller: ApiClient) -> None:
        self.caller = caller
        self.examples: Examples = {}

    def ask(
        self, operation: str, shows: str, /, body: Any = None, query: str = "", prefer: str = "", **places: str
    ) -> requests.Response:
        """Send one request; ``places`` fill the path, ``shows`` is the name of the example."""
        method, path = operation.split(" ", 1)
        headers = {"X-Request-ID": "example-1"} | ({"Prefer": prefer} if prefer else {})
        options = {} if body is None else {"json": body}
        response = self.caller.request(method, path.format(**places) + query, headers=headers, **options)
        examples = self.examples.setdefault(operation, {})
        if body is not None and response.ok:
            examples.setdefault("requests", {})[shows] = body
        if response.headers.get("Content-Type") in {"application/json", PROBLEM}:
            examples.setdefault(str(response.status_code), {})[shows] = _short(response.json())
        return response


def _short(value: Any) -> Any:
    """Shorten long lists, and leave out items with ``$ref``, which readers would take for a reference."""
    if isinstance(value, list):
        return [_short(item) for item in [item for item in value if '"$ref"' not in json.dumps(item)][:LINES_SHOWN]]
    return {key: _short(item) for key, item in value.items()} if isinstance(value, dict) else value


def record(caller: ApiClient) -> Examples:
    """Return examples of every operation."""
    recorder = Recorder(caller)
    ask = recorder.ask
    ask("GET /health", "healthy")
    ask("GET /ready", "ready")
    ask("GET /workers", "a_worker_and_a_reconciler")
    ask("GET /executions/stats", "a_queue_with_work", query="?queue=default")
    _submits(recorder)
    done = caller.wait_done(caller.submit_basket("chained_test", input_data=INCOME))["execution_id"]
    failed = caller.wait_done(_refused_by_its_provider(caller))["execution_id"]
    for path in ("GET /execution-logs/{execution_id}", "GET /executions/{execution_id}"):
        ask(path, "completed", execution_id=done)
        ask(path, "failed", execution_id=failed)
        ask(path, "a_part", query="?fields=progress,result", execution_id=done)
        ask(path, "newer_lines", query="?after=4&fields=logs,next_after", execution_id=done)
        ask(path, "unknown", execution_id="1763700000_89ce24ad1b2c3d4e")
        ask(path, "no_such_field", query="?fields=state", execution_id=done)
        ask(path, "a_limit_too_large", query="?limit=5000", execution_id=done)
    result = "GET /executions/{execution_id}/result"
    ask(result, "completed", execution_id=done)
    ask(result, "failed", execution_id=failed)
    outputs = "GET /executions/{execution_id}/outputs/{step}"
    ask(outputs, "whole", execution_id=done, step="cashflow_analyzer")
    ask(outputs, "no_such_step", execution_id=done, step="nobody")
    _many(recorder, done, failed)
    _feed(recorder, done)
    _commands(recorder, done, failed)
    _catalogue(recorder)
    for path, places in (("GET /logs", {}), ("GET /agent-logs/{name}", {"name": "cashflow_analyzer"})):
        ask(path, "latest", query="?limit=2", **places)
        ask(path, "a_made_up_cursor", query="?since=yesterday", **places)
    return recorder.examples


def _refused_by_its_provider(caller: ApiClient) -> str:
    input_data = {"kind": "TransientError", "message": "the provider did not answer"}
    config = {"name": "nightly", "steps": [{"agent": "raiser", "retry": "none"}]}
    return caller.post("/run-basket", {"config": config, "input_data": input_data}).json()["execution_id"]


def _submits(recorder: Recorder) -> None:
    ask = recorder.ask
    ask("POST /run-basket", "by_name", {"basket_name": "working_test", "input_data": INCOME})
    config = {"agents": ["cashflow_analyzer", "goal_recommender"], "execution_strategy": "sequential"}
    ask(
        "POST /run-basket",
        "written_inline",
        {"config": config, "input_data": INCOME, "tags": ["daily"], "reference": "A-4711"},
    )
    ask("POST /run-basket", "in_an_hour", {"basket_name": "working_test", "run_after_s": 3600, "deadline_s": 60})
    ask("POST /run-basket", "held_until_done", {"basket_name": "working_test", "input_data": INCOME}, prefer="wait=10")
    ask("POST /run-basket", "nothing_to_run", {})
    ask("POST /run-basket", "a_misspelt_key", {"basket_name": "working_test", "inputs": INCOME})
    ask("POST /run-basket", "a_callback", {"basket_name": "working_test", "webhook_url": "/done"})
    ask("POST /run-basket", "unknown_basket", {"basket_name": "working_tset"})
    ask("POST /run-agent", "an_agent", {"agent_name": "cashflow_analyzer", "input_data": INCOME})
    ask("POST /run-agent", "no_input", {"agent_name": "cashflow_analyzer"})
    ask("POST /run-agent", "unknown_agent", {"agent_name": "cashflow", "input_data": {}})


def _many(recorder: Recorder, done: str, failed: str) -> None:
    ask = recorder.ask
    ask("GET /executions", "the_newest_two", query="?limit=2&order=newest")
    ask("GET /executions", "failed_or_cancelled", query="?status=failed,cancelled")
    ask("GET /executions", "no_such_status", query="?status=done")
    ask("GET /executions", "no_such_parameter", query="?state=failed")
    ask("GET /executions", "with_results", query="?limit=2&order=newest&status=completed&fields=result,metadata")
    items = [{"execution_id": done, "rev": 1}, {"execution_id": failed, "rev": None}, {"execution_id": "None"}]
    ask("POST /executions/poll", "two_have_changed", {"items": items, "view": "status"})
    ask("POST /executions/poll", "no_items", {"items": []})
    good = {"basket_name": "working_test", "input_data": INCOME, "idempotency_key": "daily-2026-11-21"}
    ask("POST /run-basket/batch", "a_bad_item_fails_alone", {"items": [good, {"basket_name": "working_tset"}]})
    ask("POST /run-basket/batch", "no_items", {"items": []})


def _feed(recorder: Recorder, done: str) -> None:
    ask, changes = recorder.ask, "GET /executions/changes"
    since = ask(changes, "from_now", query="?since=now").json()["next_since"]
    ask(changes, "the_oldest_two", query="?limit=2")
    ask(changes, "with_results", query="?limit=2&fields=result,error,reference")
    ask(changes, "of_a_basket", query="?basket=chained_test&limit=1")
    ask(changes, "a_made_up_cursor", query="?since=yesterday")
    place = cursors.decode(since, parameter="since")
    expired = cursors.encode(replace(place, epoch="00000000"))
    ask(changes, "too_long_ago", query=f"?since={expired}")
    ask("PUT /consumers/{name}", "from_now_on", name="night-report")
    ask("PUT /consumers/{name}", "from_a_cursor", {"since": since}, name="day-report")
    ask("PUT /consumers/{name}", "known", {"since": "now"}, name="night-report")
    ask("GET /consumers", "two")
    recorder.caller.wait_done(recorder.caller.submit_basket())
    ask("GET /consumers/{name}/changes", "not_acknowledged_yet", query="?wait=5", name="night-report")
    ask("GET /consumers/{name}/changes", "unknown", name="nobody")
    ask("POST /consumers/{name}/ack", "onward", {"cursor": since}, name="night-report")
    ask("POST /consumers/{name}/ack", "a_made_up_cursor", {"cursor": done}, name="night-report")
    ask("DELETE /consumers/{name}", "deleted", name="day-report")
    ask("DELETE /consumers/{name}", "unknown", name="day-report")


def _commands(recorder: Recorder, done: str, failed: str) -> None:
    ask, caller = recorder.ask, recorder.caller
    cancel, retry = "POST /executions/{execution_id}/cancel", "POST /executions/{execution_id}/retry"
    running = caller.submit_agent("sleeper", seconds=30)
    while caller.poll(running)["status"] == "queued":
        pass
    ask(cancel, "under_way", {"reason": "no longer of use"}, execution_id=running)
    ask(cancel, "already_over", execution_id=done)
    ask(retry, "from_the_failed_step", {"from": "failed"}, execution_id=failed)
    ask(retry, "not_failed", execution_id=done)
    nightly = {"basket": "nightly", "status": "failed", "created_before": "2026-01-01T00:00:00Z"}
    ask("POST /executions/actions", "count_first", {"action": "retry", "filter": nightly, "dry_run": True})
    ask("POST /executions/actions", "a_misspelt_filter", {"action": "cancel", "filter": {"baskt": "nightly"}})
    ask("GET /dead-letters", "the_newest", query="?limit=1")
    ask("GET /dead-letters", "of_a_code", query="?error_code=agent_error&limit=1")
    ask("GET /dead-letters", "a_made_up_cursor", query="?cursor=yesterday")
    letters = caller.get("/dead-letters").json()["dead_letters"]
    ask("POST /dead-letters/{letter_id}/requeue", "again", {}, letter_id=letters[0]["id"])
    ask("POST /dead-letters/{letter_id}/requeue", "again_and_again", {}, letter_id=letters[0]["id"])
    ask("POST /dead-letters/{letter_id}/requeue", "unknown", letter_id="1763700000_89ce24ad1b2c3d4e")
    refused = caller.wait_done(_refused_by_its_provider(caller))["execution_id"]
    ask("POST /dead-letters/{letter_id}/dismiss", "left", {}, letter_id=refused)
    ask("POST /dead-letters/{letter_id}/dismiss", "requeued", {}, letter_id=letters[0]["id"])


def _catalogue(recorder: Recorder) -> None:
    ask = recorder.ask
    ask("GET /agents", "of_a_domain", query="?domain=finance")
    ask("GET /agents/{name}", "one", name="cashflow_analyzer")
    ask("GET /agents/{name}", "unknown", name="cashflow")
    ask("GET /baskets", "all")
    ask("GET /baskets/{name}", "one", name="chained_test")
    ask("GET /baskets/{name}", "unknown", name="nobody")
    listed = {"name": "my basket", "agents": ["cashflow_analyzer"], "execution_strategy": "sequential"}
    steps = [{"agent": "cashflow_analyzer"}, {"agent": "goal_recommender", "needs": ["cashflow_analyzer"]}]
    ask("POST /create-basket", "of_agents", listed)
    ask("POST /create-basket", "a_graph", {"name": "my graph", "steps": steps})
    ask("POST /create-basket", "taken", listed)
    ask("POST /create-basket", "unknown_agent", {"name": "other", "agents": ["nobody"]})
    ask("DELETE /baskets/{name}", "deleted", name="my basket")
    ask("DELETE /baskets/{name}", "unknown", name="my basket")


def main() -> None:
    """Start a stack, record, and write the examples to the file that the document reads."""
    with tempfile.TemporaryDirectory() as root, GroupReaper() as group_reaper:
        stack = Stack(Path(root), group_reaper, BUCKET_AGENTS_DIR=str(AGENTS))
        try:
            stack.start_all()
            examples = record(ApiClient(stack))
        finally:
            stack.close()
    text = json.dumps(examples, indent=1, ensure_ascii=False)
    assert not re.search(r"127\.0\.0\.1|/tmp/|/home/", text), "an example names this machine"
    EXAMPLES_FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
