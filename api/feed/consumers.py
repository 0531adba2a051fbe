"""Named consumers of the feed: Bucket keeps how far each has come, so that one that was down misses nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import flask
from flask import request

from api.background import Keeper
from api.feed import cursors
from api.feed.changes import NOW, Feed
from api.http.body_policy import unknown_keys
from api.http.cache_control import polled
from api.http.request_body import Blueprint, read_body
from api.schemas import Ack
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC
from shared.errors import ConsumerNotFound, ValidationFailed
from shared.ids import CONSUMER_NAME
from shared.live.render import moment
from shared.store.feed.consumer_store import Consumer

_PUT_KEYS: Final = ("since",)
_ACK_KEYS: Final = ("cursor",)
_NAMES: Final = "must be 1 to 100 letters, digits or any of _ . -, and begin with a letter or digit"


def blueprint(services: Services, keeper: Keeper) -> Blueprint:
    """Answer the routes of consumers."""
    blp = Blueprint("consumers", __name__, description="The feed with a cursor that Bucket keeps")
    feed = Feed(services, keeper)
    consumers = Consumers(services, feed)

    @blp.route("/consumers")
    def all_consumers() -> flask.Response:
        """List the consumers by name, and how long the oldest change waits that each has not acknowledged."""
        return consumers.listed()

    @blp.route("/consumers/<name>", methods=["PUT"])
    def put_consumer(name: str) -> flask.Response:
        """Make a consumer that begins at now, or at ``since``; a known one is left as it is."""
        return consumers.put(_checked(name), read_body(request, optional=True))

    @blp.route("/consumers/<name>", methods=["DELETE"])
    def delete_consumer(name: str) -> flask.Response:
        """Forget a consumer."""
        services.consumers.remove(PUBLIC, _known(name))
        return polled(flask.jsonify(success=True, message=f"consumer {name!r} deleted", consumer=name))

    @blp.route("/consumers/<name>/changes")
    def consumer_changes(name: str) -> flask.Response:
        """Get what changed since the cursor that this consumer has acknowledged; reading does not move it."""
        return feed.answer(services.consumers.get(PUBLIC, _known(name)).place)

    @blp.route("/consumers/<name>/ack", methods=["POST"])
    @blp.arguments(Ack())
    def ack(body: Mapping[str, Any], name: str) -> flask.Response:
        """Acknowledge all before ``cursor``, a page's ``next_since``; an older one than the last changes nothing."""
        return consumers.ack(_known(name), body["cursor"], unknown_keys(read_body(request), _ACK_KEYS))

    return blp


class Consumers:
    """Answers what is asked of consumers."""

    def __init__(self, services: Services, feed: Feed) -> None:
        self._services = services
        self._feed = feed

    def listed(self) -> flask.Response:
        """Answer all consumers."""
        found = self._services.consumers.all(PUBLIC)
        places = [consumer.place for consumer in found]
        lags = self._services.feed.waiting_s(places, self._services.clock.now())
        shown = [
            _shown(each) | {"lag_s": lag_s, "expired": lag_s is None} for each, lag_s in zip(found, lags, strict=True)
        ]
        return polled(flask.jsonify(consumers=shown, count=len(shown)))

    def put(self, name: str, body: Mapping[str, Any]) -> flask.Response:
        """Answer the consumer of this name, a new one with 201."""
        since = body.get("since")
        if since is not None and not isinstance(since, str):
            fault = {"pointer": "/since", "message": "must be a cursor, or now"}
            raise ValidationFailed(f"since {fault['message']}", details=[fault])
        if since not in {None, NOW}:
            cursors.decode(since, told_in="since")  # made up, it is told to who has a known consumer too
        try:
            consumer, is_new = self._services.consumers.get(PUBLIC, name), False
        except ConsumerNotFound:
            start = self._feed.begin(since if since is not None else NOW)
            consumer, is_new = self._services.consumers.add(PUBLIC, name, start)
        answer = _answered(consumer, unknown_keys(body, _PUT_KEYS))
        answer.status_code = 201 if is_new else 200
        return answer

    def ack(self, name: str, cursor: str, warnings: Sequence[str]) -> flask.Response:
        """Move a consumer forward; answer where it stands."""
        self._services.consumers.get(PUBLIC, name)  # one that is not there is told before a faulty cursor
        place = cursors.decode(cursor, told_in="cursor")
        end = self._services.feed.reached(place)
        return _answered(self._services.consumers.ack(PUBLIC, name, place, end), warnings)


def _checked(name: str) -> str:
    """Answer a name that a consumer may have; raises ValidationFailed."""
    if not CONSUMER_NAME.fullmatch(name):
        fault = {"parameter": "name", "message": _NAMES}
        raise ValidationFailed(f"the name of a consumer {_NAMES}", details=[fault])
    return name


def _known(name: str) -> str:
    """Answer a name that may be known; raises ConsumerNotFound for what cannot be one: it never reaches the store."""
    if not CONSUMER_NAME.fullmatch(name):
        raise ConsumerNotFound(f"consumer {name[:100]!r} was not found: the name of a consumer {_NAMES}")
    return name


def _shown(consumer: Consumer) -> dict[str, Any]:
    return {
        "consumer": consumer.name,
        "cursor": cursors.encode(consumer.place),
        "created_at": moment(consumer.created_at),
        "acked_at": moment(consumer.acked_at),
    }


def _answered(consumer: Consumer, warnings: Sequence[str]) -> flask.Response:
    return polled(flask.jsonify(_shown(consumer) | ({"warnings": warnings} if warnings else {})))
