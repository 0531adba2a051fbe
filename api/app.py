"""Composition root of the API: builds each component once and registers all routes; no worker code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import flask

from api import health
from api.actions import bulk_action_routes, cancel, dead_letter_routes, erase, retry
from api.actions.retry import RetryHandler
from api.background import BackgroundTask, start_background
from api.catalogue import routes as catalogue
from api.catalogue.agent_views import AgentViews
from api.catalogue.availability import AgentAvailability
from api.catalogue.basket_cache import BasketCache
from api.dashboard import routes as dashboard
from api.dashboard.sessions import Sessions
from api.feed import routes as feed
from api.feed.changes import FeedHandler
from api.fleet import routes as fleet
from api.fleet.fleet_state_metrics import FleetStateMetrics
from api.fleet.fleet_stats import FleetStats
from api.fleet.health_parts import HealthParts
from api.gunicorn_worker import RELEASE_LONG_POLLS
from api.hints.poll_hints import ViewHints
from api.hints.schedule_cache import DurationCache
from api.http import middleware, problems, version_prefix
from api.http.long_poll import LongPoller
from api.http.request_body import Blueprint
from api.limits.quotas import QuotaGuard, release_quota
from api.limits.stored_bytes import READ_EVERY_S, StoredBytes
from api.logs import routes as logs
from api.logs.log_line_pages import LogPageReader
from api.openapi import routes as openapi
from api.polling import routes as polling
from api.polling.execution_reader import ExecutionReader
from api.polling.poll_handler import PollHandler
from api.polling.poll_many import PollManyHandler
from api.rows.row_fields import RowRenderer
from api.store_watcher import StoreWatcher
from api.submission import routes as submission
from api.submission.acceptor import Acceptor
from api.submission.admission import Admission
from api.submission.batch_acceptor import BatchAcceptor
from api.submission.group_commit import GroupCommit
from api.submission.held_submit import HeldSubmit
from api.submission.run_builder import RunBuilder
from api.submission.withdrawals import Withdrawals
from api.tracing import request_spans
from api.trust import Trust
from shared.bootstrap import Services
from shared.domain.access.caller import Caller
from shared.live.redis_monitor import RedisMonitor
from shared.telemetry.request_metrics import observe_store_call

Start = Callable[[], Callable[[], None]]
_OPENAPI_CONFIG: Final = {"API_TITLE": "Bucket", "API_VERSION": "v1", "OPENAPI_VERSION": "3.1.0"}


def create_app(services: Services, everyone: Caller | None = None) -> tuple[flask.Flask, Start]:
    """Return the WSGI application over ``services``, and the function that starts its background threads.

    That one returns what ends them. Nothing has connected yet, and no thread runs. With ``everyone`` no request needs a
    key: that caller makes each.
    """
    settings, clock, activity = services.settings, services.clock, middleware.RequestActivity()
    monitor = _open_monitor(services, activity)
    long_poller = LongPoller(settings, monitor)
    store_watcher, durations, withdrawals = StoreWatcher(services), DurationCache(services), Withdrawals(services)
    view_hints = ViewHints(clock, monitor, durations, settings.retention_days)
    reader = ExecutionReader(services, monitor)
    poller = PollHandler(services, reader, view_hints, long_poller)
    baskets, row_renderer = BasketCache(services), RowRenderer(services, view_hints)
    feed_handler = FeedHandler(services, long_poller, row_renderer)
    stored_bytes = StoredBytes(services)
    admission = _open_admission(services, monitor, store_watcher, stored_bytes)
    availability = AgentAvailability(services.catalogue, monitor)
    builder = RunBuilder(services, baskets, admission, availability, monitor)
    acceptor = Acceptor(services, GroupCommit(services), withdrawals)
    retrier = RetryHandler(
        services, reader, admission=admission, availability=availability, acceptor=acceptor, view_hints=view_hints
    )
    services.database.observe = observe_store_call
    trust, stats = Trust(services, monitor), FleetStats(services, monitor)
    parts = HealthParts(services.database, clock, services.feed_reader, monitor=monitor, stats=stats)
    app, hooks = _create_flask(services, long_poller, activity)
    _register(
        app,
        submission.blueprint(clock, builder, acceptor, view_hints, HeldSubmit(poller, view_hints)),
        submission.batch_blueprint(clock, BatchAcceptor(services, builder, withdrawals, view_hints)),
        polling.blueprint(poller),
        polling.many_blueprint(PollManyHandler(services, monitor, reader, view_hints)),
        polling.list_blueprint(services, row_renderer),
        cancel.blueprint(services, reader, poller),
        erase.blueprint(services, reader, poller),
        retry.blueprint(clock, retrier),
        bulk_action_routes.blueprint(services, admission, acceptor, view_hints),
        dead_letter_routes.blueprint(services, reader, retrier),
        feed.blueprint(feed_handler),
        feed.consumers_blueprint(services, feed_handler),
        logs.blueprint(services.catalogue, LogPageReader(services, monitor)),
        fleet.blueprint(services, stats),
        health.blueprint(parts, services.database, monitor, store_watcher, settings.outbound_hosts),
        catalogue.blueprint(services, baskets, availability, AgentViews(services, availability, monitor)),
        *trust.blueprints(),
        metrics=health.metrics_blueprint(services.redis, monitor, FleetStateMetrics(services, stats, parts)),
    )
    app.register_blueprint(dashboard.blueprint(Sessions(services, trust.keys), trust.record, settings.trace_url))
    trust.install(app, hooks, everyone)
    return app, partial(
        start_background,
        activity,
        monitor,
        store_watcher=store_watcher,
        durations=durations,
        withdrawals=withdrawals,
        tasks=[*trust.tasks(), *_estimates(stored_bytes)],
    )


def _open_admission(
    services: Services, monitor: RedisMonitor, store_watcher: StoreWatcher, stored_bytes: StoredBytes
) -> Admission:
    settings = services.settings
    quotas = QuotaGuard(services, stored_bytes.of) if settings.quotas else None
    return Admission(settings.backlog_max, monitor, store_watcher.prepared.is_set, quotas)


def _open_monitor(services: Services, activity: middleware.RequestActivity) -> RedisMonitor:
    def pause(seconds: float) -> None:
        activity.pause(seconds, may_rest=monitor.last.is_connected)  # an outage's end is noticed as soon as ever

    monitor = RedisMonitor(services.settings.redis_url, services.clock.now_or_none, services.views.reconnect, pause)
    return monitor


def _estimates(stored_bytes: StoredBytes) -> Iterator[BackgroundTask]:
    """Yield what estimates the stored bytes, if some quota needs it; it takes longer than a request may wait for it.

    So it does not rest while no requests come.
    """
    if stored_bytes.is_needed:
        yield BackgroundTask("stored_bytes", stored_bytes.refresh, lambda _: time.sleep(READ_EVERY_S))


def _create_flask(
    services: Services, long_poller: LongPoller, activity: middleware.RequestActivity
) -> tuple[flask.Flask, middleware.RequestHooks]:
    app, settings = flask.Flask("api", static_folder=None), services.settings
    app.wsgi_app = activity.count_requests(app.wsgi_app)  # type: ignore[method-assign]
    app.config.update(_OPENAPI_CONFIG, **{version_prefix.TRUSTED_PROXIES: settings.trusted_proxies})
    app.extensions[RELEASE_LONG_POLLS] = long_poller.release_all
    hooks = middleware.register_middleware(app, settings)
    request_spans.install(hooks, services.tracer)
    problems.register_error_handlers(app)
    if settings.quotas:
        app.teardown_request(lambda _: release_quota())
    return app, hooks


def _register(app: flask.Flask, *blueprints: Blueprint, metrics: Blueprint) -> None:
    """Register the routes in the order of the OpenAPI document's tags; the last two stand at the root alone."""
    api = problems.ProblemApi(app)
    for blueprint in blueprints:
        version_prefix.register_routes(app, api, blueprint)
    for blueprint in (metrics, openapi.blueprint(api.spec.to_dict)):
        version_prefix.register_routes(app, api, blueprint, is_versioned=False)
