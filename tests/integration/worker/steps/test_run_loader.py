"""A run that begins at once is not read from MongoDB; a copy that is missing, broken or stale changes no outcome."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from shared.domain.execution import PRIORITY_FIRST_OFFER, Execution
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.transitions import cancel, start
from shared.domain.status import ExecutionStatus, StepStatus
from shared.live.render import render
from shared.live.views import copy_key
from shared.queue.message import list_key
from tests.integration.worker.conftest import WorkerHarness

pytestmark = pytest.mark.usefixtures("long_delays")


def accept_and_publish(bench: WorkerHarness, *agents: str) -> Execution:
    """Accept a run as the API does, with its copy in Redis."""
    run = bench.accept(*(agents or ("echo", "echo")), given={"n": 7})
    bench.services.publisher.publish_accepted([decision_of(bench, run)])
    assert bench.services.views.copies([run.id])
    return run


def decision_of(bench: WorkerHarness, run: Execution) -> Decision:
    """Return the decision that ``run`` was stored by."""
    unstarted = replace(run, steps={}, status=ExecutionStatus.QUEUED)
    decision = start(unstarted, run.created_at, bench.services.timings)
    assert decision.execution == run
    return decision


def reads(bench: WorkerHarness) -> int:
    return int(bench.batches.calls["load_all"] + bench.store.calls["load"])


@pytest.mark.usefixtures("long_handoff")
def test_a_run_with_a_copy_is_one_write_and_no_read(bench: WorkerHarness) -> None:
    run = accept_and_publish(bench)
    before = bench.writes()
    bench.runner().run_message(bench.message_of(run))
    record = bench.read(run)
    assert (record.execution.status, orjson.loads(record.outputs["s2"])["n"]) == (ExecutionStatus.COMPLETED, 7)
    assert (reads(bench), bench.writes() - before) == (0, 1)
    assert bench.services.views.get(run.integrator, run.id) == render(record)
    assert not bench.services.views.copies([run.id]), "what has ended leaves no copy"


@pytest.mark.usefixtures("long_handoff")
def test_messages_that_a_worker_takes_itself_come_with_their_copies(bench: WorkerHarness) -> None:
    first, *others = [accept_and_publish(bench) for _ in range(3)]
    client = bench.services.redis
    client.rpop(list_key("default", PRIORITY_FIRST_OFFER))  # the first message, which Celery delivers
    asked_before = client.info("commandstats").get("cmdstat_mget", {}).get("calls", 0)
    bench.runner().run_message_and_backlog(bench.message_of(first))
    assert {bench.read(run).execution.status for run in (first, *others)} == {ExecutionStatus.COMPLETED}
    assert reads(bench) == 0
    assert client.info("commandstats")["cmdstat_mget"]["calls"] - asked_before == 1, "for Celery's message alone"


@pytest.mark.parametrize("broken", [b"", b"\x05\x00\x00\x00\x00", b"{}"])
def test_without_a_readable_copy_the_run_is_read_from_the_store(bench: WorkerHarness, broken: bytes) -> None:
    run = accept_and_publish(bench)
    if broken:
        bench.services.redis.set(copy_key(run.id), broken)
    else:
        bench.services.redis.flushdb()
    bench.runner().run_message(bench.message_of(run))
    assert bench.read(run).execution.status is ExecutionStatus.COMPLETED
    assert reads(bench) == 1


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("agents", [("echo",), ("echo", "echo")])
def test_a_stale_copy_changes_nothing(bench: WorkerHarness, agents: tuple[str, ...]) -> None:
    run = accept_and_publish(bench, *agents)
    cancelled = cancel(run, bench.clock.now(), None)
    assert cancelled is not None
    bench.services.store.save(run, cancelled)  # and Redis, which is away, keeps the copy
    before = bench.read(run)
    bench.runner().run_message(bench.message_of(run))
    assert bench.read(run) == before
    assert before.execution.status is ExecutionStatus.CANCELLED
    assert {step.status for step in before.execution.steps.values()} <= {StepStatus.CANCELLED, StepStatus.SKIPPED}


@pytest.mark.usefixtures("claims_first")
def test_an_agent_that_is_not_idempotent_never_begins_on_a_stale_copy(bench: WorkerHarness) -> None:
    begun = []
    run = accept_and_publish(bench, "echo")
    cancelled = cancel(run, bench.clock.now(), None)
    assert cancelled is not None
    bench.services.store.save(run, cancelled)
    bench.runner(echo=lambda given, _: begun.append(given) or given).run_message(bench.message_of(run))
    assert not begun


@pytest.mark.usefixtures("long_handoff")
@pytest.mark.parametrize("with_copies", [True, False])
def test_runs_of_several_integrators_share_their_writes(bench: WorkerHarness, *, with_copies: bool) -> None:
    runs = [bench.accept("echo", integrator=name) for name in ("acme", "zenith", "acme")]
    bench.services.publisher.publish_accepted([decision_of(bench, run) for run in runs])
    if not with_copies:
        bench.services.redis.flushdb()
    messages = [replace(bench.message_of(run), integrator=run.integrator) for run in runs]
    bench.runner()._batch_runner.run(messages)
    for run in runs:
        stored = bench.services.store.load(run.integrator, run.id)
        assert stored is not None
        assert stored.status is ExecutionStatus.COMPLETED
    loads = 0 if with_copies else 2
    assert (bench.batches.calls["load_all"], bench.batches.calls["save_all"]) == (loads, 1)
    assert (bench.store.calls["load"] - len(runs), bench.store.calls["save"]) == (0, 0)


def test_a_copy_of_another_integrator_is_not_used(bench: WorkerHarness) -> None:
    run = accept_and_publish(bench)
    bench.runner().run_message(replace(bench.message_of(run), integrator="other"))
    assert bench.read(run).execution == run
    assert reads(bench) > 0
