"""The replies to a submit: the 202 and its body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import flask
import orjson

from api.hints.poll_hints import PollHints
from api.http.etags import RawResponse, etag_of
from api.submission.acceptor import AcceptedRun
from api.submission.submission import Submission
from shared.domain.execution import Execution
from shared.timestamps import format_rfc3339

_ACCEPTED_MESSAGE: Final = "accepted; poll status_url until done is true"
_DONE_MESSAGE: Final = "this run is done; status_url has its result or error"


def accepted_body(run: Execution, poll_after_ms: int | None, prefix: str, warnings: Sequence[str]) -> dict[str, Any]:
    """Return the body of the 202 for an accepted run; ``status_url`` begins with ``prefix``."""
    body: dict[str, Any] = {
        "execution_id": run.id,
        "status": run.status,
        "done": run.is_done,
        "rev": run.rev,
        "execution_metadata": run.basket.metadata_of(run.id),
        "status_url": f"{prefix}/execution-logs/{run.id}",
        "message": _DONE_MESSAGE if run.is_done else _ACCEPTED_MESSAGE,
        "created_at": format_rfc3339(run.created_at),
        "request_id": run.request_id,
    }
    if run.retry_of is not None:
        body["retry_of"] = run.retry_of
    if poll_after_ms is not None:
        body["poll_after_ms"] = poll_after_ms
    if warnings:
        body["warnings"] = list(warnings)
    return body


def accepted_response(accepted: AcceptedRun, hints: PollHints, submission: Submission) -> flask.Response:
    """Return the 202 for an accepted run."""
    run = accepted.run
    body = accepted_body(run, hints.poll_after_ms, submission.prefix, submission.warnings)
    headers = [
        ("Content-Type", "application/json"),
        ("Location", body["status_url"]),
        ("ETag", etag_of(run.id, run.rev)),
        ("Cache-Control", "no-store"),
    ]
    if hints.retry_after_s is not None:
        headers.append(("Retry-After", str(hints.retry_after_s)))
    if accepted.is_replay:
        headers.append(("Idempotency-Replayed", "true"))
    return RawResponse(orjson.dumps(body), 202, headers)
