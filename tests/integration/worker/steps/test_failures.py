"""The traceback of a failed attempt reaches the agent's author, and nobody else, and holds nothing up."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from compose.cli.commands import command_group
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.status import ExecutionStatus
from shared.errors import Unavailable
from shared.store.executions.failure_store import MongoFailureStore
from shared.store.executions.retention import RetentionSweep
from tests.integration.worker.conftest import WorkerHarness
from worker.agent_errors import TransientError
from worker.context import AgentContext
from worker.steps.failures.agent_traceback import TRACEBACK_MAX_BYTES

SECRET = "hush-hush-1234"


def fails(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    secret_local = "in no traceback"
    ctx.log("asking the provider")
    raise TransientError(f"refused: {SECRET} {len(secret_local)}")


def test_a_traceback_is_stored_for_its_author_and_never_in_a_poll(bench: WorkerHarness) -> None:
    bench.agents = {**bench.agents, "echo": replace(bench.agents["echo"], settings={"RATES_KEY": SECRET})}
    run = bench.accept("echo")
    bench.runner(echo=fails).run_message(bench.message_of(run))
    (failure,) = bench.services.failures.list_all(PUBLIC_INTEGRATOR, run.id)
    assert (failure.step, failure.agent, failure.attempt, failure.error_code) == ("s1", "echo", 1, "agent_error")
    assert "in fails" in failure.traceback
    assert "TransientError: refused: <RATES_KEY>" in failure.traceback
    assert SECRET not in failure.traceback
    assert "secret_local = " not in failure.traceback.replace('secret_local = "in no', "")
    view = bench.services.views.get(run.integrator, run.id)
    assert view is not None
    assert b"Traceback" not in view

    settings = bench.services.settings
    environ = {"REDIS_URL": settings.redis_url, "MONGODB_URL": settings.mongodb_url}
    shown = CliRunner().invoke(command_group, ["runs", "show", run.id], env=environ)
    assert shown.exit_code == 0, shown.output
    for text in (run.id, "step s1", "attempt 1 failed", "in fails", "asking the provider"):
        assert text in shown.output
    unknown = CliRunner().invoke(command_group, ["runs", "show", "1_nowhere"], env=environ)
    assert (unknown.exit_code, "was not found" in unknown.output) == (1, True)


def test_a_good_run_writes_no_failure(bench: WorkerHarness) -> None:
    run = bench.accept("echo", given={"a": 1})
    bench.runner().run_message(bench.message_of(run))
    assert bench.services.database.collection("failures").count_documents({}) == 0


def test_a_long_traceback_is_cut_in_its_middle(bench: WorkerHarness) -> None:
    def agent(_: dict[str, Any], __: AgentContext) -> dict[str, Any]:
        raise ValueError("é" * 50_000 + " the end")

    run = bench.accept("echo")
    bench.runner(echo=agent).run_message(bench.message_of(run))
    (failure,) = bench.services.failures.list_all(PUBLIC_INTEGRATOR, run.id)
    assert len(failure.traceback.encode()) <= TRACEBACK_MAX_BYTES
    assert failure.traceback.startswith("Traceback")
    assert failure.traceback.endswith("the end\n")
    assert "bytes left out" in failure.traceback


def test_a_failure_that_cannot_be_stored_changes_nothing(bench: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(MongoFailureStore):
        def add(self, *_: Any) -> None:
            raise Unavailable("MongoDB is away")

    class Endless(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def agent(_: dict[str, Any], __: AgentContext) -> dict[str, Any]:
        raise Endless

    bench.services = replace(bench.services, failures=Away(bench.services.database))
    run = bench.accept("echo")
    began = time.monotonic()
    bench.runner(echo=agent).run_message(bench.message_of(run))
    assert bench.read(run).execution.status is ExecutionStatus.FAILED
    assert time.monotonic() - began < 5


def test_failures_are_deleted_with_their_run(bench: WorkerHarness) -> None:
    run = bench.accept("echo", input=orjson.dumps({}))
    bench.runner(echo=lambda _, __: 1 / 0).run_message(bench.message_of(run))
    assert bench.services.failures.list_all(PUBLIC_INTEGRATOR, run.id)
    sweep = RetentionSweep(bench.services.database)
    assert list(sweep.delete_expired(bench.clock.now() + timedelta(days=8), 7)) == [(run.integrator, run.id)]
    assert not bench.services.failures.list_all(PUBLIC_INTEGRATOR, run.id)


@pytest.mark.parametrize("padding", [0, 3810, 3835])
@pytest.mark.parametrize("reports", [False, True])
def test_no_part_of_a_setting_is_left_where_a_long_error_is_cut(
    bench: WorkerHarness, padding: int, reports: bool
) -> None:
    text = "x" * padding + SECRET

    def fail(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        if reports:
            return {"error": text}
        raise ValueError(text)

    bench.agents = {**bench.agents, "echo": replace(bench.agents["echo"], settings={"RATES_KEY": SECRET})}
    run = bench.accept("echo")
    bench.runner(echo=fail).run_message(bench.message_of(run))
    view = bench.services.views.get(run.integrator, run.id)
    assert view is not None
    assert SECRET[:4].encode() not in view
