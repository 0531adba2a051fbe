"""POST /run-basket and /run-agent: stores a run and answers at once with what to poll."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flask
import orjson
from flask import request

from api import paths
from api.body import Blueprint, fingerprint, read_body
from api.definition import basket_of, check_definition, step_of
from api.hints import FIRST_MS, hints_for
from api.intake import key_of, run_of, traceparent_of
from api.keeper import Keeper
from api.policy import unknown_keys
from api.schemas import CONFIG_KEYS, RUN_AGENT_KEYS, RUN_BASKET_KEYS, Accepted, RunAgent, RunBasket
from shared import faults
from shared.bootstrap import Services
from shared.domain.basket import SEQUENTIAL, Basket
from shared.domain.execution import PUBLIC, Execution, Idempotency
from shared.domain.life import start
from shared.errors import BasketNotFound, IdempotencyKeyReused, OutcomeUnknown, ValidationFailed
from shared.ids import BASKET_NAME
from shared.live.render import Head, metadata_shown, moment, rest_of


def blueprint(services: Services, keeper: Keeper) -> Blueprint:
    """Answer the routes that make executions."""
    blp = Blueprint("submit", __name__, description="Run baskets and agents")

    @blp.route("/run-basket", methods=["POST"])
    @blp.arguments(RunBasket)
    @blp.response(202, Accepted)
    def run_basket(body: Mapping[str, Any]) -> flask.Response:
        """Run a basket, named or written inline."""
        raw = read_body(request)
        warnings = unknown_keys(raw, RUN_BASKET_KEYS)
        if body.get("basket_name") is None:
            if body.get("config") is None:
                raise ValidationFailed("must provide basket_name or config")
            warnings += unknown_keys(raw["config"], CONFIG_KEYS, within="config")
        keeper.check_may_accept()
        return _accept(services, keeper, _basket_asked_for(services, body), body, kind="basket", warnings=warnings)

    @blp.route("/run-agent", methods=["POST"])
    @blp.arguments(RunAgent)
    @blp.response(202, Accepted)
    def run_agent(body: Mapping[str, Any]) -> flask.Response:
        """Run one agent, as a basket of one step."""
        warnings = unknown_keys(read_body(request), RUN_AGENT_KEYS)
        keeper.check_may_accept()
        spec = services.catalogue.agent(body["agent_name"])
        basket = Basket(spec.name, SEQUENTIAL, (step_of(spec, spec.name),))
        return _accept(services, keeper, basket, body, kind="agent", warnings=warnings)

    return blp


def _basket_asked_for(services: Services, body: Mapping[str, Any]) -> Basket:
    name = body.get("basket_name")
    if name is None:
        return basket_of({"name": "inline"} | check_definition(body["config"], "/config"), services.catalogue)
    if not BASKET_NAME.fullmatch(name):
        raise BasketNotFound(f"basket {name[:100]!r} was not found: no basket can have this name")
    return basket_of(services.baskets.get(PUBLIC, name), services.catalogue)


def _accept(
    services: Services, keeper: Keeper, basket: Basket, body: Mapping[str, Any], *, kind: str, warnings: list[str]
) -> flask.Response:
    """Store the run, then offer it; the answer comes only once a majority has it."""
    key = key_of(request.headers.get("Idempotency-Key"))
    print_ = fingerprint(request.path.removeprefix(paths.prefix()), read_body(request)) if key is not None else ""
    now = services.clock.now()
    run = run_of(
        basket, body, services.catalogue,
        now=now, kind=kind, request_id=flask.g.request_id,
        idempotency=None if key is None else Idempotency(key, print_),
        traceparent=traceparent_of(request.headers.get("traceparent")),
    )  # fmt: skip
    accepted = start(run, now, services.terms)
    try:
        stored = services.store.create(accepted)
    except OutcomeUnknown:
        if key is None:
            keeper.withdraw(run)
        raise
    replayed = stored.id != run.id
    if replayed and stored.idempotency is not None and stored.idempotency.fingerprint != print_:
        raise IdempotencyKeyReused
    faults.reach("api.inserted")
    if not replayed:
        services.publisher.accepted(accepted)
    return _answer(services, keeper, stored, warnings, replayed=replayed)


def _answer(
    services: Services, keeper: Keeper, run: Execution, warnings: list[str], *, replayed: bool
) -> flask.Response:
    status_url = f"{paths.prefix()}/execution-logs/{run.id}"
    body: dict[str, Any] = {
        "execution_id": run.id,
        "status": run.status,
        "done": run.done,
        "rev": run.rev,
        "execution_metadata": metadata_shown(run),
        "status_url": status_url,
        "message": "accepted; poll status_url until done is true",
        "created_at": moment(run.created_at),
        "request_id": run.request_id,
    }
    headers = {
        "Location": status_url,
        "ETag": f'W/"{run.id}.{run.rev}"',
        "Cache-Control": "no-store",
    }
    if replayed:
        headers["Idempotency-Replayed"] = "true"
        head = Head(run.id, str(run.status), run.done, run.rev)
        hints = hints_for(head, rest_of(run), services.clock, keeper.pulse.last)
        poll_after_ms, retry_after_s = hints.poll_after_ms, hints.retry_after_s
    else:
        poll_after_ms, retry_after_s = FIRST_MS, 1
    if poll_after_ms is not None:
        body["poll_after_ms"] = poll_after_ms
        headers["Retry-After"] = str(retry_after_s)
    if warnings:
        body["warnings"] = warnings
    return flask.Response(orjson.dumps(body), 202, headers, mimetype="application/json")
