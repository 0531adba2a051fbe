"""What is past its retention goes from both stores, and one that is away is for the next time."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta

from shared.domain.execution import Execution
from shared.live.redis_client import connect
from shared.live.render import render
from shared.live.views import ViewCache
from shared.store.executions.retention import RetentionSweep
from tests.integration.worker.conftest import Bench
from worker.maintenance.sweeper import Sweeper

DAY = timedelta(days=1)


def ended(bench: Bench) -> Execution:
    run = bench.accept("echo")
    bench.runner().run_message(bench.bell(run))
    assert bench.services.views.get(run.id) == render(bench.read(run))
    return run


def sweeper(bench: Bench, views: ViewCache) -> Sweeper:
    settings = replace(bench.services.settings, retention_days=2)
    return Sweeper(RetentionSweep(bench.services.database), views, settings)


def test_a_run_past_its_retention_is_shown_no_more(bench: Bench) -> None:
    run, views = ended(bench), bench.services.views
    sweeper(bench, views).sweep(bench.hand.now() + DAY)
    assert views.get(run.id) is not None
    sweeper(bench, views).sweep(bench.hand.now() + 3 * DAY)
    assert views.get(run.id) is None
    assert bench.services.store.load(run.integrator, run.id) is None


def test_a_redis_that_is_away_keeps_nothing_else_from_being_swept(bench: Bench) -> None:
    run = ended(bench)
    with closing(connect("unix:///nowhere/redis.sock")) as nobody:
        sweeper(bench, ViewCache(nobody, live_s=1)).sweep(bench.hand.now() + 3 * DAY)
    assert bench.services.store.load(run.integrator, run.id) is None
