"""Dead letters: GET /dead-letters lists what failed for good; one is sent again by requeue, or left by dismiss."""

from __future__ import annotations

from typing import Any

import flask
import orjson
import structlog
from flask import request

from api.actions.retry import RetryHandler
from api.auth.audit_note import record_object
from api.auth.current_caller import current_caller
from api.auth.requested_scope import INTEGRATOR_PARAMETER, requested_scope
from api.http import list_cursors, query_params
from api.http.cache_control import private_no_cache
from api.http.cursor_codec import CursorKind
from api.http.request_body import Blueprint, load_optional_body
from api.polling.execution_reader import ExecutionReader
from api.submission.submission import read_submission
from shared.bootstrap import Services
from shared.domain.access.caller import Scope
from shared.domain.dead_letter import DeadLetter, DeadLetterKind, DeadLetterPosition, DeadLetterQuery
from shared.domain.lifecycle.rerun import RetryFrom
from shared.errors import AlreadyRequeued, BucketError, NotFound, NotRetryable
from shared.ids import EXECUTION_ID_PATTERN
from shared.timestamps import format_rfc3339


def blueprint(services: Services, reader: ExecutionReader, retrier: RetryHandler) -> Blueprint:
    """Return the routes of dead letters."""
    blp = Blueprint(
        "dead_letters", __name__, description="Runs and messages that failed for good, and how to requeue a run"
    )

    @blp.route("/dead-letters")
    def dead_letters() -> flask.Response:
        """List the dead letters that match the filters, the newest finished first; ``cursor`` is a ``next_cursor``."""
        query_params.check_known("error_code", "agent", "basket", "limit", "cursor", INTEGRATOR_PARAMETER)
        scope = requested_scope(current_caller())
        limit, cursor = query_params.limit(), query_params.text("cursor")
        filters = DeadLetterQuery(*map(query_params.text, ("error_code", "agent", "basket")))
        bound_to = b"" if filters == DeadLetterQuery() else orjson.dumps(filters)
        after = None
        if cursor is not None:
            after = DeadLetterPosition(*list_cursors.decode(CursorKind.DEAD_LETTERS, cursor, bound_to))
        letters = services.dead_letters.list_page(scope, limit + 1, after, filters)
        page, next_cursor = letters[:limit], None
        if len(letters) > limit:
            next_cursor = list_cursors.encode(CursorKind.DEAD_LETTERS, page[-1].finished_at, page[-1].id, bound_to)
        views = [_dead_letter_view(letter, scope) for letter in page]
        return private_no_cache(flask.jsonify(dead_letters=views, next_cursor=next_cursor))

    @blp.route("/dead-letters/<letter_id>/requeue", methods=["POST"])
    def requeue(letter_id: str) -> flask.Response:
        """Requeue a dead letter: create a new execution that continues at the step that failed."""
        body = load_optional_body(request, ())
        caller = current_caller()
        letter = _find(services, reader, caller.scope, letter_id)
        if letter.execution_id is None:
            raise NotRetryable(
                f"dead letter {letter.id} is a message that could not be read: nobody knows what it stood for, "
                "and the run it may have been for is offered again by itself"
            )
        submission = read_submission(caller, request, services.clock.now(), body)
        response = retrier.retry(
            submission, letter.execution_id, RetryFrom.FAILED, is_requeue=True, refusal=_requeue_refusal(letter)
        )
        try:
            services.dead_letters.remove_requeued(letter.integrator, letter.id)
        except BucketError as error:
            # The list leaves it out all the same, because the new run is there.
            structlog.get_logger().warning("a requeued dead letter keeps its flag", id=letter.id, reason=str(error))
        return response

    @blp.route("/dead-letters/<letter_id>/dismiss", methods=["POST"])
    def dismiss(letter_id: str) -> flask.Response:
        """Dismiss a dead letter: it leaves the list, and its run stays as it is."""
        load_optional_body(request, ())
        scope = current_caller().scope
        letter = _dismiss(services, reader, scope, letter_id)
        view = _dead_letter_view(letter, scope) | {"dismissed_at": format_rfc3339(letter.dismissed_at)}
        return private_no_cache(flask.jsonify(view))

    return blp


def _find(services: Services, reader: ExecutionReader, scope: Scope, letter_id: str) -> DeadLetter:
    """Return a dead letter, also one that has left the list; raises NotFound and ExecutionExpired."""
    letter = services.dead_letters.find(scope, letter_id)
    if letter is None:
        if EXECUTION_ID_PATTERN.fullmatch(letter_id):
            reader.check_not_expired(letter_id)
        raise NotFound(f"dead letter {letter_id[:64]!r} was not found; GET /dead-letters lists those there are")
    return letter


def _dismiss(services: Services, reader: ExecutionReader, scope: Scope, letter_id: str) -> DeadLetter:
    """Dismiss a letter, if it was not dismissed before, and return it; raises AlreadyRequeued."""
    letter = _find(services, reader, scope, letter_id)
    record_object(integrator=letter.integrator)
    while letter.dismissed_at is None:
        if letter.requeued_as is not None:
            raise AlreadyRequeued(requeued_as=letter.requeued_as)
        services.dead_letters.dismiss(letter)
        letter = _find(services, reader, scope, letter_id)
    return letter


def _requeue_refusal(letter: DeadLetter) -> BucketError | None:
    if letter.requeued_as is not None:
        return AlreadyRequeued(requeued_as=letter.requeued_as)
    if letter.dismissed_at is not None:
        return NotRetryable(
            f"dead letter {letter.id} was dismissed; POST /executions/{letter.id}/retry runs it again all the same"
        )
    return None


def _dead_letter_view(letter: DeadLetter, scope: Scope) -> dict[str, Any]:
    """Return what the list shows of a dead letter; if it is of every integrator, also whose it is."""
    view: dict[str, Any] = {
        "id": letter.id,
        "kind": letter.kind,
        "execution_id": letter.execution_id,
        "basket_name": letter.basket_name,
        "error": letter.error,
        "finished_at": format_rfc3339(letter.finished_at),
        "retried_as": letter.retried_as,
    }
    if scope is None:
        view["integrator"] = letter.integrator
    return view if letter.kind is DeadLetterKind.EXECUTION else view | {"times": letter.occurrences}
