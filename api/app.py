"""Puts the HTTP side together; it accepts and answers, and never imports the worker."""

from __future__ import annotations

from typing import Final

import flask

from api import health
from api.actions import cancel, dead_letters, retry
from api.background import Keeper
from api.catalogue import routes as catalogue
from api.catalogue.basket_cache import KnownBaskets
from api.feed import changes, consumers
from api.gunicorn_worker import LET_GO
from api.http import middleware, problems, version_prefix
from api.logs import list_logs
from api.openapi import routes as reference
from api.polling import list_executions, poll, poll_many
from api.submission import submit, submit_batch
from shared.bootstrap import Services

_OPENAPI: Final = {
    "API_TITLE": "Bucket",
    "API_VERSION": "v1",
    "OPENAPI_VERSION": "3.1.0",
}


def create_app(services: Services, keeper: Keeper) -> flask.Flask:
    """Answer the WSGI application over ``services``; whoever calls starts the ``keeper``."""
    app = flask.Flask("api", static_folder=None)
    app.config.update(_OPENAPI)
    middleware.register(app, services.settings)
    problems.register(app)
    api = problems.Api(app)
    known = KnownBaskets(services)
    version_prefix.register(app, api, submit.blueprint(services, keeper, known))
    version_prefix.register(app, api, submit_batch.blueprint(services, keeper, known))
    for part in (poll, poll_many, list_executions, cancel, retry, dead_letters, changes, consumers, list_logs, health):
        version_prefix.register(app, api, part.blueprint(services, keeper))
    version_prefix.register(app, api, catalogue.blueprint(services, known))
    version_prefix.register(app, api, health.metrics_blueprint(services), versioned=False)
    version_prefix.register(app, api, reference.blueprint(api.spec.to_dict), versioned=False)
    app.extensions[LET_GO] = keeper.holder.let_go
    return app
