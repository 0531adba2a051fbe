"""gunicorn worker: a greenlet for each connection, problem+json for gunicorn's HTML errors, and a prompt shutdown.

A caller that is idle, slow or held costs a greenlet and no thread, and requests do not compete for the interpreter.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

import gevent  # type: ignore[import-untyped]
import structlog
from gevent.event import Event  # type: ignore[import-untyped]
from gevent.lock import BoundedSemaphore  # type: ignore[import-untyped]
from gevent.pool import Pool  # type: ignore[import-untyped]
from gevent.server import StreamServer  # type: ignore[import-untyped]
from gunicorn.http import get_parser  # type: ignore[import-untyped]
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
from gunicorn.util import close_graceful  # type: ignore[import-untyped]
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
_NOTIFY_EVERY_S: Final = 1.0
_DRAIN_MAX_S: Final = 5.0
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
        self._ending = Event()
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

    def run(self) -> None:
        """Serve until the process is asked to end, then finish the requests in progress."""
        pool = Pool(self.worker_connections)
        servers = [StreamServer(listener, partial(self.handle, listener), spawn=pool) for listener in self.sockets]
        for server in servers:
            server.start()
        while self.alive:
            self.notify()  # it ends this process if its master has ended
            self._ending.wait(_NOTIFY_EVERY_S)
        for server in servers:
            server.close()
        self._release_held()
        for connection in tuple(self._connections):
            connection.release_idle()
        pool.join(self.cfg.graceful_timeout)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin a graceful shutdown."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._ending.set)  # a signal handler may interrupt the loop itself, so it must not wake others

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Begin a quick shutdown."""
        gevent.spawn(self._release_held)
        super().handle_quit(sig, frame)

    def _release_held(self) -> None:
        application = getattr(self, "wsgi", None)  # it may not be loaded yet
        release_all = getattr(application, "extensions", {}).get(RELEASE_LONG_POLLS)
        if release_all is not None:
            release_all()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve the requests of one connection, one after the other."""
        connection, request = TimedSocket.adopt(client), None
        self._connections.add(connection)
        try:
            parser, address = get_parser(self.cfg, connection, addr), listener.getsockname()
            while True:
                request = None
                request = next(parser)
                connection.begin_body(on_timeout=request.force_close)
                with self._places:
                    self.handle_request(address, request, connection, addr)
                if not parser.finish_body(deadline=time.monotonic() + _DRAIN_MAX_S):
                    return
                connection.await_request()
        except (StopIteration, NoMoreData):
            self.log.debug("the connection ends after a request or before the next one")
        except OSError as error:
            self.log.debug("the client is gone: %s", error)
        except Exception as error:  # noqa: BLE001  (an error outside the application, which has replied to its own)
            self.handle_error(request, connection, addr, error)
        finally:
            self._connections.discard(connection)
            close_graceful(connection)

    def handle_request(self, listener_name: Any, req: Any, sock: TimedSocket, addr: Any) -> Any:
        """Handle a request whose headers have come; raises StopIteration if it is the last of its connection."""
        sock.hold_head()
        try:
            super().handle_request(listener_name, req, sock, addr)
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
