"""The routes of integrations: request, correct, review, approve, tick off, activate and suspend them."""

from __future__ import annotations

from contextlib import suppress

import flask
from flask import request

from api.auth.audit_note import has_note, record_object
from api.auth.current_caller import current_caller
from api.http import query_params
from api.http.cache_control import private_no_cache
from api.http.cursor_codec import CursorKind, decode_cursor, encode_cursor
from api.http.request_body import Blueprint, LoadedBody, load_body, read_body
from api.integrations.integration_service import IntegrationService
from api.integrations.integration_views import audited_compliance, audited_integration, audited_move
from api.integrations.schemas import (
    MoveCommentSchema,
    NewIntegrationSchema,
    ReasonSchema,
    check_ticks,
    integration_details,
)
from shared.domain.access.integration import IntegrationAction, IntegrationStatus
from shared.errors import CursorInvalid


def blueprint(service: IntegrationService) -> Blueprint:
    """Return the routes of the register of integrations."""
    blp = Blueprint("integrations", __name__, description="Which systems may submit, and what was checked of each")

    @blp.route("/integrations", methods=["POST"])
    @blp.arguments(NewIntegrationSchema())
    def request_integration(body: LoadedBody) -> tuple[flask.Response, int]:
        """Request an integration; it may submit once it was reviewed, approved and activated."""
        view = service.request(integration_details(body), current_caller().subject)
        record_object(view["id"], integrator=view["name"], after=audited_integration(view))
        return flask.jsonify(view), 201

    @blp.route("/integrations")
    def integrations() -> flask.Response:
        """List the integrations by name, with ``?status=`` only those in one of these statuses."""
        query_params.check_known("limit", "cursor", "status")
        limit, cursor = query_params.limit(), query_params.text("cursor")
        statuses = query_params.enum_values("status", IntegrationStatus)
        found = service.list_page(limit + 1, None if cursor is None else _decode(cursor), statuses)
        next_cursor = encode_cursor(CursorKind.INTEGRATIONS, found[limit - 1]["name"]) if len(found) > limit else None
        return private_no_cache(flask.jsonify(integrations=found[:limit], next_cursor=next_cursor))

    @blp.route("/integrations/<integration_id>")
    def integration(integration_id: str) -> flask.Response:
        """Get one integration, with its moves."""
        return private_no_cache(flask.jsonify(service.get(integration_id)))

    @blp.route("/integrations/<integration_id>", methods=["PUT"])
    @blp.arguments(NewIntegrationSchema())
    def correct_integration(body: LoadedBody, integration_id: str) -> flask.Response:
        """Replace what the request of an integration says, as long as it is not in review."""
        if has_note():
            found = service.get(integration_id)
            record_object(integrator=found["name"], before=audited_integration(found))
        view = service.correct(integration_id, integration_details(body), current_caller().subject)
        record_object(integrator=view["name"], after=audited_integration(view))
        return flask.jsonify(view)

    @blp.route("/integrations/<integration_id>/checklist", methods=["PUT"])
    def tick_checklist(integration_id: str) -> flask.Response:
        """Tick off items of the checklists, or open them again."""
        done_by_item = check_ticks(read_body(request))
        if has_note():
            record_object(
                integrator=service.get(integration_id)["name"],
                before=audited_compliance(service.compliance(integration_id)),
            )
        view = service.tick(integration_id, done_by_item, current_caller().subject)
        record_object(after=audited_compliance(view))
        return flask.jsonify(view)

    @blp.route("/integrations/<integration_id>/compliance")
    def compliance(integration_id: str) -> flask.Response:
        """Get how far the checklists of an integration are, and who ticked off what."""
        return private_no_cache(flask.jsonify(service.compliance(integration_id)))

    _add_moves(blp, service)
    return blp


def _add_moves(blp: Blueprint, service: IntegrationService) -> None:
    def move(integration_id: str, action: IntegrationAction, comment: str | None) -> flask.Response:
        if has_note():
            found = service.get(integration_id)
            record_object(integrator=found["name"], before=audited_move(found))
        view = service.move(integration_id, action, current_caller().subject, comment)
        record_object(after=audited_move(view))
        return flask.jsonify(view)

    def optional_comment() -> str | None:
        comment: str | None = load_body(MoveCommentSchema(), read_body(request, optional=True)).get("comment")
        return comment

    @blp.route("/integrations/<integration_id>/review", methods=["POST"])
    def review_integration(integration_id: str) -> flask.Response:
        """Begin the review of an integration."""
        return move(integration_id, IntegrationAction.REVIEW, optional_comment())

    @blp.route("/integrations/<integration_id>/approve", methods=["POST"])
    def approve_integration(integration_id: str) -> flask.Response:
        """End the review of an integration: it may be activated."""
        return move(integration_id, IntegrationAction.APPROVE, optional_comment())

    @blp.route("/integrations/<integration_id>/request-changes", methods=["POST"])
    @blp.arguments(ReasonSchema())
    def request_changes(body: LoadedBody, integration_id: str) -> flask.Response:
        """End the review of an integration: the comment says what has to change first."""
        return move(integration_id, IntegrationAction.REQUEST_CHANGES, body["comment"])

    @blp.route("/integrations/<integration_id>/activate", methods=["POST"])
    def activate_integration(integration_id: str) -> flask.Response:
        """Let an integration submit; the first activation returns its key, which no other reply shows."""
        return move(integration_id, IntegrationAction.ACTIVATE, optional_comment())

    @blp.route("/integrations/<integration_id>/suspend", methods=["POST"])
    def suspend_integration(integration_id: str) -> flask.Response:
        """Stop the submits of an integration, within two seconds everywhere; its polls go on."""
        return move(integration_id, IntegrationAction.SUSPEND, optional_comment())


def _decode(cursor: str) -> str:
    with suppress(ValueError):
        return decode_cursor(CursorKind.INTEGRATIONS, cursor)
    raise CursorInvalid(f"cursor={cursor[:64]!r} was not made by Bucket; pass a next_cursor back, or leave it out")
