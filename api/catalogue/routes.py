"""Routes of the catalogue: list agents; list, create and delete baskets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import flask

from api.catalogue.agent_views import AgentViews
from api.catalogue.availability import AgentAvailability
from api.catalogue.basket_cache import BasketCache
from api.catalogue.basket_definition import (
    check_basket_name,
    find_stored_faults,
    parse_basket,
    validate_definition,
)
from api.catalogue.schemas import NewBasketSchema
from api.http import query_params
from api.http.audit_note import has_note, record_object
from api.http.request_body import Blueprint, LoadedBody
from shared.bootstrap import Services
from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.lifecycle.simulator_script import SIMULATE_AGENT_NAME
from shared.errors import AgentUnavailable, BasketExists, RequestError, UnknownAgent, ValidationFailed


def blueprint(
    services: Services, basket_cache: BasketCache, availability: AgentAvailability, agent_views: AgentViews
) -> Blueprint:
    """Build the blueprint with the routes of agents and baskets."""
    blp = Blueprint("catalogue", __name__, description="Agents, and baskets made of them")

    def stored_view(definition: Mapping[str, Any]) -> dict[str, Any]:
        faults = [*find_stored_faults(definition, services.catalogue), *availability.find_faults(definition)]
        return _basket_view(definition) | ({"faults": faults} if faults else {})

    @blp.route("/agents")
    def agents() -> flask.Response:
        """List the agents; with ``?domain=`` only those of one domain."""
        query_params.check_known("domain")
        return flask.jsonify(agent_views.list_all(query_params.text("domain")))

    @blp.route("/agents/<name>")
    def agent(name: str) -> flask.Response:
        """Get one agent."""
        return flask.jsonify(agent_views.one(name))

    @blp.route("/baskets")
    def baskets() -> flask.Response:
        """List the baskets by name."""
        query_params.check_known()
        views = [stored_view(definition) for definition in services.baskets.all(PUBLIC_INTEGRATOR)]
        return flask.jsonify(baskets=views, count=len(views))

    @blp.route("/baskets/<name>")
    def basket(name: str) -> flask.Response:
        """Get one basket."""
        return flask.jsonify(stored_view(services.baskets.get(PUBLIC_INTEGRATOR, check_basket_name(name))))

    @blp.route("/create-basket", methods=["POST"])
    @blp.arguments(NewBasketSchema())
    def create_basket(body: LoadedBody) -> tuple[flask.Response, int]:
        """Create a basket under a name that is not in use."""
        _check_not_reserved(body["name"], BasketExists)
        definition = validate_definition(body)
        _check_can_run(definition, services.catalogue)
        record_object(body["name"], after=definition)
        services.baskets.add(PUBLIC_INTEGRATOR, definition, services.clock.now())
        message = f"basket {body['name']!r} created"
        return flask.jsonify(success=True, message=message, basket=_basket_view(definition)), 201

    @blp.route("/baskets/<name>", methods=["DELETE"])
    def delete_basket(name: str) -> flask.Response:
        """Delete a basket; its past executions stay readable."""
        _check_not_reserved(name, ValidationFailed)
        if has_note():
            record_object(before=services.baskets.get(PUBLIC_INTEGRATOR, check_basket_name(name)))
        try:
            services.baskets.remove(PUBLIC_INTEGRATOR, check_basket_name(name), services.clock.now())
        finally:  # also after an error: if MongoDB's reply was lost, the basket may be deleted
            basket_cache.forget(name)
        return flask.jsonify(
            success=True,
            message=f"basket {name!r} deleted; its executions stay readable",
            cleanup_summary={"baskets_deleted": 1, "executions_deleted": 0},
        )

    return blp


def _check_can_run(definition: Mapping[str, Any], catalogue: AgentCatalogue) -> None:
    """Refuse a graph that can never run now, not when it is run; an agent that is unavailable may come back."""
    with suppress(AgentUnavailable):
        parse_basket(definition, catalogue, missing_agent=UnknownAgent)


def _check_not_reserved(name: str, refusal: type[RequestError]) -> None:
    if name == SIMULATE_AGENT_NAME:
        raise refusal(f"the basket {name!r} is reserved for the simulator: it is neither replaced nor deleted")


def _basket_view(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {**definition, "basket_name": definition["name"]}
