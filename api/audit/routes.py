"""GET /audit: the audit log in the order of its events, page by page from a cursor that stays valid for ever."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import flask

from api.audit.audited_routes import ACTIONS, SUBJECT_KINDS
from api.auth.current_caller import current_caller
from api.http import query_params
from api.http.cache_control import private_no_cache
from api.http.cursor_codec import CursorKind, decode_cursor, encode_cursor
from api.http.request_body import Blueprint
from shared.bootstrap import Services
from shared.domain.access.audit_event import event_view
from shared.errors import CursorInvalid
from shared.store.access.audit_store import AuditQuery
from shared.suggestions import closest_matches

_SEQUENCED_BATCHES_MAX: Final = 4
_EVERY_OF_ENTITY: Final = ".*"


def blueprint(services: Services) -> Blueprint:
    """Return the route of the audit log."""
    blp = Blueprint("audit", __name__, description="Who did what")

    @blp.route("/audit")
    def audit() -> flask.Response:
        """Get the events after a cursor, oldest first: an auditor its integrator's, an admin all."""
        query_params.check_known("since", "action", "subject", "limit")
        limit, since = query_params.limit(), query_params.text("since")
        after = 0 if since is None else decode_since(since)
        query = AuditQuery(current_caller().scope, _actions(), _subject())
        services.audit_sequencer.sequence(services.clock.now(), _SEQUENCED_BATCHES_MAX)
        page = services.audit.read_page(query, after, limit)
        if after > page.end.seq:
            raise CursorInvalid(
                "since is newer than the audit log, which was perhaps restored from a backup; begin anew without it"
            )
        views = [event_view(each.seq, each.event) for each in page.events]
        return private_no_cache(flask.jsonify(events=views, next_since=encode_since(page.next_seq)))

    return blp


def encode_since(seq: int) -> str:
    """Return the cursor of the place after the event ``seq``."""
    return encode_cursor(CursorKind.AUDIT, str(seq))


def decode_since(since: str) -> int:
    """Return the number of the event before the place of the cursor; raises CursorInvalid."""
    with suppress(ValueError):
        return int(decode_cursor(CursorKind.AUDIT, since))
    raise CursorInvalid(f"since={since[:64]!r} was not made by Bucket; pass a next_since back, or leave it out")


def _actions() -> Sequence[str] | None:
    """Return the actions of the parameter ``action``: one, several with commas, or all of an entity (``key.*``)."""
    text = query_params.text("action")
    if text is None:
        return None
    found: list[str] = []
    for name in map(str.strip, text.split(",")):
        entity = name.removesuffix(_EVERY_OF_ENTITY) + "."
        is_entity = name.endswith(_EVERY_OF_ENTITY)
        matching = [action for action in ACTIONS if (action.startswith(entity) if is_entity else action == name)]
        if not matching:
            near = closest_matches(name, ACTIONS)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ACTIONS)}"
            query_params.raise_invalid("action", f"{name[:64]!r} is not known; {hint}")
        found += matching
    return found


def _subject() -> str | None:
    """Return the parameter ``subject``; one without its kind, such as a bare id, would find nothing for ever."""
    text = query_params.text("subject")
    if text is not None and not text.startswith(SUBJECT_KINDS):
        query_params.raise_invalid(
            "subject", f"{text[:64]!r} is no subject: they are key:ID, token:SUB, bucketd:USER, anonymous and several"
        )
    return text
