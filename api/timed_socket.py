"""A client's socket with a deadline for what it sends: a caller that stops in mid-request must not keep its place.

gunicorn bounds neither the headers nor the body of a request; a timeout of the socket would count anew with each byte.
This class also sends the head of a reply together with its body, by one call to the kernel.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Self

import gevent.socket  # type: ignore[import-untyped]

from shared.errors import RequestTimeout

IDLE_TIMEOUT_S: Final = 75
HEADERS_TIMEOUT_S: Final = 10
REQUEST_TIMEOUT_S: Final = 60


class TimedSocket(gevent.socket.socket):  # type: ignore[misc]
    """A connected socket whose ``recv`` raises RequestTimeout once the current deadline has passed.

    Between two requests it is idle; a caller that stays so for :data:`IDLE_TIMEOUT_S` is treated as one that has hung
    up. A reply that the client does not read is given up after :data:`REQUEST_TIMEOUT_S` without progress.
    """

    is_idle = False
    _began_at = 0.0
    _due_by = float("inf")
    _limit_s: float | None = None
    _head: bytes | None = None
    _on_timeout: Callable[[], None]

    @classmethod
    def adopt(cls, client: Any) -> Self:
        """Return a timed socket in place of ``client``, which is left without its connection."""
        timed = cls(client.family, client.type, client.proto, fileno=client.detach())
        timed.await_request()
        return timed

    def await_request(self) -> None:
        """Set the deadline of the first byte of the next request; when that has come, that of its headers begins."""
        self.is_idle = True
        self._began_at = time.monotonic()
        self._due_by, self._on_timeout = self._began_at + IDLE_TIMEOUT_S, _do_nothing

    def begin_body(self, on_timeout: Callable[[], None]) -> None:
        """Set the deadline of the whole request, whose headers have come; ``on_timeout`` is called if it passes."""
        self.is_idle = False  # the whole request may have come together with the one before
        self._due_by, self._on_timeout = self._began_at + REQUEST_TIMEOUT_S, on_timeout

    def release_idle(self) -> None:
        """If no request has begun, treat the caller as one that has hung up; what it has sent is still read."""
        if self.is_idle:
            with suppress(OSError):  # it has hung up
                self._sock.shutdown(socket.SHUT_RD)  # gevent's own would raise an error in the greenlet that reads

    def setblocking(self, flag: bool, /) -> None:
        """Do nothing: a call to this socket lets others run while it waits."""

    def gettimeout(self) -> float | None:
        """Return the limit of the next ``recv`` or ``sendall`` in seconds; None if it has only that of the request."""
        return self._limit_s

    def settimeout(self, value: float | None, /) -> None:
        """Limit the next ``recv`` or ``sendall`` to ``value`` seconds."""
        self._limit_s = value

    def hold_head(self) -> None:
        """Keep what ``sendall`` gets next, the head of a reply, and send it together with the body."""
        self._head = b""

    def drop_head(self) -> None:
        """Keep no head any more, and forget one that was not sent."""
        self._head = None

    def send_head(self) -> None:
        """Send a head that no body has followed."""
        head, self._head = self._head, None
        if head:
            self.sendall(head)

    def sendall(self, data: bytes, flags: int = 0, /) -> None:
        """Send ``data``, and a head that was kept before it."""
        if self._head == b"":
            self._head = data
            return
        if self._head is not None:
            head, self._head = self._head, None
            data = head + data
        self.timeout = REQUEST_TIMEOUT_S if self._limit_s is None else self._limit_s
        sent = self.send(data, flags)
        while sent < len(data):
            sent += self.send(memoryview(data)[sent:], flags)

    def sendfile(self, *args: Any, **options: Any) -> Any:
        """Send a file after the head that was kept before it; return the number of bytes."""
        self.send_head()
        return super().sendfile(*args, **options)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return what the client has sent; raises RequestTimeout if nothing comes before the deadline.

        Under a limit of its own (``settimeout``) it raises TimeoutError instead, also after that deadline.
        """
        left_s = self._due_by - time.monotonic() if self._limit_s is None else self._limit_s
        self.timeout = max(left_s, 0.001)
        try:
            received: bytes = super().recv(bufsize, flags)
        except TimeoutError:
            if self._limit_s is not None:  # gunicorn drops what is left of a request, and expects its own kind of error
                raise
            if self.is_idle:
                return b""
            self._on_timeout()
            raise RequestTimeout from None
        if self.is_idle:
            self.is_idle = False
            self._began_at = time.monotonic()
            self._due_by = self._began_at + HEADERS_TIMEOUT_S
        elif left_s <= 0 and self._limit_s is None:  # a byte now and then is no progress
            self._on_timeout()
            raise RequestTimeout
        return received


def _do_nothing() -> None:
    pass
