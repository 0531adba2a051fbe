"""A stub of a provider for tests: a real HTTP server on a loopback port, which fails in the ways that providers do.

    with ProviderStub() as stub:
        requests.get(f"{stub.url}/json")
        assert stub.requests[0].path == "/json"

Its routes: ``/json`` (an object), ``/echo`` (method, headers and body of the request), ``/status/<n>``,
``/sequence/<n>,<n>,...`` (one status a call, the last one from then on), ``/retry-after/<value>`` (429, then 200),
``/slow/<seconds>``, ``/drip`` (a body that comes byte by byte and never ends), ``/reset`` (the connection is reset),
``/cut`` (the body breaks off), ``/not-json``, ``/huge`` (9 MiB), ``/bomb`` (9 MiB that take 9 KiB compressed),
``/garbage`` (no HTTP), and ``/redirect/<n>?to=<URL>``. Any other path is told by ``reply``, or 404.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

HUGE_BYTES = 9 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """A request that came; ``headers`` have lower-case names, ``at`` is in seconds of the monotonic clock."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply; a ``body`` that is not bytes is sent as JSON."""

    status: int = 200
    body: Any = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


class ProviderStub:
    """A provider on a port of its own; ``stop`` and ``start`` take it away and bring it back on the same port."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.replies: dict[str, Callable[[Received], Reply]] = {}
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.released = threading.Event()  # ends the routes that take long

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def name(self) -> str:
        """The name of the provider in errors, metrics and ``/health``."""
        return f"127.0.0.1:{self._port}"

    def reply(self, path: str, reply: Callable[[Received], Reply]) -> None:
        """Let ``reply`` make the replies to ``path``."""
        self.replies[path] = reply

    def start(self) -> None:
        """Serve, on the same port as before."""
        self.released.clear()
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.stub = self  # type: ignore[attr-defined]
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self.released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def count(self, path: str) -> int:
        """Return how many requests for ``path`` came."""
        return sum(request.path == path for request in self.requests)

    def next_number(self, path: str) -> int:
        """Return how many requests for ``path`` came before, and count this one."""
        with self._lock:
            self._counts[path] = self._counts.get(path, 0) + 1
            return self._counts[path] - 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: callers break off on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def _serve(self) -> None:
        stub: ProviderStub = self.server.stub  # type: ignore[attr-defined]
        if stub.released.is_set():  # a connection that was kept from before the stop
            self._reset()
            return
        parts = urlsplit(self.path)
        received = Received(
            self.command,
            parts.path,
            parse_qs(parts.query),
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        stub.requests.append(received)
        if parts.path in stub.replies:
            self._send(stub.replies[parts.path](received))
            return
        route, _, argument = unquote(parts.path).strip("/").partition("/")
        handle = getattr(self, f"_route_{route.replace('-', '_')}", None)
        if handle is None:
            self._send(Reply(404, {"error": "no such route"}))
        else:
            handle(stub, received, argument)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815  (names of http.server)

    def _send(self, reply: Reply) -> None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _route_json(self, *_: Any) -> None:
        self._send(Reply(body={"answer": 42}))

    def _route_echo(self, _stub: ProviderStub, received: Received, _argument: str) -> None:
        body = {"method": received.method, "headers": dict(received.headers), "body": received.body.decode()}
        self._send(Reply(body=body))

    def _route_status(self, _stub: ProviderStub, _received: Received, argument: str) -> None:
        self._send(Reply(int(argument), {"status": int(argument)}))

    def _route_sequence(self, stub: ProviderStub, received: Received, argument: str) -> None:
        statuses = argument.split(",")
        number = min(stub.next_number(received.path), len(statuses) - 1)
        self._send(Reply(int(statuses[number]), {"call": number + 1}))

    def _route_retry_after(self, stub: ProviderStub, received: Received, argument: str) -> None:
        is_first = stub.next_number(received.path) == 0
        self._send(Reply(429, {}, {"Retry-After": argument}) if is_first else Reply())

    def _route_slow(self, stub: ProviderStub, _received: Received, argument: str) -> None:
        stub.released.wait(float(argument))
        self._send(Reply())

    def _route_drip(self, stub: ProviderStub, *_: Any) -> None:
        self._begin({"Content-Length": "1000000"})
        while not stub.released.wait(0.05):
            self.wfile.write(b" ")

    def _route_reset(self, *_: Any) -> None:
        self._reset()

    def _route_cut(self, *_: Any) -> None:
        self._begin({"Content-Length": "100"})
        self.wfile.write(b'{"answer"')
        self.close_connection = True

    def _route_not_json(self, *_: Any) -> None:
        self._send(Reply(body=b"<html>busy</html>", headers={"Content-Type": "text/html"}))

    def _route_huge(self, *_: Any) -> None:
        self._begin({"Connection": "close"})  # no length: it is seen only while it is read
        for _number in range(HUGE_BYTES // 65_536):
            self.wfile.write(b" " * 65_536)
        self.close_connection = True

    def _route_bomb(self, *_: Any) -> None:
        self._send(Reply(body=gzip.compress(b" " * HUGE_BYTES), headers={"Content-Encoding": "gzip"}))

    def _route_garbage(self, *_: Any) -> None:
        self.wfile.write(b"220 this is mail\r\n\r\n")
        self.close_connection = True

    def _route_redirect(self, _stub: ProviderStub, received: Received, argument: str) -> None:
        self._send(Reply(int(argument), b"", {"Location": received.query["to"][0]}))

    def _begin(self, headers: Mapping[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Print nothing."""
