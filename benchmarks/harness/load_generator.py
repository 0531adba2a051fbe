"""Generates load: many callers in one loop of one process, each a flow that yields requests and is sent answers.

Bytes are made beforehand and answers are looked at, not parsed, so that a request costs this process some 70 µs. It
shares the machine with the servers, in the same way for both sides.
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
_BODILESS: Final = frozenset({204, 304})


class BenchmarkError(Exception):
    """Something did not behave as a bench may assume; its figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One HTTP answer, its body unparsed."""

    status: int
    head: bytes
    body: bytes


# A flow yields the bytes of a request, whose answer it is sent, or a pause in seconds.
Scenario = Generator[bytes | float, HttpResponse | None, None]


class VirtualUser:
    """One connection and the flow that uses it."""

    def __init__(self, connection: socket.socket, flow: Scenario) -> None:
        self.connection = connection
        self.flow = flow
        self._buffer = b""

    def receive(self) -> HttpResponse | None:
        """Read what came; answer the whole reply once it is there. Raises Broken where the server hung up."""
        piece = self.connection.recv(_READ_BYTES)
        if not piece:
            raise BenchmarkError(f"the server closed a connection, having said {self._buffer[:200]!r}")
        self._buffer += piece
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        status = int(head[9:12])
        if status in _BODILESS:
            length = 0
        else:
            told = _LENGTH.search(head)
            if told is None:
                raise BenchmarkError(f"an answer without Content-Length: {head[:200]!r}")
            length = int(told[1])
        if len(rest) < length:
            return None
        self._buffer = b""
        return HttpResponse(status, head, rest)


class LoadGenerator:
    """Runs flows, one on each connection, until all have ended."""

    def __init__(self) -> None:
        self._ready = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, VirtualUser]] = []
        self._number = 0
        self._open = 0

    def run(self, connections: Sequence[socket.socket], flows: Sequence[Scenario]) -> None:
        """Run until the last flow has ended; raises Broken where nothing is heard for half a minute."""
        for connection, flow in zip(connections, flows, strict=True):
            caller = VirtualUser(connection, flow)
            self._ready.register(connection, selectors.EVENT_READ, caller)
            self._open += 1
            self._resume(caller, None)
        while self._open:
            self._run_once()
        self._ready.close()

    def _run_once(self) -> None:
        wait_s = max(0.0, self._timers[0][0] - time.perf_counter()) if self._timers else _RESPONSE_TIMEOUT_S
        events = self._ready.select(wait_s)
        if not events and not self._timers:
            raise BenchmarkError(f"no answer for {_RESPONSE_TIMEOUT_S:g} s")
        for key, _ in events:
            caller: VirtualUser = key.data
            answer = caller.receive()
            if answer is not None:
                self._resume(caller, answer)
        now = time.perf_counter()
        while self._timers and self._timers[0][0] <= now:
            self._resume(heapq.heappop(self._timers)[2], None)

    def _resume(self, caller: VirtualUser, answer: HttpResponse | None) -> None:
        try:
            wanted = caller.flow.send(answer)
        except StopIteration:
            self._ready.unregister(caller.connection)
            self._open -= 1
            return
        if isinstance(wanted, bytes):
            caller.connection.sendall(wanted)
        else:
            self._number += 1  # two of one moment must not compare callers
            heapq.heappush(self._timers, (time.perf_counter() + wanted, self._number, caller))
