"""Retention deletes a run from MongoDB and its view from Redis; while Redis is away, the rest goes on."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta

from shared.domain.execution import Execution
from shared.live.redis_client import connect
from shared.live.render import render
from shared.live.views import ViewCache
from shared.store.executions.retention import RetentionSweep
from tests.integration.worker.conftest import WorkerHarness
from worker.maintenance.retention_sweeper import RetentionSweeper

DAY = timedelta(days=1)


def completed_run(bench: WorkerHarness) -> Execution:
    run = bench.accept("echo")
    bench.runner().run_message(bench.message_of(run))
    assert bench.services.views.get(run.integrator, run.id) == render(bench.read(run))
    return run


def sweeper(bench: WorkerHarness, views: ViewCache) -> RetentionSweeper:
    settings = replace(bench.services.settings, retention_days=2)
    return RetentionSweeper(RetentionSweep(bench.services.database), views, settings)


def test_a_run_past_its_retention_is_not_shown_any_more(bench: WorkerHarness) -> None:
    run, views = completed_run(bench), bench.services.views
    sweeper(bench, views).sweep(bench.clock.now() + DAY)
    assert views.get(run.integrator, run.id) is not None
    sweeper(bench, views).sweep(bench.clock.now() + 3 * DAY)
    assert views.get(run.integrator, run.id) is None
    assert bench.services.store.load(run.integrator, run.id) is None


def test_retention_goes_on_while_redis_is_away(bench: WorkerHarness) -> None:
    run = completed_run(bench)
    with closing(connect("unix:///nowhere/redis.sock")) as absent_redis:
        sweeper(bench, ViewCache(absent_redis, live_ttl_s=1)).sweep(bench.clock.now() + 3 * DAY)
    assert bench.services.store.load(run.integrator, run.id) is None
