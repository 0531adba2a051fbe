"""GET /me, and the routes of keys: make, list, rotate and revoke them."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import flask
from flask import request

from api.auth.audit_note import record_object
from api.auth.current_caller import current_caller
from api.auth.key_service import KeyService, without_key
from api.auth.schemas import NewKeySchema, RotationSchema, key_request
from api.http import query_params
from api.http.cache_control import private_no_cache
from api.http.cursor_codec import CursorKind, decode_cursor, encode_cursor
from api.http.request_body import Blueprint, LoadedBody, load_body, read_body
from shared.bootstrap import Services
from shared.domain.access.key_format import KEY_ID_PATTERN
from shared.errors import CursorInvalid, KeyNotFound
from shared.timestamps import format_rfc3339


def blueprint(services: Services, key_service: KeyService) -> Blueprint:
    """Return the routes of the caller itself and of keys."""
    blp = Blueprint("keys", __name__, description="Keys, and who calls with one")

    @blp.route("/keys")
    def keys() -> flask.Response:
        """List the keys, in the order of their ids; no reply ever shows a key again."""
        query_params.check_known("limit", "cursor")
        limit, cursor = query_params.limit(), query_params.text("cursor")
        found = services.keys.list_page(limit + 1, None if cursor is None else _decode(cursor))
        next_cursor = encode_cursor(CursorKind.KEYS, found[limit - 1].id) if len(found) > limit else None
        views = [key_service.view(key) for key in found[:limit]]
        return private_no_cache(flask.jsonify(keys=views, next_cursor=next_cursor))

    @blp.route("/keys", methods=["POST"])
    @blp.arguments(NewKeySchema())
    def create_key(body: LoadedBody) -> tuple[flask.Response, int]:
        """Make a key; this reply is the only one that shows it."""
        view = key_service.create(key_request(body), current_caller().subject)
        record_object(view["id"], integrator=view["integrator"], after=without_key(view))
        return flask.jsonify(view), 201

    @blp.route("/keys/<key_id>")
    def key(key_id: str) -> flask.Response:
        """Get one key's record."""
        return private_no_cache(flask.jsonify(key_service.get(_checked_id(key_id))))

    @blp.route("/keys/<key_id>/rotate", methods=["POST"])
    def rotate_key(key_id: str) -> tuple[flask.Response, int]:
        """Replace a key by a new one that permits the same; the old one stays valid for ``grace_s``."""
        body = load_body(RotationSchema(), read_body(request, optional=True))
        grace = timedelta(seconds=body["grace_s"])
        before = key_service.get(_checked_id(key_id))
        record_object(integrator=before["integrator"], before=before)
        view = key_service.rotate(key_id, grace, current_caller().subject)
        record_object(after=without_key(view))
        return flask.jsonify(view), 201

    @blp.route("/keys/<key_id>", methods=["DELETE"])
    def revoke_key(key_id: str) -> flask.Response:
        """Revoke a key for good: this process refuses it at once, every other within two seconds."""
        before = key_service.get(_checked_id(key_id))
        record_object(integrator=before["integrator"], before=before)
        view = key_service.revoke(key_id)
        record_object(after=view)
        return flask.jsonify(success=True, message=f"key {key_id} revoked", key=view)

    _add_me(blp)
    return blp


def _add_me(blp: Blueprint) -> None:
    @blp.route("/me")
    def me() -> flask.Response:
        """Get who calls: its role, its integrator, and what it may run."""
        caller = current_caller()
        return private_no_cache(
            flask.jsonify(
                key_id=caller.key_id,
                subject=caller.subject,
                role=str(caller.role),
                integrator=caller.integrator,
                baskets=None if caller.baskets is None else sorted(caller.baskets),
                payloads=caller.sees_payloads,
                expires_at=format_rfc3339(caller.expires_at),
            )
        )


def _checked_id(key_id: str) -> str:
    """Return ``key_id`` if it may be one; raises KeyNotFound, without the text if that may be a whole key."""
    if not KEY_ID_PATTERN.fullmatch(key_id):
        raise KeyNotFound("this is no id of a key: it has 12 letters and digits; GET /keys lists those there are")
    return key_id


def _decode(cursor: str) -> str:
    with suppress(ValueError):
        return decode_cursor(CursorKind.KEYS, cursor)
    raise CursorInvalid(f"cursor={cursor[:64]!r} was not made by Bucket; pass a next_cursor back, or leave it out")
