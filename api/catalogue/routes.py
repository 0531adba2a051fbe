"""The agents there are, and the baskets made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flask
from flask import request

from api.catalogue.basket_cache import KnownBaskets
from api.catalogue.basket_definition import basket_of, check_agents_exist, check_definition, warnings_of_definition
from api.catalogue.schemas import NEW_BASKET_KEYS, NewBasket
from api.http import query_params
from api.http.request_body import Blueprint, read_body
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC
from shared.domain.lifecycle.simulation import SIMULATE
from shared.errors import BasketExists, BasketNotFound, RequestError, ValidationFailed
from shared.ids import BASKET_NAME


def blueprint(services: Services, known: KnownBaskets) -> Blueprint:
    """Answer the routes of agents and baskets."""
    blp = Blueprint("catalogue", __name__, description="Agents, and baskets made of them")

    @blp.route("/agents")
    def agents() -> flask.Response:
        """List the agents' specs, of one domain where ``?domain=`` names it."""
        specs = services.catalogue.agents(query_params.text("domain"))
        return flask.jsonify([spec.to_json() for spec in specs])

    @blp.route("/agents/<name>")
    def agent(name: str) -> flask.Response:
        """Get one agent's spec."""
        return flask.jsonify(services.catalogue.agent(name).to_json())

    @blp.route("/baskets")
    def baskets() -> flask.Response:
        """List the baskets by name."""
        found = [_shown(definition) for definition in services.baskets.all(PUBLIC)]
        return flask.jsonify(baskets=found, count=len(found))

    @blp.route("/baskets/<name>")
    def basket(name: str) -> flask.Response:
        """Get one basket."""
        return flask.jsonify(_shown(services.baskets.get(PUBLIC, _known_name(name))))

    @blp.route("/create-basket", methods=["POST"])
    @blp.arguments(NewBasket())
    def create_basket(body: Mapping[str, Any]) -> tuple[flask.Response, int]:
        """Create a basket under a name that is free."""
        warnings = warnings_of_definition(read_body(request), NEW_BASKET_KEYS)
        _check_not_reserved(body["name"], BasketExists)
        definition = check_definition(body)
        check_agents_exist(definition, services.catalogue)
        basket_of(definition, services.catalogue)  # a graph that cannot run is refused now, and not when it is run
        services.baskets.add(PUBLIC, definition, services.clock.now())
        told = {"success": True, "message": f"basket {body['name']!r} created", "basket": _shown(definition)}
        return flask.jsonify(told | ({"warnings": warnings} if warnings else {})), 201

    @blp.route("/baskets/<name>", methods=["DELETE"])
    def delete_basket(name: str) -> flask.Response:
        """Delete a basket; its past executions stay readable."""
        _check_not_reserved(name, ValidationFailed)
        try:
            services.baskets.remove(PUBLIC, _known_name(name), services.clock.now())
        finally:  # also after an error: if the answer of MongoDB was lost, the basket may be deleted
            known.forget(name)
        summary = {"baskets_deleted": 1, "executions_deleted": 0}
        return flask.jsonify(
            success=True,
            message=f"basket {name!r} deleted; its executions stay readable",
            cleanup_summary=summary,
        )

    return blp


def _known_name(name: str) -> str:
    if not BASKET_NAME.fullmatch(name):
        raise BasketNotFound(f"basket {name[:100]!r} was not found: no basket can have this name")
    return name


def _check_not_reserved(name: str, refusal: type[RequestError]) -> None:
    if name == SIMULATE:
        raise refusal(f"the basket {name!r} is reserved for the simulator: it is neither replaced nor deleted")


def _shown(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {**definition, "basket_name": definition["name"]}
