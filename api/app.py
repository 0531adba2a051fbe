"""Puts the HTTP side together; it accepts and answers, and never imports the worker."""

from __future__ import annotations

from typing import Final

import flask

from api import (
    batch,
    catalogue,
    commands,
    consumers,
    dead_letters,
    edge,
    feed,
    health,
    lists,
    logs,
    paths,
    poll_many,
    polls,
    problems,
    reference,
    retries,
    submit,
)
from api.gunicorn_worker import LET_GO
from api.keeper import Keeper
from api.known_baskets import KnownBaskets
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
    edge.register(app, services.settings)
    problems.register(app)
    api = problems.Api(app)
    known = KnownBaskets(services)
    paths.register(app, api, submit.blueprint(services, keeper, known))
    paths.register(app, api, batch.blueprint(services, keeper, known))
    for part in (polls, poll_many, lists, commands, retries, dead_letters, feed, consumers, logs, health):
        paths.register(app, api, part.blueprint(services, keeper))
    paths.register(app, api, catalogue.blueprint(services, known))
    paths.register(app, api, health.metrics_blueprint(services), versioned=False)
    paths.register(app, api, reference.blueprint(api.spec.to_dict), versioned=False)
    app.extensions[LET_GO] = keeper.holder.let_go
    return app
