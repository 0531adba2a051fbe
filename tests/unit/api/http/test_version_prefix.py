"""The prefix of the URLs in a reply: /api/v1 if the request had it, and before it that of a trusted proxy."""

from __future__ import annotations

from ipaddress import ip_network

import flask
import pytest

from api.http.version_prefix import TRUSTED_PROXIES, request_prefix

PROXY = "10.1.2.3"


def prefix_of(header: str | None, *, path: str = "/run-basket", peer: str = PROXY, trusted: str = "10.1.0.0/16") -> str:
    app = flask.Flask(__name__)
    app.config[TRUSTED_PROXIES] = [ip_network(network) for network in trusted.split()]
    headers = {} if header is None else {"X-Forwarded-Prefix": header}
    with app.test_request_context(path, headers=headers, environ_overrides={"REMOTE_ADDR": peer}):
        return request_prefix()


@pytest.mark.parametrize("path", ["/run-basket", "/api/v1/run-basket"])
def test_the_prefix_of_a_trusted_proxy_comes_before_that_of_the_version(path: str) -> None:
    version = "/api/v1" if path.startswith("/api/v1/") else ""
    assert prefix_of("/jobs", path=path) == f"/jobs{version}"
    assert prefix_of(None, path=path) == version
    assert prefix_of("/jobs", path=path, peer="10.2.2.3") == version
    assert prefix_of("/jobs", path=path, trusted="") == version


@pytest.mark.parametrize(
    ("header", "prefix"),
    [("/jobs/", "/jobs"), ("/outer, /inner", "/outer/inner"), ("/a/b-c_d.e~1", "/a/b-c_d.e~1"), (" /jobs ", "/jobs")],
)
def test_a_prefix_is_the_path_that_the_proxies_took_off(header: str, prefix: str) -> None:
    assert prefix_of(header) == prefix


@pytest.mark.parametrize(
    "header",
    ["", "/", "jobs", "//evil.example", "/a//b", "/..", "/a/../b", "/./a", "https://evil.example", "/a?b", "/a b",
     "/%2e", "/a" * 9, "/" + "a" * 65, "/\u00e9", "/a\\b", ",//evil.example"],
)  # fmt: skip
def test_a_header_that_is_no_plain_path_is_ignored(header: str) -> None:
    assert prefix_of(header) == ""


@pytest.mark.parametrize(
    ("peer", "trusted", "is_trusted"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("::ffff:10.1.2.3", "10.1.0.0/16", True),
        ("::1", "::1 10.0.0.0/8", True),
        ("fe80::1%eth0", "fe80::/10", True),
        ("::1", "127.0.0.1", False),
        ("", "0.0.0.0/0", False),
        ("/run/bucket.sock", "0.0.0.0/0 ::/0", False),
    ],
)
def test_a_peer_is_trusted_by_its_address(peer: str, trusted: str, is_trusted: bool) -> None:
    assert prefix_of("/jobs", peer=peer, trusted=trusted) == ("/jobs" if is_trusted else "")
