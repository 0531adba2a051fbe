"""gunicorn worker: a greenlet for each connection, problem+json for gunicorn's HTML errors, and a prompt shutdown.

A caller that is idle, slow or held costs a greenlet and no thread, and requests do not compete for the interpreter.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from email.utils import formatdate
from functools import cache, lru_cache, partial
from typing import Any, Final

import gevent.socket  # type: ignore[import-untyped]
import structlog
from gevent.lock import BoundedSemaphore  # type: ignore[import-untyped]
from gevent.pool import Pool  # type: ignore[import-untyped]
from gevent.server import StreamServer  # type: ignore[import-untyped]
from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.http import get_parser, wsgi  # type: ignore[import-untyped]
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.message import Request  # type: ignore[import-untyped]
from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped]
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]
from werkzeug.http import HTTP_STATUS_CODES

from api.http import problems
from api.http.strict_json import to_printable
from api.timed_socket import TimedSocket
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
_NOTIFY_EVERY_S: Final = 5.0
_DRAIN_MAX_S: Final = 5.0
_LINGER_S: Final = 1.0
_QUIT_WITHIN_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.1
_SIGNALS_AT_ONCE: Final = 4096
_CROWDED: Final = 0.9
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


class ProblemWorker(GeventWorker):  # type: ignore[misc]
    """A gevent worker whose own error replies are problem+json.

    It serves as many requests at once as the setting ``threads`` says; the others wait for their turn.

    When it is asked to end, its application releases all long polls at once (``extensions[RELEASE_LONG_POLLS]``), or a
    shutdown would wait for them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections: set[TimedSocket] = set()

    def patch(self) -> None:
        """Do nothing: the standard library was patched before the application was loaded (``api.cooperative``)."""

    def init_process(self) -> None:
        """Serve until the process is asked to end."""
        RequestParser.mesg_class = _KeyKeepingRequest
        _cache_what_gunicorn_makes()
        self._quit_at = float("inf")
        self._pool = Pool(self.worker_connections)
        self._places = BoundedSemaphore(self.cfg.threads)
        super().init_process()

    def load_wsgi(self) -> None:
        """Take the application that the master has loaded, and start its threads, which no fork copies.

        No request is read before they have started (``extensions[START_BACKGROUND]``).
        """
        super().load_wsgi()
        start_background = getattr(self.wsgi, "extensions", {}).get(START_BACKGROUND)
        if start_background is not None:
            start_background()

    def notify(self) -> None:
        """Give the master a sign of life; if there is no master any more, begin a graceful shutdown."""
        self.tmp.notify()
        if self.ppid != os.getppid():
            self.alive = False

    def run(self) -> None:
        """Serve until the process is asked to end, then finish the requests in progress."""
        servers = [
            StreamServer(listener, partial(self.handle, listener.getsockname()), spawn=self._pool)
            for listener in self.sockets
        ]
        for server in servers:
            server.start()
        while self.alive:
            self.notify()
            self._await_signal(_NOTIFY_EVERY_S)
        self._release_held()
        for connection in self._connections:
            connection.end_after_request()
        self._join_pool(_LINGER_S)  # some callers may be sending a request at this moment
        for server in servers:
            server.close()
        for connection in self._connections:
            connection.release_idle()
        self._join_pool(self.cfg.graceful_timeout)

    def _await_signal(self, seconds: float) -> None:
        """Wait until a signal comes, at most ``seconds``.

        Each signal writes a byte to the worker's own pipe (``signal.set_wakeup_fd``). Without it, one that comes just
        before the loop begins to wait for events would be handled only after the next of them.
        """
        with suppress(TimeoutError):
            gevent.socket.wait_read(self.PIPE[0], timeout=seconds)
            os.read(self.PIPE[0], _SIGNALS_AT_ONCE)

    def _join_pool(self, seconds: float) -> None:
        """Wait until no connection is left, at most ``seconds``, and shorter if a quick shutdown was asked for."""
        due_by = time.monotonic() + seconds
        while self._pool and time.monotonic() < min(due_by, self._quit_at):
            self._pool.join(_LOOK_EVERY_S)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Begin a quick shutdown, which may be asked for more than once."""
        self._quit_at = min(self._quit_at, time.monotonic() + _QUIT_WITHIN_S)
        self.handle_exit(sig, frame)

    def _release_held(self) -> None:
        application = getattr(self, "wsgi", None)  # it may not be loaded yet
        release_all = getattr(application, "extensions", {}).get(RELEASE_LONG_POLLS)
        if release_all is not None:
            release_all()

    def handle(self, address: Any, client: Any, addr: Any) -> None:
        """Serve the requests of one connection, one after the other; ``address`` is the one that it has reached."""
        connection, request = TimedSocket.adopt(client), None
        self._connections.add(connection)
        try:
            parser = get_parser(self.cfg, connection, addr)
            while True:
                request = None
                request = next(parser)
                if len(self._connections) > _CROWDED * self.worker_connections:
                    request.force_close()  # or the callers that are here would keep all others out
                with self._places:
                    connection.begin_body(request.force_close)
                    self.handle_request(address, request, connection, addr)
                if not _finish_body(parser):
                    return
                connection.await_request(has_begun=bool(parser.unreader.buf.getvalue()))
        except (StopIteration, NoMoreData):
            self.log.debug("the connection ends after a request or before the next one")
        except OSError as error:
            self.log.debug("the client is gone: %s", error)
        except Exception as error:  # noqa: BLE001  (an error outside the application, which has replied to its own)
            self.handle_error(request, connection, addr, error)
        finally:
            self._connections.discard(connection)
            util.close_graceful(connection)

    def handle_request(self, listener_name: Any, req: Any, sock: TimedSocket, addr: Any) -> Any:
        """Handle a request whose headers have come; raises StopIteration if it is the last of its connection."""
        sock.hold_head()
        try:
            super(GeventWorker, self).handle_request(listener_name, req, sock, addr)  # gevent's own hides a SystemExit
        except StopIteration:
            sock.send_head()
            raise
        except BaseException:
            sock.drop_head()  # if anything is sent now, it is an error reply with a head of its own
            raise
        sock.send_head()

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


def _cache_what_gunicorn_makes() -> None:
    """Make gunicorn keep what it makes anew for each request: 9 of some 340 µs of CPU that a poll takes in all."""
    wsgi.WSGIErrorsWrapper = cache(wsgi.WSGIErrorsWrapper)  # of its configuration
    util.http_date = lambda: _date_of(int(time.time()))


@lru_cache(maxsize=1)
def _date_of(second: int) -> str:
    return formatdate(second, usegmt=True)


def _finish_body(parser: Any) -> bool:
    """Read what the application has left of a request; return whether another request can follow.

    A fault in it is not reported: the request has its reply.
    """
    try:
        return bool(parser.finish_body(deadline=time.monotonic() + _DRAIN_MAX_S))
    except ParseException:
        return False


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
