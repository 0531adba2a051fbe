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
    _due_by = float("inf")
    _limit_s: float | None = None
    _head: bytes | None = None
    _force_close: Callable[[], None]

    @classmethod
    def adopt(cls, client: Any) -> Self:
        """Return a timed socket in place of ``client``, which is left without its connection."""
        timed = cls(client.family, client.type, client.proto, fileno=client.detach())
        timed.await_request()
        return timed

    def await_request(self, *, has_begun: bool = False) -> None:
        """Set the deadline of the first byte of the next request; when that has come, that of its headers begins.

        It ``has_begun`` if its first bytes came together with the request before.
        """
        self.is_idle, self._force_close = not has_begun, _do_nothing
        self._due_by = time.monotonic() + (HEADERS_TIMEOUT_S if has_begun else IDLE_TIMEOUT_S)

    def begin_body(self, force_close: Callable[[], None]) -> None:
        """Set the deadline of the rest of a request whose headers have come.

        ``force_close`` is called if it passes or if the process ends: the request is the last of its connection.
        """
        self.is_idle, self._force_close = False, force_close
        self._due_by = time.monotonic() + REQUEST_TIMEOUT_S

    def end_after_request(self) -> None:
        """If a request is in progress, make it the last one."""
        self._force_close()

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
            self._force_close()
            raise RequestTimeout from None
        if self.is_idle:
            self.await_request(has_begun=True)
        elif left_s <= 0 and self._limit_s is None:  # a byte now and then is no progress
            self._force_close()
            raise RequestTimeout
        return received


def _do_nothing() -> None:
    pass
