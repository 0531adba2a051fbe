"""A client's socket with a deadline for what it sends: a caller that stops in mid-request must not keep a thread.

gunicorn bounds neither the headers nor the body of a request; a timeout of the socket would count anew with each byte.
This class also saves calls to the kernel, each of which gives up the GIL: of 14 for a poll, 7 are left.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final, Self

from shared.errors import RequestTimeout

HEADERS_TIMEOUT_S: Final = 10
REQUEST_TIMEOUT_S: Final = 60


class TimedSocket(socket.socket):
    """A connected socket whose ``recv`` raises RequestTimeout once the current deadline has passed.

    A reply that the client does not read is given up after :data:`REQUEST_TIMEOUT_S` without progress.

    The descriptor stays in blocking mode, unless something is sent under a limit of its own (``settimeout``), as an
    error reply is before the connection is closed.
    """

    _began_at = 0.0
    _due_by = float("inf")
    _timeout_s: float | None = None
    _head: bytes | None = None
    _on_timeout: Callable[[], None]

    @classmethod
    def adopt(cls, client: socket.socket) -> Self:
        """Return a timed socket in place of ``client``, which is left without its connection."""
        timed = cls(fileno=client.detach())
        os.set_blocking(timed.fileno(), True)
        timed.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", REQUEST_TIMEOUT_S, 0))
        return timed

    def begin_request(self) -> None:
        """Set the deadline of the headers of a request that begins now."""
        self._began_at = time.monotonic()
        self._due_by, self._on_timeout = self._began_at + HEADERS_TIMEOUT_S, _do_nothing

    def begin_body(self, on_timeout: Callable[[], None]) -> None:
        """Set the deadline of the whole request, whose headers have come; ``on_timeout`` is called if it passes."""
        self._due_by, self._on_timeout = self._began_at + REQUEST_TIMEOUT_S, on_timeout

    def setblocking(self, flag: bool, /) -> None:
        """Do nothing: gunicorn changes the mode for its selector, which needs none, and back for each request."""

    def gettimeout(self) -> float | None:
        """Return the limit of the next ``recv`` or ``sendall`` in seconds; None if it has only that of the request."""
        return self._timeout_s

    def settimeout(self, value: float | None, /) -> None:
        """Limit the next ``recv`` or ``sendall`` to ``value`` seconds."""
        self._timeout_s = value

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

    def sendall(self, data: bytes, flags: int = 0, /) -> None:  # type: ignore[override]
        """Send ``data``, and a head that was kept before it."""
        if self._head == b"":
            self._head = data
            return
        if self._head is not None:
            head, self._head = self._head, None
            data = head + data
        if self._timeout_s != super().gettimeout():
            super().settimeout(self._timeout_s)
        super().sendall(data, flags)

    def sendfile(self, *args: Any, **options: Any) -> int:
        """Send a file after the head that was kept before it; return the number of bytes."""
        self.send_head()
        return super().sendfile(*args, **options)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return what the client has sent; raises RequestTimeout if nothing comes before the deadline.

        Under a limit of its own (``settimeout``) it raises TimeoutError instead, also after that deadline.
        """
        while True:
            try:
                return super().recv(bufsize, flags | socket.MSG_DONTWAIT)  # it is there already, nearly always
            except BlockingIOError:
                self._wait()

    def _wait(self) -> None:
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        if self._timeout_s is not None:  # gunicorn drops what is left of a request, and expects its own kind of error
            if not poller.poll(self._timeout_s * 1_000):
                raise TimeoutError("timed out")
            return
        left_s = min(self._due_by - time.monotonic(), REQUEST_TIMEOUT_S)
        if left_s <= 0 or not poller.poll(left_s * 1_000):
            self._on_timeout()
            raise RequestTimeout


def _do_nothing() -> None:
    pass
