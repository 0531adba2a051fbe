"""What ``bucket`` says to a caller whom the server refuses: without a key, and beyond a limit."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from bucket_client.cli import commands

Reply = tuple[int, dict[str, Any], dict[str, str]]
Serve = Callable[[Reply], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Yield a function that starts a server, which gives one reply to each request, and returns its address."""
    servers: list[HTTPServer] = []

    def start(reply: Reply) -> str:
        status, document, headers = reply
        body = json.dumps(document).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_arguments: Any) -> None:
                """Print nothing."""

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_health_without_a_key_shows_the_status_and_how_to_see_more(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    url = serve((200, {"status": "healthy"}, {}))
    assert commands.run(["health", "--url", url]) == 0
    printed = capsys.readouterr()
    assert printed.out == "healthy\n"
    assert "BUCKET_API_KEY" in printed.err
    assert commands.run(["health", "--url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"status": "healthy"}


def test_a_missing_key_names_the_variable(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"status": 401, "error_code": "unauthenticated", "detail": "This request needs a key."}
    url = serve((401, problem, {}))
    assert commands.run(["list", "--url", url]) == 4
    assert "BUCKET_API_KEY" in capsys.readouterr().err
    commands.run(["list", "--url", url, "--json"])
    assert "BUCKET_API_KEY" in json.loads(capsys.readouterr().err)["hints"][0]


def test_a_submit_beyond_a_quota_was_not_made(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"status": 429, "error_code": "quota_exceeded", "detail": "nothing was stored"}
    url = serve((429, problem, {"Retry-After": "54000"}))
    assert commands.run(["run", "working_test", "-i", "{}", "--url", url]) == 3
    said = capsys.readouterr().err
    assert "nothing was submitted" in said
    assert "not known" not in said
