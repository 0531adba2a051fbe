"""A proxy before an API that does to polls what some proxies do, for the programs of the guides.

It never holds a poll (it takes ``wait`` away) and never revalidates one (it takes ``If-None-Match`` away), as nginx's
``proxy_cache`` and Varnish do; it returns 503 with ``Retry-After`` to the first request of each path.
"""

from __future__ import annotations

import http.client
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

RETRY_AFTER_S: Final = 2
_TAKEN_AWAY: Final = {"if-none-match", "host", "connection", "accept-encoding"}


class HostileProxy:
    """A context that proxies to ``target``, and records the time and path of each request."""

    def __init__(self, target: str) -> None:
        self.requests: list[tuple[float, str]] = []
        self._target = urlsplit(target).netloc
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy.forward(self)

            do_POST = do_PUT = do_GET  # noqa: N815  the names are those of http.server

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def forward(self, handler: BaseHTTPRequestHandler) -> None:
        """Reply to one request with what the API replies, or with 503 to the first of its path."""
        address = urlsplit(handler.path)
        is_first = all(path != address.path for _, path in self.requests)
        self.requests.append((time.monotonic(), address.path))
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if is_first:
            handler.send_response(503)
            handler.send_header("Retry-After", str(RETRY_AFTER_S))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        query = urlencode([pair for pair in parse_qsl(address.query) if pair[0] != "wait"])
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in _TAKEN_AWAY}
        connection = http.client.HTTPConnection(self._target, timeout=20)
        connection.request(handler.command, f"{address.path}?{query}", body or None, headers)
        response = connection.getresponse()
        content = response.read()
        handler.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in {"connection", "transfer-encoding", "date", "server"}:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)
        connection.close()

    def early_repeats(self) -> list[str]:
        """Return the paths that were requested again before the Retry-After of their 503 was over."""
        early = []
        for path in {path for _, path in self.requests}:
            first, *later = (at for at, requested in self.requests if requested == path)
            if not later or later[0] - first < RETRY_AFTER_S:
                early.append(path)
        return early

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
