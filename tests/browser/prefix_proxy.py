"""A reverse proxy that serves a stack below a path, as an operator's nginx would: it takes the path off and says so."""

from __future__ import annotations

import http.client
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

_OWN_HEADERS: Final = frozenset({"connection", "transfer-encoding", "content-length", "server", "date"})


class PrefixProxy:
    """Serves the server at ``target`` below ``prefix`` while the block runs; anything else is 404."""

    def __init__(self, target: str, prefix: str) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(urlsplit(target).netloc, prefix))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}{prefix}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler_of(target: str, prefix: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._forward(None)

        def do_POST(self) -> None:
            self._forward(self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def _forward(self, body: bytes | None) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            connection = http.client.HTTPConnection(target, timeout=30)
            headers = {**self.headers, "X-Forwarded-Prefix": prefix}
            connection.request(self.command, self.path.removeprefix(prefix), body, headers)
            reply = connection.getresponse()
            content = reply.read()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in _OWN_HEADERS:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            with suppress(ConnectionError):  # the window has gone to another page meanwhile
                self.end_headers()
                self.wfile.write(content)
            connection.close()

    return Handler
