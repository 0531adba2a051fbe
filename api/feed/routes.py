"""GET /executions/changes and /consumers: the change feed, with a cursor of the caller's or of a named consumer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import flask
from flask import request

from api.feed.changes import FeedHandler
from api.feed.consumers import ConsumerHandler, check_name, existing_name
from api.feed.schemas import AckSchema
from api.http import query_params
from api.http.body_policy import unknown_key_warnings
from api.http.request_body import Blueprint, read_body

_ACK_KEYS: Final = ("cursor",)


def blueprint(feed: FeedHandler) -> Blueprint:
    """Return the route of the feed."""
    blp = Blueprint("feed", __name__, description="What changed, in one poll")

    @blp.route("/executions/changes")
    def changes() -> flask.Response:
        """Get what changed since a cursor: each execution as it stands by now, in the order of its changes."""
        return feed.respond(feed.resolve_since(query_params.text("since")))

    return blp


def consumers_blueprint(consumers: ConsumerHandler) -> Blueprint:
    """Return the routes of named consumers."""
    blp = Blueprint("consumers", __name__, description="The feed with a cursor that Bucket keeps")

    @blp.route("/consumers")
    def all_consumers() -> flask.Response:
        """List the consumers by name, and how long the oldest change waits that each has not acknowledged."""
        return consumers.respond_with_list()

    @blp.route("/consumers/<name>", methods=["PUT"])
    def put_consumer(name: str) -> flask.Response:
        """Make a consumer that begins at now, or at ``since``; a known one is left as it is."""
        return consumers.put(check_name(name), read_body(request, optional=True))

    @blp.route("/consumers/<name>", methods=["DELETE"])
    def delete_consumer(name: str) -> flask.Response:
        """Forget a consumer."""
        return consumers.remove(existing_name(name))

    @blp.route("/consumers/<name>/changes")
    def consumer_changes(name: str) -> flask.Response:
        """Get what changed since the cursor that this consumer has acknowledged; reading does not move it."""
        return consumers.changes(existing_name(name))

    @blp.route("/consumers/<name>/ack", methods=["POST"])
    @blp.arguments(AckSchema())
    def ack(body: Mapping[str, Any], name: str) -> flask.Response:
        """Acknowledge all before ``cursor``, a page's ``next_since``; an older one than the last changes nothing."""
        return consumers.ack(existing_name(name), body["cursor"], unknown_key_warnings(read_body(request), _ACK_KEYS))

    return blp
