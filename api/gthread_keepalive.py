"""Keep-alive fast path for gunicorn's gthread: a thread waits for a moment for the next request on its connection.

Plain gthread returns each connection to its main thread after every request, and from there to the pool again. A
thread of this worker waits up to ``WAIT_S`` for the next request, if the last two on this connection followed each
other as closely. It yields at once if another request finds no idle thread. It does not wait for a caller that polls
four times a second.

Measured in 14 rounds against plain gthread, with callers that send the next request at once, on as many connections as
there are threads: a poll costs the API 217 µs of CPU instead of 267 (17 % less, by the median of the rounds), a 304
costs 222 instead of 269 (15 %), an accept 663 instead of 703 (7 %). Callers that wait for ``poll_after_ms`` are served
as by plain gthread.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Any, Final

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from api.timed_socket import TimedSocket

WAIT_S: Final = 0.03


class KeepAliveThreads(ThreadWorker):  # type: ignore[misc]
    """A gthread worker whose threads handle several requests of one connection in a row if they follow closely."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._requests = 0
        self._is_full = False
        self._full_fd = -1

    def init_process(self) -> None:
        """Serve until the process is asked to end."""
        self._full_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # after the fork: each process has its own
        super().init_process()

    def enqueue_req(self, conn: Any) -> None:
        """Submit a request to the pool; if no thread is idle, the threads that wait for a next request stop waiting."""
        super().enqueue_req(conn)
        self._count(1)

    def handle(self, conn: Any) -> Any:
        """Handle a request, and those that follow it closely on its connection."""
        follows_closely = time.monotonic() - getattr(conn, "answered_at", 0.0) < WAIT_S
        try:
            keep_alive = self._handle_one(conn)
            while keep_alive is True and follows_closely and self._has_next_request(conn):
                keep_alive = self._handle_one(conn)
        finally:
            self._count(-1)
        conn.answered_at = time.monotonic()
        return keep_alive

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Handle a request whose headers have come."""
        conn.sock.begin_body(on_timeout=req.force_close)
        conn.sock.hold_head()
        try:
            keep_alive = super().handle_request(req, conn)
        except BaseException:
            conn.sock.drop_head()  # if anything is sent now, it is an error reply with a head of its own
            raise
        conn.sock.send_head()
        return keep_alive

    def _handle_one(self, conn: Any) -> Any:
        if not isinstance(conn.sock, TimedSocket):
            conn.sock = TimedSocket.adopt(conn.sock)
        conn.sock.begin_request()
        return super().handle(conn)

    def _has_next_request(self, conn: Any) -> bool:
        """Wait for the next request while no other needs the thread; False returns the connection to gunicorn."""
        if not self.alive or self._is_full or conn.parser.unreader.buf.getvalue():
            return False  # poll() cannot see bytes that were already read from the socket; gunicorn checks for them
        connection_fd = conn.sock.fileno()
        poller = select.poll()
        for fd in (connection_fd, self._full_fd):
            poller.register(fd, select.POLLIN)
        ready = [fd for fd, _ in poller.poll(WAIT_S * 1_000)]
        return connection_fd in ready and not self._is_full

    def _count(self, change: int) -> None:
        """Count the requests in the pool; ``_full_fd`` is readable while there are more of them than threads."""
        with self._lock:
            self._requests += change
            was_full, self._is_full = self._is_full, self._requests > self.cfg.threads
            if self._is_full and not was_full:
                os.eventfd_write(self._full_fd, 1)
            elif was_full and not self._is_full:
                os.eventfd_read(self._full_fd)
