"""Named consumers of the feed (durable subscriptions): Bucket keeps the cursor of each, so none misses a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import flask

from api.feed import cursors
from api.feed.changes import NOW, FeedHandler
from api.http.body_policy import unknown_key_warnings
from api.http.cache_control import private_no_cache
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.errors import ConsumerNotFound, ValidationFailed
from shared.ids import CONSUMER_NAME_PATTERN
from shared.store.feed.consumer_store import FeedConsumer
from shared.timestamps import format_rfc3339

_PUT_KEYS: Final = ("since",)
_NAME_RULE: Final = "must be 1 to 100 letters, digits or any of _ . -, and begin with a letter or digit"


class ConsumerHandler:
    """Replies to the requests of named consumers."""

    def __init__(self, services: Services, feed: FeedHandler) -> None:
        self._services = services
        self._feed = feed

    def remove(self, name: str) -> flask.Response:
        """Forget a consumer; raises ConsumerNotFound."""
        self._services.consumers.remove(PUBLIC_INTEGRATOR, name)
        return private_no_cache(flask.jsonify(success=True, message=f"consumer {name!r} deleted", consumer=name))

    def changes(self, name: str) -> flask.Response:
        """Return the page of changes after the cursor that this consumer has acknowledged; reading does not move it."""
        return self._feed.respond(self._services.consumers.get(PUBLIC_INTEGRATOR, name).position)

    def respond_with_list(self) -> flask.Response:
        """Return all consumers, each with its lag in seconds (None if its cursor has expired)."""
        consumers = self._services.consumers.all(PUBLIC_INTEGRATOR)
        positions = [consumer.position for consumer in consumers]
        lags = self._services.feed_reader.lags_s(positions, self._services.clock.now())
        views = [
            _consumer_view(consumer) | {"lag_s": lag_s, "expired": lag_s is None}
            for consumer, lag_s in zip(consumers, lags, strict=True)
        ]
        return private_no_cache(flask.jsonify(consumers=views, count=len(views)))

    def put(self, name: str, body: Mapping[str, Any]) -> flask.Response:
        """Return the consumer of this name, or make one (201)."""
        since = body.get("since")
        if since is not None and not isinstance(since, str):
            fault = {"pointer": "/since", "message": "must be a cursor, or now"}
            raise ValidationFailed(f"since {fault['message']}", details=[fault])
        if since not in {None, NOW}:
            cursors.decode(since, parameter="since")  # a faulty cursor is refused for an existing consumer too
        try:
            consumer, is_new = self._services.consumers.get(PUBLIC_INTEGRATOR, name), False
        except ConsumerNotFound:
            start = self._feed.resolve_readable_since(since if since is not None else NOW)
            consumer, is_new = self._services.consumers.add(PUBLIC_INTEGRATOR, name, start)
        response = _consumer_response(consumer, unknown_key_warnings(body, _PUT_KEYS))
        response.status_code = 201 if is_new else 200
        return response

    def ack(self, name: str, cursor: str, warnings: Sequence[str]) -> flask.Response:
        """Move the cursor of a consumer forward, and return the consumer."""
        self._services.consumers.get(PUBLIC_INTEGRATOR, name)  # a missing consumer is reported before a faulty cursor
        position = cursors.decode(cursor, parameter="cursor")
        end = self._services.feed_reader.require_reached(position)
        return _consumer_response(self._services.consumers.ack(PUBLIC_INTEGRATOR, name, position, end), warnings)


def check_name(name: str) -> str:
    """Return ``name`` if a consumer may have it; raises ValidationFailed if not."""
    if not CONSUMER_NAME_PATTERN.fullmatch(name):
        fault = {"parameter": "name", "message": _NAME_RULE}
        raise ValidationFailed(f"the name of a consumer {_NAME_RULE}", details=[fault])
    return name


def existing_name(name: str) -> str:
    """Return ``name`` if it may exist; raises ConsumerNotFound if it cannot, so that it never reaches the store."""
    if not CONSUMER_NAME_PATTERN.fullmatch(name):
        raise ConsumerNotFound(f"consumer {name[:100]!r} was not found: the name of a consumer {_NAME_RULE}")
    return name


def _consumer_view(consumer: FeedConsumer) -> dict[str, Any]:
    return {
        "consumer": consumer.name,
        "cursor": cursors.encode(consumer.position),
        "created_at": format_rfc3339(consumer.created_at),
        "acked_at": format_rfc3339(consumer.acked_at),
    }


def _consumer_response(consumer: FeedConsumer, warnings: Sequence[str]) -> flask.Response:
    return private_no_cache(flask.jsonify(_consumer_view(consumer) | ({"warnings": warnings} if warnings else {})))
