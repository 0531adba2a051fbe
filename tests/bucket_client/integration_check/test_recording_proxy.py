"""The recording proxy with real sockets: what passes through unchanged, and what each fault does to a connection."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bucket_client.integration_check.recording_proxy import RecordingProxy
from bucket_client.integration_check.scenarios import Fault, FaultPlan, Scenario, ScenarioTimes
from tests.waiting import wait_until

TIMES = ScenarioTimes(restart_s=1.0, hang_s=60.0, retry_after_s=7)
STATE = {"execution_id": "r", "done": False, "rev": 1, "poll_after_ms": 500, "status_url": "/execution-logs/r"}
HEADERS = {"Idempotency_Key": "k", "Authorization": "Bearer secret", "Content_Type": "application/json"}


class Upstream(ThreadingHTTPServer):
    """A server that remembers what arrived, and replies by the path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), UpstreamHandler)
        self.arrived: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class UpstreamHandler(BaseHTTPRequestHandler):
    """Replies to each path as its last part says."""

    protocol_version = "HTTP/1.1"
    server: Upstream

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.arrived.append((self.command, self.path, headers, body))
        content = json.dumps(STATE).encode()
        if "gzip" in self.path:
            content = gzip.compress(content)
        self.send_response({"/empty": 204, "/same": 304}.get(self.path, 200), "As It Is")
        if "gzip" in self.path:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Location", "/execution-logs/r")
        self.send_header("X-Twice", "one")
        self.send_header("X-Twice", "two")
        if self.path not in {"/empty", "/same"}:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and self.path not in {"/empty", "/same"}:
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = handle_request  # noqa: N815 -- the names of http.server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Print nothing."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def through(
    url: str, scenario: Scenario, client: Callable[[RecordingProxy], object], times: ScenarioTimes = TIMES
) -> RecordingProxy:
    """Run ``client`` in a thread while a proxy for ``url`` listens, and return the proxy once it is closed."""

    async def main() -> RecordingProxy:
        async with RecordingProxy(url, FaultPlan(scenario), times) as proxy:
            await asyncio.to_thread(client, proxy)
        return proxy

    return asyncio.run(main())


Reply = tuple[http.client.HTTPResponse, bytes]


def connected(proxy: RecordingProxy, timeout: float = 30.0) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", int(proxy.url.split(":")[2].split("/")[0]), timeout=timeout)


def sent(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    """Send a request on this connection; ``X_Own="1"`` is a header."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, names, encode_chunked="Transfer-Encoding" in names)
    response = connection.getresponse()
    return response, response.read()


def once(proxy: RecordingProxy, method: str, path: str, **headers: str) -> Reply:
    """Send a request on a connection of its own; a POST has a body."""
    with closing(connected(proxy)) as connection:
        return sent(connection, method, path, b"{}" if method == "POST" else None, **headers)


def listens(proxy: RecordingProxy) -> bool:
    try:
        return once(proxy, "GET", "/health")[0].status == 200
    except ConnectionRefusedError:
        return False


def test_requests_and_replies_pass_unchanged_on_one_connection(upstream: Upstream) -> None:
    def client(proxy: RecordingProxy) -> None:
        connection = connected(proxy)
        response, body = sent(connection, "GET", "/executions/a%2Fb?wait=0&x=%20", X_Own="1")
        assert (response.status, response.reason, json.loads(body)) == (200, "As It Is", STATE)
        assert response.headers["Location"] == "/execution-logs/r"
        assert response.headers.get_all("X-Twice") == ["one", "two"]
        response, body = sent(connection, "HEAD", "/executions/r")
        assert (body, response.headers["Content-Length"]) == (b"", str(len(json.dumps(STATE))))
        for path, status in (("/empty", 204), ("/same", 304)):
            response, body = sent(connection, "GET", path)
            assert (response.status, body) == (status, b"")
        response, body = sent(connection, "GET", "/executions/gzip", Accept_Encoding="gzip")
        assert json.loads(gzip.decompress(body)) == STATE
        chunks = (part.encode() for part in ('{"items"', ": []}"))
        sent(connection, "POST", "/executions/poll", chunks, Transfer_Encoding="chunked")
        connection.close()

    exchanges = through(upstream.url, Scenario.PLAIN, client).exchanges
    assert exchanges[4].reply is not None
    assert exchanges[4].reply.poll_after_ms == 500  # it was compressed
    assert [path for _, path, _, _ in upstream.arrived][:2] == ["/executions/a%2Fb?wait=0&x=%20", "/executions/r"]
    assert upstream.arrived[0][2].keys() - {"host", "accept-encoding"} == {"x-own"}
    assert upstream.arrived[-1][3] == b'{"items": []}'


def test_the_path_of_the_servers_address_is_kept_and_is_no_part_of_the_record(upstream: Upstream) -> None:
    def client(proxy: RecordingProxy) -> None:
        assert proxy.url.endswith("/bucket/eu")
        once(proxy, "POST", "/bucket/eu/api/v1/run-basket", **HEADERS)

    [exchange] = through(f"{upstream.url}/bucket/eu/", Scenario.PLAIN, client).exchanges
    assert exchange.request.path == "/run-basket"
    assert exchange.request.keys == ("k",)
    assert "secret" not in repr(exchange)
    [(_, path, headers, _)] = upstream.arrived
    assert path == "/bucket/eu/api/v1/run-basket"
    assert headers["authorization"] == "Bearer secret"


def test_a_lost_reply_is_that_of_the_first_submit_alone_and_its_run_is_recorded(upstream: Upstream) -> None:
    def client(proxy: RecordingProxy) -> None:
        once(proxy, "GET", "/executions/r")
        with pytest.raises(http.client.RemoteDisconnected):
            once(proxy, "POST", "/run-basket", **HEADERS)
        assert once(proxy, "POST", "/run-basket", **HEADERS)[0].status == 200

    exchanges = through(upstream.url, Scenario.LOST_REPLY, client).exchanges
    assert [exchange.was_delivered for exchange in exchanges] == [True, False, True]
    assert exchanges[1].reply is not None
    assert set(exchanges[1].reply.runs) == {"r"}
    assert len(upstream.arrived) == 3


def test_a_busy_server_refuses_the_first_submit_and_the_first_poll_without_asking_the_server(
    upstream: Upstream,
) -> None:
    def client(proxy: RecordingProxy) -> None:
        connection = connected(proxy)
        for method, path in (("POST", "/run-basket"), ("GET", "/executions/r")):
            response, body = sent(connection, method, path, b"{}" if method == "POST" else None)
            assert (response.status, response.headers["Retry-After"]) == (503, "7")
            assert response.headers["Content-Type"] == "application/problem+json"
            assert json.loads(body)["error_code"] == "unavailable"
            assert upstream.arrived == []
        assert sent(connection, "POST", "/run-basket", b"{}")[0].status == 200
        assert sent(connection, "GET", "/executions/r")[0].status == 200
        connection.close()

    through(upstream.url, Scenario.BUSY, client)


def test_a_restart_breaks_connections_and_refuses_new_ones_until_it_listens_on_the_same_port(
    upstream: Upstream,
) -> None:
    def client(proxy: RecordingProxy) -> None:
        idle = connected(proxy)
        sent(idle, "GET", "/health")
        first = connected(proxy)
        assert sent(first, "POST", "/run-basket", b"{}", Prefer="wait=20")[0].status == 200
        for broken in (first, idle):
            assert broken.sock is not None
            assert broken.sock.recv(1) == b""
            broken.close()
        with pytest.raises(ConnectionRefusedError):
            once(proxy, "GET", "/health")
        wait_until(lambda: listens(proxy))
        assert once(proxy, "POST", "/run-basket")[0].status == 200

    through(upstream.url, Scenario.RESTART, client)
    submits = [headers for method, _, headers, _ in upstream.arrived if method == "POST"]
    assert len(submits) == 2
    assert "prefer" not in submits[0]  # a server may always decline to hold


def test_a_hanging_poll_gets_nothing_until_the_client_hangs_up(upstream: Upstream) -> None:
    def client(proxy: RecordingProxy) -> None:
        once(proxy, "GET", "/executions/r")
        once(proxy, "POST", "/run-basket")
        with closing(connected(proxy, timeout=0.2)) as hanging, pytest.raises(TimeoutError):
            sent(hanging, "GET", "/executions/r")
        wait_until(lambda: proxy.client_hung_up)
        assert once(proxy, "GET", "/executions/r")[0].status == 200

    through(upstream.url, Scenario.HANG, client)
    assert len(upstream.arrived) == 3


def test_a_client_without_timeouts_is_disconnected_at_last(upstream: Upstream) -> None:
    def client(proxy: RecordingProxy) -> None:
        once(proxy, "POST", "/run-basket")
        with pytest.raises(http.client.RemoteDisconnected):
            once(proxy, "GET", "/executions/r")

    assert not through(upstream.url, Scenario.HANG, client, ScenarioTimes(hang_s=0.2)).client_hung_up


def test_a_server_that_cannot_be_reached_is_a_bad_gateway() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        [exchange] = through(url, Scenario.PLAIN, lambda proxy: once(proxy, "GET", "/executions/r")).exchanges
    assert exchange.reply is not None
    assert exchange.reply.status == 502


def test_each_scenario_says_which_faults_were_met(upstream: Upstream) -> None:
    plan = FaultPlan(Scenario.BUSY)

    async def main() -> None:
        async with RecordingProxy(upstream.url, plan, TIMES) as proxy:
            await asyncio.to_thread(lambda: once(proxy, "GET", "/health"))
            assert plan.injected == []
            await asyncio.to_thread(lambda: once(proxy, "GET", "/executions/r"))

    asyncio.run(main())
    assert plan.injected == [Fault.REFUSE]
