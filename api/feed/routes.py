"""GET /executions/changes and /consumers: the change feed, with a cursor of the caller's or of a named consumer.

Bucket keeps the cursor of each consumer (a durable subscription), so that none misses a change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import flask
from flask import request
from marshmallow import fields

from api.auth.current_caller import current_caller
from api.auth.requested_scope import INTEGRATOR_PARAMETER, requested_owner, requested_scope
from api.feed import cursors
from api.feed.changes import NOW, PAGE_PARAMETERS, FeedHandler
from api.http import query_params
from api.http.cache_control import private_no_cache
from api.http.request_body import Blueprint, LoadedBody, load_optional_body
from api.http.schema_fields import BodySchema
from shared.bootstrap import Services
from shared.domain.access.caller import Scope
from shared.errors import ConsumerNotFound, ValidationFailed
from shared.ids import CONSUMER_NAME_PATTERN
from shared.store.feed.consumer_store import FeedConsumer
from shared.timestamps import format_rfc3339

_NAME_RULE: Final = "must be 1 to 100 letters, digits or any of _ . -, and begin with a letter or digit"


class AckSchema(BodySchema):
    """The body of POST /consumers/{name}/ack."""

    cursor = fields.Str(required=True, error_messages={"required": "is required: the next_since of a page"})


def blueprint(feed: FeedHandler) -> Blueprint:
    """Return the route of the feed."""
    blp = Blueprint("feed", __name__, description="The changes of all executions, in one poll")

    @blp.route("/executions/changes")
    def changes() -> flask.Response:
        """Get the changes since a cursor: each execution in its current state, in the order of the changes."""
        query_params.check_known("since", *PAGE_PARAMETERS)
        since = query_params.text("since")
        return feed.respond(current_caller(), None if since is None else feed.resolve(since))

    return blp


def consumers_blueprint(services: Services, feed: FeedHandler) -> Blueprint:
    """Return the routes of named consumers."""
    blp = Blueprint("consumers", __name__, description="Named readers of the feed, whose cursors Bucket keeps")
    consumers = services.consumers

    @blp.route("/consumers")
    def all_consumers() -> flask.Response:
        """List the consumers by name, with the age of the oldest change that each has not acknowledged."""
        query_params.check_known(INTEGRATOR_PARAMETER)
        scope = requested_scope(current_caller())
        found = consumers.all(scope)
        lags = services.feed_reader.lags_s([consumer.position for consumer in found], services.clock.now())
        views = [
            _consumer_view(consumer, scope) | {"lag_s": lag_s, "expired": lag_s is None}
            for consumer, lag_s in zip(found, lags, strict=True)
        ]
        return private_no_cache(flask.jsonify(consumers=views, count=len(views)))

    @blp.route("/consumers/<name>", methods=["PUT"])
    def put_consumer(name: str) -> flask.Response:
        """Create a consumer that starts at now, or at ``since``; an existing one is not changed."""
        if not CONSUMER_NAME_PATTERN.fullmatch(name):
            fault = {"parameter": "name", "message": _NAME_RULE}
            raise ValidationFailed(f"the name of a consumer {_NAME_RULE}", details=[fault])
        body = load_optional_body(request, ("since",))
        since, owner = _parse_since(body), requested_owner(current_caller())
        try:
            consumer, is_new = consumers.get(owner, name), False
        except ConsumerNotFound:
            consumer, is_new = consumers.add(owner, name, feed.resolve_readable(owner, since))
        response = _consumer_response(consumer, body.warnings)
        response.status_code = 201 if is_new else 200
        return response

    @blp.route("/consumers/<name>", methods=["DELETE"])
    def delete_consumer(name: str) -> flask.Response:
        """Delete a consumer."""
        consumers.remove(requested_owner(current_caller()), _existing_name(name))
        return private_no_cache(flask.jsonify(success=True, message=f"consumer {name!r} deleted", consumer=name))

    @blp.route("/consumers/<name>/changes")
    def consumer_changes(name: str) -> flask.Response:
        """Get the changes since the cursor that this consumer has acknowledged; reading does not move it."""
        query_params.check_known(*PAGE_PARAMETERS)
        caller = current_caller()
        return feed.respond(caller, consumers.get(requested_owner(caller), _existing_name(name)).position)

    @blp.route("/consumers/<name>/ack", methods=["POST"])
    @blp.arguments(AckSchema())
    def ack(body: LoadedBody, name: str) -> flask.Response:
        """Acknowledge all changes before ``cursor``, a page's ``next_since``; an older cursor has no effect."""
        owner = requested_owner(current_caller())
        consumers.get(owner, _existing_name(name))  # a missing one is reported before a faulty cursor
        position = cursors.decode(body["cursor"], parameter="cursor")
        consumer = consumers.ack(owner, name, position, feed.require_reached(position))
        return _consumer_response(consumer, body.warnings)

    return blp


def _parse_since(body: Mapping[str, Any]) -> str:
    """Return where a new consumer begins; a faulty cursor is refused for an existing consumer too."""
    since = body.get("since")
    if since is None:
        return NOW
    if not isinstance(since, str):
        fault = {"pointer": "/since", "message": "must be a cursor, or now"}
        raise ValidationFailed(f"since {fault['message']}", details=[fault])
    if since != NOW:
        cursors.decode(since, parameter="since")
    return since


def _existing_name(name: str) -> str:
    """Return ``name`` if it may exist; raises ConsumerNotFound if it cannot, so that it never reaches the store."""
    if not CONSUMER_NAME_PATTERN.fullmatch(name):
        raise ConsumerNotFound(f"consumer {name[:100]!r} was not found: the name of a consumer {_NAME_RULE}")
    return name


def _consumer_view(consumer: FeedConsumer, scope: Scope = "") -> dict[str, Any]:
    """Return what a reply shows of a consumer; if the list is of every integrator, also whose it is."""
    owner = {"integrator": consumer.integrator} if scope is None else {}
    return owner | {
        "consumer": consumer.name,
        "cursor": cursors.encode(consumer.position),
        "created_at": format_rfc3339(consumer.created_at),
        "acked_at": format_rfc3339(consumer.acked_at),
    }


def _consumer_response(consumer: FeedConsumer, warnings: Sequence[str]) -> flask.Response:
    return private_no_cache(flask.jsonify(_consumer_view(consumer) | ({"warnings": warnings} if warnings else {})))
