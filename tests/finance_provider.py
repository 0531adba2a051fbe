"""A provider of transactions for tests: a real HTTP server in a thread, with pages, delays and faults.

It speaks the protocol of docs/financial-coordinator.md, and keeps what it was asked: how often each account was
fetched (``fetches``, by its first page), and which transactions were added, by their ``Idempotency-Key``.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from worker.agent_errors import PermanentError, TransientError

Transactions = Mapping[str, list[dict[str, Any]]]


class FinanceProvider:
    """The provider's data and behaviour; a test may change both while it runs."""

    def __init__(self, transactions: Transactions, *, page_size: int = 100, delay_s: float = 0.0) -> None:
        self.transactions = {account: list(entries) for account, entries in transactions.items()}
        self.page_size = page_size
        self.delay_s = delay_s
        self.fetches: Counter[str] = Counter()
        self.requests: list[str] = []
        self.posts: dict[str, dict[str, Any]] = {}
        self.post_count = 0
        self.reports: Any = None
        self.body: bytes | None = None
        """Sent to every GET, if it is set."""
        self.status_of: Callable[[str], int] = lambda _account: 200
        """The status of a GET for an account ("" for all)."""
        self.url = ""
        self._lock = threading.Lock()

    def get(self, path: str, query: Mapping[str, list[str]]) -> tuple[int, bytes]:
        """Return the status and body of a GET."""
        account = query.get("account", [""])[0]
        with self._lock:
            self.requests.append(path)
            if "cursor" not in query:
                self.fetches[account] += 1
        time.sleep(self.delay_s)
        if (status := self.status_of(account)) != 200:
            return status, b'{"message": "told to fail"}'
        if self.body is not None:
            return 200, self.body
        if path == "/reports":
            return (200, json.dumps(self.reports).encode()) if self.reports is not None else (404, b"{}")
        return 200, json.dumps(self._page(account, int(query.get("cursor", ["0"])[0]))).encode()

    def post(self, key: str, entry: dict[str, Any]) -> tuple[int, bytes]:
        """Add a transaction once for each key, and return it."""
        with self._lock:
            self.post_count += 1
            is_new = key not in self.posts
            added = self.posts.setdefault(key, entry)
            if is_new:
                self.transactions.setdefault(entry.get("account", ""), []).append(entry)
        return (201 if is_new else 200), json.dumps({"transaction": added}).encode()

    def _page(self, account: str, start: int) -> dict[str, Any]:
        everything = [entry for entries in self.transactions.values() for entry in entries]
        found = self.transactions.get(account, []) if account else everything
        end = start + self.page_size
        return {"transactions": found[start:end], "next": str(end) if end < len(found) else None}


@contextmanager
def serve(provider: FinanceProvider) -> Iterator[FinanceProvider]:
    """Serve ``provider`` on a free port of the loopback interface while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else a reply in two packets takes 40 ms

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._send(*provider.get(parts.path, parse_qs(parts.query)))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(*provider.post(self.headers.get("Idempotency-Key", ""), json.loads(body)))

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a worker that is killed resets its connections

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    provider.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class StatusError(Exception):
    """What the gateway raises for a reply of 4xx or 5xx, as far as the agent looks at it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the provider answered {status}")
        self.status = status
        self.kind = "server_error" if status >= 500 else "client_error"
        self.retry_after_s = None


class TransientStatus(StatusError, TransientError):
    """5xx."""


class PermanentStatus(StatusError, PermanentError):
    """4xx."""


class PlainHttp:
    """A real HTTP client with the calls and errors of the gateway, and none of its retries."""

    def __init__(self) -> None:
        self._client = httpx2.Client(timeout=10, trust_env=False)

    def request(self, method: str, url: str, **options: Any) -> Any:
        for name in ("critical", "fallback"):
            options.pop(name, None)
        if key := options.pop("idempotency_key", None):
            options["headers"] = {"Idempotency-Key": key}
        try:
            response = self._client.request(method, url, **options)
        except httpx2.TransportError as error:
            raise ConnectionError(str(error)) from error
        if response.status_code >= 400:
            kind = TransientStatus if response.status_code >= 500 else PermanentStatus
            raise kind(response.status_code)
        return response

    def get(self, url: str, **options: Any) -> Any:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> Any:
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Any) -> Any:
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Any) -> Any:
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> Any:
        return self.request("DELETE", url, **options)

    def close(self) -> None:
        self._client.close()
