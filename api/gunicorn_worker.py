"""gunicorn worker: problem+json instead of gunicorn's HTML errors, and long polls are released at shutdown."""

from __future__ import annotations

from typing import Any, Final

import structlog
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.message import Request  # type: ignore[import-untyped]
from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped]
from werkzeug.http import HTTP_STATUS_CODES

from api.gthread_keepalive import KeepAliveThreads
from api.http import problems
from api.http.strict_json import to_printable
from shared.errors import (
    BucketError,
    HeadersTooLarge,
    InternalError,
    NotImplementedHere,
    RequestError,
    UriTooLong,
    ValidationFailed,
)
from shared.ids import new_request_id
from shared.telemetry.lenient_json import encode_lenient

RELEASE_LONG_POLLS: Final = "bucket.release_long_polls"
START_BACKGROUND: Final = "bucket.start_background"
_SERVER_FAULTS: Final = (InvalidResponseHeader, InvalidResponseHeaderName)


class _KeyKeepingRequest(Request):  # type: ignore[misc]
    """A request that keeps an ``Idempotency_Key``, with an underscore, under a name of its own.

    gunicorn drops every header with an underscore, because in WSGI it looks like the one with a hyphen. This one must
    not vanish: the caller would repeat its submit and get two runs. ``api/submission/submission.py`` refuses it.
    """

    def _apply_header_policy(self, name: str, *more: Any, **options: Any) -> Any:
        if "_" in name and "IDEMPOTEN" in name:
            name = name.replace("_", "--")
        return super()._apply_header_policy(name, *more, **options)


class ProblemWorker(KeepAliveThreads):
    """A gthread worker whose own error replies are problem+json.

    When it is asked to end, its application releases all long polls at once (``extensions[RELEASE_LONG_POLLS]``): a
    graceful shutdown would wait for them, and so would a quick one, because Python joins the threads of a pool.
    """

    def init_process(self) -> None:
        """Serve until the process is asked to end."""
        RequestParser.mesg_class = _KeyKeepingRequest
        super().init_process()

    def load_wsgi(self) -> None:
        """Take the application that the master has loaded, and start its threads, which no fork copies.

        No request is read before they have started (``extensions[START_BACKGROUND]``).
        """
        super().load_wsgi()
        start_background = getattr(self.wsgi, "extensions", {}).get(START_BACKGROUND)
        if start_background is not None:
            start_background()

    def is_parent_alive(self) -> bool:
        """Return whether the master is alive; if not, end this process even if requests still come in."""
        if super().is_parent_alive():
            return True
        self.alive = False  # otherwise keep-alive connections stay open, and the process waits 30 s for them
        return False

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin a graceful shutdown."""
        super().handle_exit(sig, frame)
        self._release_held()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Begin a quick shutdown."""
        self._release_held()
        super().handle_quit(sig, frame)

    def _release_held(self) -> None:
        application = getattr(self, "wsgi", None)  # it may not be loaded yet
        release_all = getattr(application, "extensions", {}).get(RELEASE_LONG_POLLS)
        if release_all is not None:
            release_all()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:  # noqa: ARG002  gunicorn's own
        """Send a problem for an error outside the application, and close the connection."""
        request_id = new_request_id()
        if isinstance(exc, RequestError) or (isinstance(exc, ParseException) and not isinstance(exc, _SERVER_FAULTS)):
            error: BucketError = exc if isinstance(exc, RequestError) else _request_error_of(exc, self.cfg)
            structlog.get_logger("api.access").info("request.unreadable", request_id=request_id, detail=error.message)
        else:
            error = InternalError()
            structlog.get_logger("api.access").error("request.failed", request_id=request_id, exc_info=exc)
        try:
            client.settimeout(1)
            client.sendall(_problem_bytes(error, request_id))
        except OSError:
            self.log.debug("the client closed the connection before the error could be sent")


def _request_error_of(exc: ParseException, cfg: Any) -> RequestError:
    if isinstance(exc, LimitRequestLine):
        return UriTooLong(f"the address is too long: a request's first line may take {cfg.limit_request_line} bytes")
    if isinstance(exc, LimitRequestHeaders):
        most, largest = cfg.limit_request_fields, cfg.limit_request_field_size
        return HeadersTooLarge(f"the headers are too large: at most {most} of them, each of at most {largest} bytes")
    if isinstance(exc, UnsupportedTransferCoding):
        return NotImplementedHere("this Transfer-Encoding is not known; send chunked, or a Content-Length")
    return ValidationFailed(f"this is not HTTP as it is understood here: {to_printable(str(exc))}")


def _problem_bytes(error: BucketError, request_id: str) -> bytes:
    body = encode_lenient(problems.problem_body(error, request_id))
    head = (
        f"HTTP/1.1 {error.http_status} {HTTP_STATUS_CODES[error.http_status]}",
        "Connection: close",
        f"Content-Type: {problems.MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"X-Request-ID: {request_id}",
        "X-Content-Type-Options: nosniff",
    )
    return "\r\n".join((*head, "", "")).encode() + body
