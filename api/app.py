"""The composition root of the HTTP side: builds each service once and registers all routes; no worker code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import flask

from api import health
from api.actions import cancel, dead_letters, retry
from api.actions.retry import RetryHandler
from api.background import Background
from api.catalogue import routes as catalogue
from api.catalogue.basket_cache import BasketCache
from api.feed import routes as feed
from api.feed.changes import FeedHandler
from api.feed.consumers import ConsumerHandler
from api.gunicorn_worker import RELEASE_LONG_POLLS
from api.hints.schedule_cache import DurationCache
from api.hints.view_hints import ViewHints
from api.http import middleware, problems, version_prefix
from api.http.long_poll import LongPoller
from api.http.request_body import Blueprint
from api.logs import routes as logs
from api.logs.pages import LogPageReader
from api.openapi import routes as openapi
from api.polling import routes as polling
from api.polling.execution_reader import ExecutionReader
from api.polling.list_executions import ListHandler
from api.polling.poll_many import PollManyHandler
from api.polling.poller import PollHandler
from api.polling.step_outputs import StepOutputHandler
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

_OPENAPI_CONFIG: Final = {
    "API_TITLE": "Bucket",
    "API_VERSION": "v1",
    "OPENAPI_VERSION": "3.1.0",
}


@dataclass(frozen=True, slots=True)
class Components:
    """The services of one API process that several routes share; each is built once, by :func:`build_components`."""

    services: Services
    monitor: RedisMonitor
    store_watcher: StoreWatcher
    long_poller: LongPoller
    background: Background
    view_hints: ViewHints
    baskets: BasketCache
    admission: Admission
    withdrawals: Withdrawals
    acceptor: Acceptor
    reader: ExecutionReader
    poller: PollHandler


def build_components(services: Services) -> Components:
    """Build what the routes share; nothing has connected yet, and no thread runs."""
    settings = services.settings
    monitor = RedisMonitor(settings.redis_url, services.clock.now_or_none)
    store_watcher = StoreWatcher(services)
    long_poller = LongPoller(settings, monitor)
    durations = DurationCache(services)
    withdrawals = Withdrawals(services)
    view_hints = ViewHints(services.clock, monitor, durations)
    reader = ExecutionReader(services, monitor)
    return Components(
        services=services,
        monitor=monitor,
        store_watcher=store_watcher,
        long_poller=long_poller,
        background=Background(monitor, store_watcher, durations, withdrawals, long_poller),
        view_hints=view_hints,
        baskets=BasketCache(services),
        admission=Admission(settings.backlog_max, monitor, lambda: store_watcher.is_prepared),
        withdrawals=withdrawals,
        acceptor=Acceptor(services, GroupCommit(services), withdrawals),
        reader=reader,
        poller=PollHandler(services, reader, view_hints, long_poller),
    )


def create_app(parts: Components) -> flask.Flask:
    """Return the WSGI application over ``parts``; the caller starts ``parts.background``."""
    app = flask.Flask("api", static_folder=None)
    app.config.update(_OPENAPI_CONFIG)
    middleware.register_middleware(app, parts.services.settings)
    problems.register_error_handlers(app)
    api = problems.ProblemApi(app)
    for blueprint in (
        *_submission(parts),
        *_polling(parts),
        *_actions(parts),
        *_feed(parts),
        *_catalogue_and_logs(parts),
    ):
        version_prefix.register_routes(app, api, blueprint)
    version_prefix.register_routes(app, api, health.metrics_blueprint(parts.services.redis), is_versioned=False)
    version_prefix.register_routes(app, api, openapi.blueprint(api.spec.to_dict), is_versioned=False)
    app.extensions[RELEASE_LONG_POLLS] = parts.long_poller.release_all
    return app


def _submission(parts: Components) -> tuple[Blueprint, ...]:
    builder = RunBuilder(parts.services, parts.baskets, parts.admission)
    batches = BatchAcceptor(parts.services, builder, parts.withdrawals, parts.view_hints)
    held_submit = HeldSubmit(parts.poller, parts.view_hints)
    clock = parts.services.clock
    return (
        submission.blueprint(clock, builder, parts.acceptor, held_submit),
        submission.batch_blueprint(clock, batches),
    )


def _polling(parts: Components) -> tuple[Blueprint, ...]:
    services = parts.services
    many = PollManyHandler(services, parts.monitor, parts.reader, parts.view_hints)
    return (
        polling.blueprint(parts.poller, StepOutputHandler(services.views, parts.reader)),
        polling.many_blueprint(many),
        polling.list_blueprint(ListHandler(services, parts.view_hints)),
    )


def _actions(parts: Components) -> tuple[Blueprint, ...]:
    services = parts.services
    retrier = RetryHandler(parts.reader, services.timings, parts.admission, parts.acceptor, parts.view_hints)
    return (
        cancel.blueprint(services, parts.reader, parts.poller),
        retry.blueprint(services.clock, retrier),
        dead_letters.blueprint(services, parts.reader, retrier),
    )


def _feed(parts: Components) -> tuple[Blueprint, ...]:
    changes = FeedHandler(parts.services, parts.long_poller)
    return feed.blueprint(changes), feed.consumers_blueprint(ConsumerHandler(parts.services, changes))


def _catalogue_and_logs(parts: Components) -> tuple[Blueprint, ...]:
    services = parts.services
    return (
        logs.blueprint(services.catalogue, LogPageReader(services, parts.monitor)),
        health.blueprint(services.database, parts.monitor, parts.store_watcher),
        catalogue.blueprint(services, parts.baskets),
    )
