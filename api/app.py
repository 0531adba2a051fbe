"""Composition root of the API: builds each component once and registers all routes; no worker code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import flask

from api import health
from api.actions import cancel, dead_letter_routes, erase, retry
from api.actions.retry import RetryHandler
from api.auth import routes as keys
from api.auth.authentication import Authenticator
from api.auth.key_cache import KeyCache
from api.auth.key_service import KeyService
from api.background import start_background
from api.catalogue import routes as catalogue
from api.catalogue.agent_views import AgentViews
from api.catalogue.availability import AgentAvailability
from api.catalogue.basket_cache import BasketCache
from api.feed import routes as feed
from api.feed.changes import FeedHandler
from api.gunicorn_worker import RELEASE_LONG_POLLS
from api.hints.poll_hints import ViewHints
from api.hints.schedule_cache import DurationCache
from api.http import middleware, problems, version_prefix
from api.http.long_poll import LongPoller
from api.http.request_body import Blueprint
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
from shared.bootstrap import Services
from shared.live.redis_monitor import RedisMonitor
from shared.settings import Settings

_OPENAPI_CONFIG: Final = {"API_TITLE": "Bucket", "API_VERSION": "v1", "OPENAPI_VERSION": "3.1.0"}


def create_app(services: Services) -> tuple[flask.Flask, Callable[[], None]]:
    """Return the WSGI application over ``services``, and the function that starts its background threads.

    Nothing has connected yet, and no thread runs.
    """
    settings, clock = services.settings, services.clock
    activity = middleware.RequestActivity()

    def pause_monitor(seconds: float) -> None:
        activity.pause(seconds, may_rest=monitor.last.is_connected)  # an outage's end is noticed as soon as ever

    monitor = RedisMonitor(settings.redis_url, clock.now_or_none, services.views.reconnect, pause_monitor)
    long_poller = LongPoller(settings, monitor)
    store_watcher, durations, withdrawals = StoreWatcher(services), DurationCache(services), Withdrawals(services)
    view_hints = ViewHints(clock, monitor, durations, settings.retention_days)
    reader = ExecutionReader(services, monitor)
    poller = PollHandler(services, reader, view_hints, long_poller)
    baskets, row_renderer = BasketCache(services), RowRenderer(services, view_hints)
    feed_handler = FeedHandler(services, long_poller, row_renderer)
    admission = Admission(settings.backlog_max, monitor, store_watcher.prepared.is_set)
    availability = AgentAvailability(services.catalogue, monitor)
    builder = RunBuilder(services, baskets, admission, availability, monitor)
    acceptor = Acceptor(services, GroupCommit(services), withdrawals)
    retrier = RetryHandler(
        services, reader, admission=admission, availability=availability, acceptor=acceptor, view_hints=view_hints
    )
    key_cache = KeyCache(services.keys)
    app = _create_flask(settings, long_poller)
    app.wsgi_app = activity.count_requests(app.wsgi_app)  # type: ignore[method-assign]
    _register(
        app,
        submission.blueprint(clock, builder, acceptor, view_hints, HeldSubmit(poller, view_hints)),
        submission.batch_blueprint(clock, BatchAcceptor(services, builder, withdrawals, view_hints)),
        polling.blueprint(poller),
        polling.many_blueprint(PollManyHandler(services, monitor, reader, view_hints)),
        polling.list_blueprint(services, view_hints, row_renderer),
        cancel.blueprint(services, reader, poller),
        erase.blueprint(services, reader, poller),
        retry.blueprint(clock, retrier),
        dead_letter_routes.blueprint(services, reader, retrier),
        feed.blueprint(feed_handler),
        feed.consumers_blueprint(services, feed_handler),
        logs.blueprint(services.catalogue, LogPageReader(services, monitor)),
        health.blueprint(services.database, monitor, store_watcher, settings.outbound_hosts),
        catalogue.blueprint(services, baskets, availability, AgentViews(services, availability, monitor)),
        keys.blueprint(services, KeyService(services, key_cache.put)),
        metrics=health.metrics_blueprint(services.redis),
    )
    Authenticator(services, key_cache).install(app)
    return app, partial(
        start_background,
        activity,
        monitor,
        store_watcher=store_watcher,
        durations=durations,
        withdrawals=withdrawals,
        key_cache=key_cache,
    )


def _create_flask(settings: Settings, long_poller: LongPoller) -> flask.Flask:
    app = flask.Flask("api", static_folder=None)
    app.config.update(_OPENAPI_CONFIG, **{version_prefix.TRUSTED_PROXIES: settings.trusted_proxies})
    app.extensions[RELEASE_LONG_POLLS] = long_poller.release_all
    middleware.register_middleware(app, settings)
    problems.register_error_handlers(app)
    return app


def _register(app: flask.Flask, *blueprints: Blueprint, metrics: Blueprint) -> None:
    """Register the routes in the order of the OpenAPI document's tags; the last two stand at the root alone."""
    api = problems.ProblemApi(app)
    for blueprint in blueprints:
        version_prefix.register_routes(app, api, blueprint)
    for blueprint in (metrics, openapi.blueprint(api.spec.to_dict)):
        version_prefix.register_routes(app, api, blueprint, is_versioned=False)
