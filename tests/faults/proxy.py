"""Proxy between a client and a unix socket: loses one reply, or freezes the open connections."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

_PIECE = 65_536


@dataclass(eq=False)
class _Link:
    """One connection in both directions; a ``cut`` one ends at the next reply, which is lost."""

    client: socket.socket
    server: socket.socket
    frozen: bool = False
    cut: bool = False
    is_over: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        self.is_over.set()
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Listens at ``path`` while the block runs and forwards everything to ``target``, except for injected faults.

    With another ``target`` new connections lead there, and open ones stay.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.target = target
        self._links: list[_Link] = []
        self._marker: bytes | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self.cuts = 0

    @property
    def redis_url(self) -> str:
        """The URL of the Redis behind the proxy."""
        return f"unix://{self.path}?db=0"

    def freeze(self) -> int:
        """Stop all traffic on the open connections and return their number; new ones work."""
        for link in self._links:
            link.frozen = True
        return sum(not link.is_over.is_set() for link in self._links)

    def lose_reply_to(self, marker: bytes) -> None:
        """Lose the reply to the next request that contains ``marker``: the server executes it without a reply."""
        self._marker = marker

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A listener that is only closed still accepts one connection, because its thread waits in accept.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            link.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self.target))
            except OSError:
                client.close()
                server.close()
                continue
            link = _Link(client, server)
            self._links.append(link)
            threading.Thread(target=self._pass_on, args=(link, client, server), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(link, server, client), daemon=True).start()

    def _pass_on(self, link: _Link, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE):
                if link.frozen:
                    link.is_over.wait()
                elif source is link.client and self._marker is not None and self._marker in data:
                    self._marker, link.cut = None, True
                elif source is link.server and link.cut:
                    self.cuts += 1
                    break
                sink.sendall(data)
        if not link.frozen:
            link.close()
