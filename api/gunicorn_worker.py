"""gunicorn's worker: refuses by a problem what gunicorn refuses by HTML, and lets held callers go when it ends."""

from __future__ import annotations

from typing import Any, Final

import structlog
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)

from api.http import problems
from api.http.strict_json import to_printable
from api.keepalive_thread import KeepAliveThreads
from shared.errors import BucketError, InternalError, ValidationFailed
from shared.ids import new_request_id
from shared.telemetry.lenient_json import encode_lenient

RELEASE_LONG_POLLS: Final = "bucket.let_go"
_SERVER_FAULTS: Final = (InvalidResponseHeader, InvalidResponseHeaderName)
_REASONS: Final = {400: "Bad Request", 500: "Internal Server Error"}


class ProblemWorker(KeepAliveThreads):
    """A gthread worker whose own error replies are problem+json.

    When it is told to end, its application answers all held requests at once (``extensions[LET_GO]``): a graceful end
    would wait for them, and so would a quick one, because Python joins the threads of a pool.
    """

    def is_parent_alive(self) -> bool:
        """Return whether the master is alive; if it is not, this process ends though a caller may go on asking."""
        if super().is_parent_alive():
            return True
        self.alive = False  # else keep-alive connections stay open, and the process waits 30 s for them
        return False

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin a graceful end."""
        super().handle_exit(sig, frame)
        self._release_held()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Begin a quick end."""
        self._release_held()
        super().handle_quit(sig, frame)

    def _release_held(self) -> None:
        application = getattr(self, "wsgi", None)  # which may not be loaded yet
        let_go = getattr(application, "extensions", {}).get(RELEASE_LONG_POLLS)
        if let_go is not None:
            let_go()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:  # noqa: ARG002  gunicorn's own
        """Answer what went wrong outside the application, and close the connection."""
        request_id = new_request_id()
        if isinstance(exc, ParseException) and not isinstance(exc, _SERVER_FAULTS):
            error: BucketError = ValidationFailed(_parse_error_message(exc, self.cfg))
            structlog.get_logger("api.access").info("request.unreadable", request_id=request_id, detail=error.message)
        else:
            error = InternalError()
            structlog.get_logger("api.access").error("request.failed", request_id=request_id, exc_info=exc)
        try:
            client.settimeout(1)
            client.sendall(_problem_bytes(error, request_id))
        except OSError:
            self.log.debug("the client left before it was told what was wrong")


def _parse_error_message(exc: ParseException, cfg: Any) -> str:
    if isinstance(exc, LimitRequestLine):
        return f"the address is too long: a request's first line may take {cfg.limit_request_line} bytes"
    if isinstance(exc, LimitRequestHeaders):
        most, largest = cfg.limit_request_fields, cfg.limit_request_field_size
        return f"the headers are too large: at most {most} of them, each of at most {largest} bytes"
    return f"this is not HTTP as it is understood here: {to_printable(str(exc))}"


def _problem_bytes(error: BucketError, request_id: str) -> bytes:
    body = encode_lenient(problems.problem_body(error, request_id))
    head = (
        f"HTTP/1.1 {error.http_status} {_REASONS[error.http_status]}",
        "Connection: close",
        f"Content-Type: {problems.MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"X-Request-ID: {request_id}",
        "X-Content-Type-Options: nosniff",
    )
    return "\r\n".join((*head, "", "")).encode() + body
