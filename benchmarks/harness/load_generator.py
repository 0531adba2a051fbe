"""Load generator: many virtual users in one event loop of one process; each scenario yields requests, gets responses.

Requests are built beforehand and responses are searched, not parsed, so that a request costs this process about 70 µs.
It shares the machine with the servers, in the same way for both systems.
"""

from __future__ import annotations

import heapq
import re
import selectors
import socket
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final

_RESPONSE_TIMEOUT_S: Final = 30.0
_READ_BYTES: Final = 262_144
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
ETAG_HEADER: Final = re.compile(rb"\r\netag: *([^\r]+)", re.IGNORECASE)
_BODILESS: Final = frozenset({204, 304})


class BenchmarkError(Exception):
    """An assumption of a benchmark does not hold, so its figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One HTTP response, its body unparsed."""

    status: int
    head: bytes
    body: bytes


# A scenario yields the bytes of a request and gets the response, or yields a pause in seconds and gets None.
Scenario = Generator[bytes | float, HttpResponse | None, None]


class VirtualUser:
    """One connection and the scenario that uses it."""

    def __init__(self, connection: socket.socket, flow: Scenario) -> None:
        self.connection = connection
        self.scenario = flow
        self._buffer = b""

    def receive(self) -> HttpResponse | None:
        """Read from the connection; return the response once it is complete, else None.

        Raises BenchmarkError if the server closed the connection.
        """
        received = self.connection.recv(_READ_BYTES)
        if not received:
            raise BenchmarkError(f"the server closed a connection after {self._buffer[:200]!r}")
        self._buffer += received
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        status = int(head[9:12])
        if status in _BODILESS:
            length = 0
        else:
            content_length = _LENGTH.search(head)
            if content_length is None:
                raise BenchmarkError(f"a response without Content-Length: {head[:200]!r}")
            length = int(content_length[1])
        if len(rest) < length:
            return None
        self._buffer = b""
        return HttpResponse(status, head, rest)


class LoadGenerator:
    """Runs scenarios, one on each connection, until all have ended."""

    def __init__(self) -> None:
        self._ready = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, VirtualUser]] = []
        self._number = 0
        self._open = 0

    def run(self, connections: Sequence[socket.socket], flows: Sequence[Scenario]) -> None:
        """Run until the last scenario has ended; raise BenchmarkError if there is no response for half a minute."""
        for connection, flow in zip(connections, flows, strict=True):
            user = VirtualUser(connection, flow)
            self._ready.register(connection, selectors.EVENT_READ, user)
            self._open += 1
            self._resume(user, None)
        while self._open:
            self._run_once()
        self._ready.close()

    def _run_once(self) -> None:
        wait_s = max(0.0, self._timers[0][0] - time.perf_counter()) if self._timers else _RESPONSE_TIMEOUT_S
        events = self._ready.select(wait_s)
        if not events and not self._timers:
            raise BenchmarkError(f"no response for {_RESPONSE_TIMEOUT_S:g} s")
        for key, _ in events:
            user: VirtualUser = key.data
            response = user.receive()
            if response is not None:
                self._resume(user, response)
        now = time.perf_counter()
        while self._timers and self._timers[0][0] <= now:
            self._resume(heapq.heappop(self._timers)[2], None)

    def _resume(self, user: VirtualUser, response: HttpResponse | None) -> None:
        try:
            next_item = user.scenario.send(response)
        except StopIteration:
            self._ready.unregister(user.connection)
            self._open -= 1
            return
        if isinstance(next_item, bytes):
            user.connection.sendall(next_item)
        else:
            self._number += 1  # a tie-break: two timers of one time must not compare users
            heapq.heappush(self._timers, (time.perf_counter() + next_item, self._number, user))
