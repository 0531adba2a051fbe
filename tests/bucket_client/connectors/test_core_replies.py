"""Sends to a real HTTP server that replies well, badly, slowly or not at all; sync and async behave alike.

``CoreServer`` and its replies are used by the other tests of the connectors too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, TypeAlias

import pytest

from bucket_client.connectors import (
    ConnectorSettings,
    CoreSendFailed,
    PayloadNotJson,
    connector_metrics,
    send_to_core,
    send_to_core_async,
)
from bucket_client.connectors.failure_log import FailureLog

Reply: TypeAlias = "Callable[[CoreHandler], None]"


@dataclass
class ReceivedCall:
    """One call that the server received."""

    headers: Message
    payload: Any
    replied: threading.Event = field(default_factory=threading.Event)


class CoreServer(ThreadingHTTPServer):
    """A Core on loopback: gives each call the next reply, and the last one for ever."""

    daemon_threads = False

    def __init__(self, *replies: Reply) -> None:
        super().__init__(("127.0.0.1", 0), CoreHandler)
        self.replies, self.calls = replies, list[ReceivedCall]()
        self.closing, self.lock = threading.Event(), threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/bhiv/core"
        self.served = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self.served.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.served.join()
        self.server_close()

    def received(self, call: ReceivedCall) -> Reply:
        with self.lock:
            self.calls.append(call)
            return self.replies[min(len(self.calls), len(self.replies)) - 1]

    @property
    def payloads(self) -> list[Any]:
        return [call.payload for call in self.calls]


class CoreHandler(BaseHTTPRequestHandler):
    server: CoreServer
    timeout = 20
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        call = ReceivedCall(self.headers, json.loads(body))
        reply = self.server.received(call)
        with contextlib.suppress(ConnectionError):  # the client has given up
            reply(self)
        call.replied.set()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name of the standard library
        """Log nothing."""


def replies(status: int = 200, body: bytes = b'{"ok": true}', **headers: str) -> Reply:
    def reply(handler: CoreHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def hangs_up(handler: CoreHandler) -> None:
    handler.close_connection = True


def breaks_a_chunk(handler: CoreHandler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"a"')
    handler.close_connection = True


def speaks_no_http(handler: CoreHandler) -> None:
    handler.wfile.write(b"220 mail.example ESMTP\r\n")
    handler.close_connection = True


def send_async(payload: Any, *args: Any, **options: Any) -> Any:
    return asyncio.run(send_to_core_async(payload, *args, **options))


@pytest.fixture(params=[send_to_core, send_async], ids=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Callable[..., Any]:
    form: Callable[..., Any] = request.param
    return form


@contextlib.contextmanager
def core(folder: Path, *scripted: Reply, **more: Any) -> Iterator[tuple[CoreServer, ConnectorSettings]]:
    with CoreServer(*scripted) as server:
        yield server, ConnectorSettings(server.url, failed_log=folder / "data" / "failed.log", **more)


def logged_in(settings: ConnectorSettings) -> list[Any]:
    return [logged.payload for logged in FailureLog(settings.failed_log).read().sends]


def test_a_payload_is_posted_as_json_and_the_reply_is_parsed(send: Callable[..., Any], tmp_path: Path) -> None:
    with core(tmp_path, replies(body=b'{"id": 7}')) as (server, settings):
        assert send({"a": [1, "é"]}, settings=settings) == {"id": 7}
    (call,) = server.calls
    assert call.payload == {"a": [1, "é"]}
    assert call.headers["Content-Type"] == "application/json"
    assert call.headers["Authorization"] is None
    assert not settings.failed_log.parent.exists()


def test_a_core_that_fails_twice_gets_the_payload_at_the_third_call(send: Callable[..., Any], tmp_path: Path) -> None:
    before = connector_metrics()
    with core(tmp_path, replies(500), hangs_up, replies()) as (server, settings):
        assert send({"a": 1}, backoff=0.001, settings=settings) == {"ok": True}
    assert server.payloads == [{"a": 1}] * 3
    assert len({call.headers["Idempotency-Key"] for call in server.calls}) == 1
    assert not settings.failed_log.exists()
    after = connector_metrics()
    assert after.retries - before.retries == 2
    assert after.sends["sent"] - before.sends["sent"] == 1
    assert after.call_duration.count - before.call_duration.count == 3


def test_a_core_that_always_fails_is_called_so_often_as_asked_and_the_payload_is_logged(
    send: Callable[..., Any], tmp_path: Path
) -> None:
    with core(tmp_path, replies(503)) as (server, settings):
        with pytest.raises(CoreSendFailed, match="503") as caught:
            send({"a": 1}, max_retries=4, backoff=0.001, settings=settings)
        assert (len(server.calls), caught.value.calls, caught.value.status) == (4, 4, 503)
    (logged,) = FailureLog(settings.failed_log).read().sends
    assert logged.payload == {"a": 1}
    assert {call.headers["Idempotency-Key"] for call in server.calls} == {logged.idempotency_key}
    assert caught.value.logged_to == settings.failed_log


@pytest.mark.parametrize("reply", [hangs_up, breaks_a_chunk, speaks_no_http])
def test_a_call_whose_reply_breaks_is_repeated_and_then_logged(
    send: Callable[..., Any], tmp_path: Path, reply: Reply
) -> None:
    with core(tmp_path, reply) as (server, settings):
        with pytest.raises(CoreSendFailed, match=r"ProtocolError|ReadError"):
            send({"a": 1}, 2, 0.001, settings=settings)
        assert len(server.calls) == 2
        assert logged_in(settings) == [{"a": 1}]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (replies(200, b"<html>log in</html>"), "not JSON.*log in"),
        (replies(200, b"[" + b" " * 1024 * 1024 + b"]"), "longer than 1 MiB"),
        (replies(400, b'{"why": "no field a"}'), "400.*no field a"),
        (replies(401, b""), "401"),
    ],
    ids=["html", "long", "400", "401"],
)
def test_a_reply_that_is_final_is_not_repeated_and_is_logged(
    send: Callable[..., Any], tmp_path: Path, reply: Reply, reason: str
) -> None:
    with core(tmp_path, reply) as (server, settings):
        with pytest.raises(CoreSendFailed, match=reason):
            send({"a": 1}, settings=settings)
        assert len(server.calls) == 1
        assert logged_in(settings) == [{"a": 1}]


def test_a_redirect_is_not_followed_and_the_token_stays_here(send: Callable[..., Any], tmp_path: Path) -> None:
    with CoreServer(replies()) as elsewhere:
        redirect = replies(307, b"", Location=elsewhere.url)
        with core(tmp_path, redirect, core_token="t0ken-of-core") as (server, settings):
            with pytest.raises(CoreSendFailed, match=r"307 redirects to .*not followed"):
                send({"a": 1}, settings=settings)
            assert [call.headers["Authorization"] for call in server.calls] == ["Bearer t0ken-of-core"]
        assert elsewhere.calls == []
    assert b"t0ken" not in settings.failed_log.read_bytes()


def test_a_core_that_asks_for_a_pause_gets_it(send: Callable[..., Any], tmp_path: Path) -> None:
    with core(tmp_path, replies(429, Retry_After="0.3"), replies()) as (_, settings):
        began_at = time.monotonic()
        assert send({}, backoff=0.001, settings=settings) == {"ok": True}
        assert time.monotonic() - began_at >= 0.3


def test_an_empty_reply_is_none(send: Callable[..., Any], tmp_path: Path) -> None:
    with core(tmp_path, replies(204, b""), replies(200, b"")) as (_, settings):
        assert send({}, settings=settings) is None
        assert send({}, settings=settings) is None


def test_a_payload_that_is_not_json_is_neither_sent_nor_logged(send: Callable[..., Any], tmp_path: Path) -> None:
    with core(tmp_path, replies()) as (server, settings):
        with pytest.raises(PayloadNotJson):
            send({"a": float("nan")}, settings=settings)
        assert server.calls == []
    assert not settings.failed_log.parent.exists()


def test_the_variables_are_read_at_the_call_and_proxies_are_not(
    send: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BHIV_FAILED_LOG", "BHIV_BUCKET_DIR", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with CoreServer(replies(), replies(400)) as server:
        monkeypatch.setenv("BHIV_CORE_URL", server.url)
        monkeypatch.setenv("BHIV_CORE_TOKEN", "t0ken-of-core")
        assert send({}) == {"ok": True}
        with pytest.raises(CoreSendFailed):
            send({})
        assert server.calls[0].headers["Authorization"] == "Bearer t0ken-of-core"
    assert (tmp_path / "data" / "failed_core_sends.log").exists()
