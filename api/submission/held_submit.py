"""Held submit (``Prefer: wait``): a long poll on the run that was just accepted."""

from __future__ import annotations

from dataclasses import replace

import flask
import structlog

from api.hints.poll_hints import ViewHints
from api.polling.poll_handler import PollHandler, view_response
from api.submission.acceptor import AcceptedRun
from api.submission.replies import accepted_response
from api.submission.submission import Submission
from shared.domain.status import ExecutionStatus
from shared.errors import BucketError


class HeldSubmit:
    """Replies to submits whose caller prefers to wait until the run is done."""

    def __init__(self, poller: PollHandler, view_hints: ViewHints) -> None:
        self._poller = poller
        self._view_hints = view_hints

    def reply(self, accepted: AcceptedRun, submission: Submission) -> flask.Response:
        """Return the 202, or the last poll with 200 if the run ends within the preferred wait.

        The run is accepted in any case: an error while waiting leads to the 202.
        """
        run, wait = accepted.run, submission.wait
        try:
            held = self._poller.hold(
                run.integrator, run.id, replace(wait, until_done=True), is_new=not accepted.is_replay
            )
            view = self._view_hints.add_to(held.value.view)
        except BucketError as error:
            structlog.get_logger().warning("a held submit returned early", reason=error.message)
            return accepted_response(accepted, self._view_hints.of_execution(run), submission)
        if view.head.is_done:
            # The last poll, with the headers and warnings that only a submit has.
            response = view_response(view, warnings=submission.warnings)
            response.headers["Location"] = f"{submission.prefix}/execution-logs/{run.id}"
            response.headers["Cache-Control"] = "no-store"
            if accepted.is_replay:
                response.headers["Idempotency-Replayed"] = "true"
        else:
            present = replace(run, status=ExecutionStatus(view.head.status), rev=view.head.rev)
            response = accepted_response(replace(accepted, run=present), view.hints, submission)
        return wait.mark_applied(response, is_granted=held.is_granted)
