"""gunicorn's threads, which stay with a caller who asks again at once, and whose own refusals are problems too.

Between two requests gunicorn hands a connection to its main thread and back, which costs a tenth of a submit. A
thread therefore waits a moment for the next request on a connection whose last two followed each other closely, and
gives way where a request finds no thread idle; whoever polls four times a second is not waited for.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Any, Final

import structlog
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from api import problems
from api.strict_json import shown
from shared.errors import BucketError, InternalError, ValidationFailed
from shared.ids import new_request_id
from shared.telemetry.lenient import encode

LET_GO: Final = "bucket.let_go"
CLOSELY_S: Final = 0.03
_OURS: Final = (InvalidResponseHeader, InvalidResponseHeaderName)
_REASONS: Final = {400: "Bad Request", 500: "Internal Server Error"}


class ProblemWorker(ThreadWorker):  # type: ignore[misc]
    """A gthread worker that stays with brisk callers, and refuses by a problem what gunicorn refuses by HTML.

    Told to end, it has its application let go of whoever is held (``extensions[LET_GO]``): a graceful end would wait
    for them, and so would a quick one, for Python joins the threads of a pool.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._in_hand = 0
        self._is_crowded = False
        self._crowd = -1

    def init_process(self) -> None:
        """Serve, until told to end."""
        self._crowd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # in the process that serves, after the fork
        super().init_process()

    def is_parent_alive(self) -> bool:
        """Answer whether there is still a master; without one this process ends, whoever goes on asking."""
        if super().is_parent_alive():
            return True
        self.alive = False
        return False

    def enqueue_req(self, conn: Any) -> None:
        """Hand a request to the threads; where none is idle those give way that wait for their callers."""
        super().enqueue_req(conn)
        self._count(1)

    def handle(self, conn: Any) -> Any:
        """Answer a request, and those that follow it closely on its connection."""
        is_brisk = time.monotonic() - getattr(conn, "answered_at", 0.0) < CLOSELY_S
        try:
            kept = super().handle(conn)
            while kept is True and is_brisk and self._is_asked_again(conn):
                kept = super().handle(conn)
        finally:
            self._count(-1)
        conn.answered_at = time.monotonic()
        return kept

    def _is_asked_again(self, conn: Any) -> bool:
        """Wait for the next request while that keeps nobody waiting; False leaves it to the main thread."""
        if not self.alive or self._is_crowded or conn.parser.unreader.buf.getvalue():
            return False  # what was read ahead would not be seen here, and is seen there
        asked = conn.sock.fileno()
        waited = select.poll()
        for one in (asked, self._crowd):
            waited.register(one, select.POLLIN)
        ready = [one for one, _ in waited.poll(CLOSELY_S * 1_000)]
        return asked in ready and not self._is_crowded

    def _count(self, change: int) -> None:
        """Count requests that are answered or wait for a thread; ``_crowd`` can be read while one waits."""
        with self._lock:
            self._in_hand += change
            was, self._is_crowded = self._is_crowded, self._in_hand > self.cfg.threads
            if self._is_crowded and not was:
                os.eventfd_write(self._crowd, 1)
            elif was and not self._is_crowded:
                os.eventfd_read(self._crowd)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin a graceful end."""
        super().handle_exit(sig, frame)
        self._let_go()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Begin a quick end."""
        self._let_go()
        super().handle_quit(sig, frame)

    def _let_go(self) -> None:
        application = getattr(self, "wsgi", None)  # which may not be loaded yet
        let_go = getattr(application, "extensions", {}).get(LET_GO)
        if let_go is not None:
            let_go()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:  # noqa: ARG002  gunicorn's own
        """Answer what went wrong outside the application, and close the connection."""
        request_id = new_request_id()
        if isinstance(exc, ParseException) and not isinstance(exc, _OURS):
            error: BucketError = ValidationFailed(_told(exc, self.cfg))
            structlog.get_logger("api.access").info("request.unreadable", request_id=request_id, detail=error.message)
        else:
            error = InternalError()
            structlog.get_logger("api.access").error("request.failed", request_id=request_id, exc_info=exc)
        try:
            client.settimeout(1)
            client.sendall(_reply(error, request_id))
        except OSError:
            self.log.debug("the client left before it was told what was wrong")


def _told(exc: ParseException, cfg: Any) -> str:
    if isinstance(exc, LimitRequestLine):
        return f"the address is too long: a request's first line may take {cfg.limit_request_line} bytes"
    if isinstance(exc, LimitRequestHeaders):
        most, largest = cfg.limit_request_fields, cfg.limit_request_field_size
        return f"the headers are too large: at most {most} of them, each of at most {largest} bytes"
    return f"this is not HTTP as it is understood here: {shown(str(exc))}"


def _reply(error: BucketError, request_id: str) -> bytes:
    body = encode(problems.body_of(error, request_id))
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
