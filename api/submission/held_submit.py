"""Held submit (``Prefer: wait``): a long poll on the run that was just accepted."""

from __future__ import annotations

from dataclasses import replace

import flask
import structlog

from api.hints.view_hints import HintedView, ViewHints
from api.polling.change_check import ChangeCheck
from api.polling.poller import PollHandler
from api.polling.replies import poll_response, with_warnings
from api.submission.acceptor import AcceptedRun
from api.submission.replies import accepted_body, accepted_response, response_with
from api.submission.submission import Submission
from shared.domain.execution import NEWEST_LOG_LINES
from shared.errors import BucketError


class HeldSubmit:
    """Replies to submits: at once, or when the run is done if the caller prefers to wait."""

    def __init__(self, poller: PollHandler, view_hints: ViewHints) -> None:
        self._poller = poller
        self._view_hints = view_hints

    def reply(self, accepted: AcceptedRun, submission: Submission) -> flask.Response:
        """Return the 202, or the last poll with 200 if the run ends within the preferred wait.

        The run is accepted in any case: an error while waiting leads to the 202.
        """
        wait = submission.wait
        if not wait.wait_s:
            return accepted_response(accepted, self._view_hints.of_execution(accepted.run), submission)
        check = ChangeCheck(replace(wait, until_done=True), NEWEST_LOG_LINES)
        try:
            held = self._poller.hold(accepted.run.id, check, wait.wait_s)
            view = self._view_hints.add_to(held.value.view)
        except BucketError as error:
            structlog.get_logger().warning("a held submit was answered early", reason=error.message)
            return accepted_response(accepted, self._view_hints.of_execution(accepted.run), submission)
        response = _final(view, accepted, submission) if view.head.is_done else _not_done(view, accepted, submission)
        return wait.mark_applied(response, is_granted=held.is_granted)


def _not_done(view: HintedView, accepted: AcceptedRun, submission: Submission) -> flask.Response:
    """Return the 202 with the present status of a run that did not end within the wait."""
    head, hints = view.head, view.hints
    body = accepted_body(accepted.run, hints.poll_after_ms, submission.prefix, submission.warnings)
    return response_with(body | {"status": head.status, "rev": head.rev}, accepted, head.rev, hints)


def _final(view: HintedView, accepted: AcceptedRun, submission: Submission) -> flask.Response:
    """Return the last poll, with the headers and warnings that only a submit has."""
    response = poll_response(view, view.json, 200)
    response.headers["Location"] = f"{submission.prefix}/execution-logs/{accepted.run.id}"
    response.headers["Cache-Control"] = "no-store"
    if accepted.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return with_warnings(response, submission.warnings)
