"""What authors test their agents with: a context that records, a scripted gateway, a run with a worker's checks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shared.errors import AgentNotFound
from tests.api_client import AGENTS
from worker.agent_errors import TransientError
from worker.context import AgentContext
from worker.gateway.gateway_errors import GatewayError
from worker.steps.failures.agent_traceback import format_agent_traceback
from worker.testing import FakeContext, FakeHttp, TrialFailed, run_agent

RATES = "https://rates.example/latest"


def test_a_context_records_lines_progress_and_checkpoints() -> None:
    ctx = FakeContext(attempt=3, step="rates", settings={"KEY": "secret"})
    assert isinstance(ctx, AgentContext)
    ctx.log("read", level="warn", page=1)
    ctx.progress(0.5, "half")
    ctx.checkpoint({"done": 1})
    assert ctx.lines == [("warning", "read", {"page": 1})]
    assert ctx.progress_reports == [(50, "half")]
    assert ctx.restore() == {"done": 1}
    assert (ctx.attempt, ctx.settings["KEY"], ctx.idempotency_key) == (3, "secret", f"{ctx.execution_id}:rates")
    assert "secret" not in repr(ctx)


@pytest.mark.parametrize("state", [{"value": math.nan}, ["no object"], {"value": "x" * (4 * 1024 * 1024)}])
def test_a_checkpoint_that_a_worker_refuses_is_refused(state: Any) -> None:
    with pytest.raises(ValueError, match=r"checkpoint|JSON"):
        FakeContext().checkpoint(state)


def test_a_misspelt_part_of_a_context_is_refused_with_the_right_word() -> None:
    with pytest.raises(TypeError, match="did you mean settings"):
        FakeContext(setings={})


def test_scripted_replies_are_real_responses_and_calls_are_recorded() -> None:
    http = FakeHttp({("GET", RATES): [(200, "busy"), httpx2.Response(200, json={"EUR": 1})]})
    first, second, third = (http.get(RATES, params={"base": base}, critical=True) for base in ("a", "b", "c"))
    assert isinstance(first, httpx2.Response)
    assert (first.text, second.json(), third.json()) == ("busy", {"EUR": 1}, {"EUR": 1})
    assert (str(third.request.url), third.stale) == (f"{RATES}?base=c", False)
    assert [(call.method, call.options["params"]) for call in http.calls[1:]] == [
        ("GET", {"base": "b"}),
        ("GET", {"base": "c"}),
    ]
    with pytest.raises(AssertionError, match=f"no reply for DELETE {RATES}; it has those of: GET {RATES}"):
        http.delete(RATES)


def test_scripted_failures_are_those_of_the_gateway() -> None:
    http = FakeHttp({("GET", RATES): [(503, ""), (404, {}), (200, "no JSON")], ("post", RATES): TransientError("gone")})
    for kind in ("server_error", "client_error"):
        with pytest.raises(GatewayError) as raised:
            http.get(RATES)
        assert raised.value.kind == kind
    with pytest.raises(GatewayError, match="bad_response"):
        http.get(RATES).json()
    with pytest.raises(TransientError, match="gone"):
        http.post(RATES, json={})


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("nan", "output_not_serialisable"),
        ("not_object", "output_not_serialisable"),
        ("too_large", "output_too_large"),
        ("error_key", "agent_error"),
        ("bad_schema", "output_invalid"),
    ],
)
def test_an_output_is_refused_as_by_a_worker(kind: str, code: str) -> None:
    with pytest.raises(TrialFailed, match=code) as failed:
        run_agent(AGENTS / "returner", {"kind": kind})
    assert failed.value.error_code == code


def test_an_input_is_refused_as_by_a_worker_and_an_exception_passes() -> None:
    with pytest.raises(TrialFailed, match="input_invalid: the input breaks the agent's input_schema: /kind"):
        run_agent(AGENTS / "raiser", {"kind": 7})
    with pytest.raises(TransientError):
        run_agent(AGENTS / "raiser", {"kind": "TransientError"})


def test_an_agent_is_found_by_its_name_and_another_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUCKET_AGENTS_DIR", str(AGENTS))
    assert run_agent("echo", {"a": 1}) == {"a": 1}
    assert "analysis" in json.dumps(run_agent("cashflow_analyzer", {"transactions": []}))
    monkeypatch.setenv("BUCKET_AGENTS_DIR", str(tmp_path))
    with pytest.raises(AgentNotFound, match=f"none of this name in {tmp_path}"):
        run_agent("echo", {})


def test_a_traceback_begins_in_the_agent_also_if_its_folder_is_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(AGENTS)
    with pytest.raises(ValueError, match="told to raise") as raised:
        run_agent("raiser", {"kind": "ValueError"})
    text = format_agent_traceback(raised.value, Path("raiser"), {})
    assert text.splitlines()[1].startswith(f'  File "{AGENTS}/raiser/agent.py"')
