"""POST /run-basket and /run-agent: stores a run and answers at once with what to poll."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import flask
from flask import request

from api.background import Keeper
from api.catalogue.basket_cache import KnownBaskets
from api.catalogue.basket_definition import basket_of, check_definition, step_of, warnings_of_definition
from api.http.body_policy import unknown_keys
from api.http.request_body import Blueprint, read_body
from api.polling.poll import Polls
from api.schemas import CONFIG_KEYS, RUN_AGENT_KEYS, RUN_BASKET_KEYS, RunAgent, RunBasket
from api.submission.acceptor import Acceptor, Asker, Made
from api.submission.run_builder import run_of
from shared.bootstrap import Services
from shared.catalogue.agent_catalogue import Catalogue
from shared.domain.definitions.basket import SEQUENTIAL, Basket
from shared.domain.execution import Execution
from shared.errors import BasketNotFound, ValidationFailed
from shared.ids import BASKET_NAME

_IN_HEADERS: Final = {"idempotency_key": "send it as the header Idempotency-Key, or a repeat runs twice"}


def blueprint(services: Services, keeper: Keeper, known: KnownBaskets) -> Blueprint:
    """Answer the routes that make executions."""
    blp = Blueprint("submit", __name__, description="Run baskets and agents")
    acceptor = Acceptor(services, keeper)
    polls = Polls(services, keeper)

    @blp.route("/run-basket", methods=["POST"])
    @blp.arguments(RunBasket())
    def run_basket(body: Mapping[str, Any]) -> flask.Response:
        """Run a basket, named or written inline."""
        warnings = warnings_of(read_body(request), body)

        def make(asker: Asker) -> Made:
            return run_of_basket(services.catalogue, known, body, asker), {}

        return polls.when_done(acceptor.accept(make, warnings))

    @blp.route("/run-agent", methods=["POST"])
    @blp.arguments(RunAgent())
    def run_agent(body: Mapping[str, Any]) -> flask.Response:
        """Run one agent, as a basket of one step."""

        def make(asker: Asker) -> Made:
            spec = services.catalogue.agent(body["agent_name"])
            basket = Basket(spec.name, SEQUENTIAL, (step_of(spec, spec.name),))
            return _run(services.catalogue, basket, body, asker, kind="agent"), {}

        warnings = unknown_keys(read_body(request), RUN_AGENT_KEYS, elsewhere=_IN_HEADERS)
        return polls.when_done(acceptor.accept(make, warnings))

    return blp


def warnings_of(
    raw: Mapping[str, Any],
    body: Mapping[str, Any],
    known: Sequence[str] = RUN_BASKET_KEYS,
    elsewhere: Mapping[str, str] = _IN_HEADERS,
) -> list[str]:
    """Answer which keys of a body mean nothing; raises ValidationFailed where it names no basket."""
    warnings = unknown_keys(raw, known, elsewhere=elsewhere)
    if body.get("basket_name") is None:
        if body.get("config") is None:
            fault = {"pointer": "/basket_name", "message": "is required where there is no config"}
            raise ValidationFailed("must provide basket_name or config", details=[fault])
        warnings += warnings_of_definition(raw["config"], CONFIG_KEYS, "config")
    return warnings


def run_of_basket(catalogue: Catalogue, known: KnownBaskets, body: Mapping[str, Any], asker: Asker) -> Execution:
    """Answer the run that the body of a submit asks for; raises whatever it is to be refused for."""
    return _run(catalogue, _basket_asked_for(catalogue, known, body), body, asker, kind="basket")


def _basket_asked_for(catalogue: Catalogue, known: KnownBaskets, body: Mapping[str, Any]) -> Basket:
    name = body.get("basket_name")
    if name is None:
        return basket_of({"name": "inline"} | check_definition(body["config"], "/config"), catalogue, "/config")
    if not BASKET_NAME.fullmatch(name):
        raise BasketNotFound(f"basket {name[:100]!r} was not found: no basket can have this name")
    return known.get(name)


def _run(catalogue: Catalogue, basket: Basket, body: Mapping[str, Any], asker: Asker, *, kind: str) -> Execution:
    return run_of(
        basket, body, catalogue,
        now=asker.now, kind=kind, request_id=asker.request_id,
        idempotency=asker.idempotency, traceparent=asker.traceparent,
    )  # fmt: skip
