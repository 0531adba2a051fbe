"""A client's socket with a deadline for what it sends: a caller that stops in mid-request must not keep a thread.

gunicorn bounds neither the headers nor the body of a request; a timeout of the socket would count anew with each byte.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Final, Self

from shared.errors import RequestTimeout

HEADERS_TIMEOUT_S: Final = 10
REQUEST_TIMEOUT_S: Final = 60


class TimedSocket(socket.socket):
    """A connected socket whose ``recv`` raises RequestTimeout once the current deadline has passed.

    A reply that the client does not read is given up after :data:`REQUEST_TIMEOUT_S` without progress.
    """

    _began_at = 0.0
    _due_by = float("inf")
    _on_timeout: Callable[[], None]

    @classmethod
    def adopt(cls, client: socket.socket) -> Self:
        """Return a timed socket in place of ``client``, which is left without its connection."""
        timed = cls(fileno=client.detach())
        timed.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", REQUEST_TIMEOUT_S, 0))
        return timed

    def begin_request(self) -> None:
        """Set the deadline of the headers of a request that begins now."""
        self._began_at = time.monotonic()
        self._due_by, self._on_timeout = self._began_at + HEADERS_TIMEOUT_S, _do_nothing

    def begin_body(self, on_timeout: Callable[[], None]) -> None:
        """Set the deadline of the whole request, whose headers have come; ``on_timeout`` is called if it passes."""
        self._due_by, self._on_timeout = self._began_at + REQUEST_TIMEOUT_S, on_timeout

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return what the client has sent; raises RequestTimeout if nothing comes before the deadline."""
        while True:
            try:
                return super().recv(bufsize, flags | socket.MSG_DONTWAIT)  # it is there already, nearly always
            except BlockingIOError:
                self._wait()

    def _wait(self) -> None:
        left_s = self._due_by - time.monotonic()
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        if left_s <= 0 or not poller.poll(min(left_s, REQUEST_TIMEOUT_S) * 1_000):
            self._on_timeout()
            raise RequestTimeout


def _do_nothing() -> None:
    pass
