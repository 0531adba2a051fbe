"""Routes of the catalogue: list agents; list, create and delete baskets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import flask

from api.auth.audit_note import has_note, record_object
from api.auth.current_caller import current_caller
from api.auth.requested_scope import INTEGRATOR_PARAMETER, basket_owner, requested_owner, requested_scope
from api.catalogue.agent_views import AgentViews
from api.catalogue.availability import AgentAvailability
from api.catalogue.basket_cache import BasketCache
from api.catalogue.basket_definition import check_basket_name, parse_basket, validate_definition
from api.catalogue.basket_views import BasketViews
from api.catalogue.schemas import NewBasketSchema
from api.http import query_params
from api.http.request_body import Blueprint, LoadedBody
from shared.bootstrap import Services
from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.domain.access.caller import Caller, Permission
from shared.domain.lifecycle.simulator_script import SIMULATE_AGENT_NAME
from shared.errors import (
    AgentUnavailable,
    BasketExists,
    BasketNotFound,
    Forbidden,
    RequestError,
    UnknownAgent,
    ValidationFailed,
)
from shared.store.basket_store import StoredBasket

_CLEANUP_SUMMARY: Final = {"baskets_deleted": 1, "executions_deleted": 0}


def blueprint(
    services: Services, basket_cache: BasketCache, availability: AgentAvailability, agent_views: AgentViews
) -> Blueprint:
    """Build the blueprint with the routes of agents and baskets."""
    blp = Blueprint("catalogue", __name__, description="Agents, and baskets made of them")
    views = BasketViews(services, availability)

    @blp.route("/baskets")
    def baskets() -> flask.Response:
        """List the baskets by name: the shared ones, and the caller's own."""
        query_params.check_known(INTEGRATOR_PARAMETER)
        caller = current_caller()
        found = [views.stored(each, caller) for each in services.baskets.all(requested_scope(caller))]
        return flask.jsonify(baskets=found, count=len(found))

    @blp.route("/baskets/<name>")
    def basket(name: str) -> flask.Response:
        """Get one basket."""
        caller = current_caller()
        return flask.jsonify(
            views.stored(services.baskets.get(requested_owner(caller), check_basket_name(name)), caller)
        )

    @blp.route("/create-basket", methods=["POST"])
    @blp.arguments(NewBasketSchema())
    def create_basket(body: LoadedBody) -> tuple[flask.Response, int]:
        """Create a basket under a name that is not in use."""
        caller = current_caller()
        owner = basket_owner(caller)
        _check_not_reserved(body["name"], BasketExists)
        definition = validate_definition(body)
        _check_can_run(definition, services.catalogue)
        record_object(body["name"], integrator=owner, after=definition)
        services.baskets.add(owner, definition, services.clock.now())
        view, message = views.new(StoredBasket(owner, definition), caller), f"basket {body['name']!r} created"
        return flask.jsonify(success=True, message=message, basket=view), 201

    @blp.route("/baskets/<name>", methods=["DELETE"])
    def delete_basket(name: str) -> flask.Response:
        """Delete a basket; its past executions stay readable."""
        _check_not_reserved(name, ValidationFailed)
        if has_note():
            found = services.baskets.get(basket_owner(current_caller()), check_basket_name(name))
            record_object(integrator=found.integrator, before=found.definition)
        try:
            _remove_basket(services, current_caller(), check_basket_name(name))
        finally:  # also after an error: if MongoDB's reply was lost, the basket may be deleted
            basket_cache.forget(name)
        message = f"basket {name!r} deleted; its executions stay readable"
        return flask.jsonify(success=True, message=message, cleanup_summary=_CLEANUP_SUMMARY)

    _add_agents(blp, agent_views)
    return blp


def _add_agents(blp: Blueprint, agent_views: AgentViews) -> None:
    @blp.route("/agents")
    def agents() -> flask.Response:
        """List the agents; with ``?domain=`` only those of one domain."""
        query_params.check_known("domain")
        return flask.jsonify(agent_views.list_all(query_params.text("domain")))

    @blp.route("/agents/<name>")
    def agent(name: str) -> flask.Response:
        """Get one agent."""
        return flask.jsonify(agent_views.one(name))


def _remove_basket(services: Services, caller: Caller, name: str) -> None:
    """Remove a basket that the caller may write; raises Forbidden if only a shared one has the name."""
    owner = basket_owner(caller)
    try:
        services.baskets.remove(owner, name, services.clock.now())
    except BasketNotFound:
        if caller.may(Permission.ADMINISTER):
            raise
        services.baskets.get(owner, name)  # raises BasketNotFound if there is no shared one either
        raise Forbidden(
            f"the basket {name!r} is shared by every integrator; deleting it needs the role admin"
        ) from None


def _check_can_run(definition: Mapping[str, Any], catalogue: AgentCatalogue) -> None:
    """Refuse a graph that can never run now, not when it is run; an agent that is unavailable may come back."""
    with suppress(AgentUnavailable):
        parse_basket(definition, catalogue, missing_agent=UnknownAgent)


def _check_not_reserved(name: str, refusal: type[RequestError]) -> None:
    if name == SIMULATE_AGENT_NAME:
        raise refusal(f"the basket {name!r} is reserved for the simulator: it is neither replaced nor deleted")
