"""TLS is for the name of the URL, whatever address it resolves to; a certificate that is not trusted ends the call."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.integration.worker.gateway.conftest import Harness
from tests.tls_proxy import Authority
from worker.gateway.gateway_errors import GatewayError


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class _Server(HTTPServer):
    def handle_error(self, *_: object) -> None:
        """Print nothing: a handshake that the caller ends is no fault."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "authority")


@pytest.fixture
def names_and_port(authority: Authority) -> Iterator[tuple[list[str | None], int]]:
    """Serve HTTPS with a certificate for ``localhost``; yield the names that callers ask for, and the port."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.localhost, authority.localhost_key)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield names, server.server_address[1]
    server.shutdown()
    server.server_close()


def test_the_certificate_is_that_of_the_name(
    harness: Harness,
    authority: Authority,
    names_and_port: tuple[list[str | None], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names, port = names_and_port
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    outbound = harness.outbound(lambda *_: ["127.0.0.1"], [f"localhost:{port}", f"other.example:{port}", "127.0.0.1"])
    assert harness.gateway(outbound).get(f"https://localhost:{port}/").status_code == 204
    with pytest.raises(
        GatewayError, match=r"certificate: the certificate of other\.example.* is not trusted: Hostname mism"
    ):
        harness.gateway(outbound).get(f"https://other.example:{port}/")
    assert names == ["localhost", "other.example"]


def test_an_authority_that_is_not_known_is_not_trusted(
    harness: Harness, names_and_port: tuple[list[str | None], int]
) -> None:
    names, port = names_and_port
    with pytest.raises(GatewayError) as caught:
        harness.gateway(harness.outbound(hosts=[f"localhost:{port}"])).get(f"https://localhost:{port}/")
    assert caught.value.kind == "certificate"
    assert len(names) == 1, "no repeat"
