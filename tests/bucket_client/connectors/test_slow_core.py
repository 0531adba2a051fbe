"""Sends to a server that is slow: a call is ended in time, whatever the server sends meanwhile."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bucket_client.connectors import ConnectorSettings, CoreSendFailed, send_to_core
from tests.bucket_client.connectors.test_core_replies import (
    CoreHandler,
    Reply,
    core,
    logged_in,
    replies,
    send_async,
)


@pytest.fixture(params=[send_to_core, send_async], ids=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Callable[..., Any]:
    form: Callable[..., Any] = request.param
    return form


def drips(start: bytes, byte: bytes) -> Reply:
    """Reply with ``start``, and then a byte now and then until the client has gone."""

    def reply(handler: CoreHandler) -> None:
        handler.wfile.write(start)
        while not handler.server.closing.wait(0.02):
            handler.wfile.write(byte)

    return reply


def hangs(handler: CoreHandler) -> None:
    handler.server.closing.wait(20)


@pytest.mark.parametrize(
    "slow",
    [
        hangs,
        drips(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b" "),
        drips(b"HTTP/1.1 200 OK\r\n\r\n{}", b" "),  # the end of the connection is the end of the body
        drips(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    ],
    ids=["hangs", "drips-body", "drips-open-body", "drips-headers"],
)
def test_a_slow_call_is_ended_and_the_payload_is_logged(send: Callable[..., Any], tmp_path: Path, slow: Reply) -> None:
    began_at = time.monotonic()
    # The first reply leaves a connection that could be used again; its call may also have to import what it needs.
    with core(tmp_path, replies(500), slow, call_timeout_s=1.0) as (server, settings):
        with pytest.raises(CoreSendFailed, match=r"no complete reply within 1 s"):
            send({"a": 1}, 2, 0.001, settings=settings)
        assert len(server.calls) == 2
        assert time.monotonic() - began_at < 10
        assert logged_in(settings) == [{"a": 1}]


def test_a_slow_tls_handshake_is_ended_too(send: Callable[..., Any], tmp_path: Path) -> None:
    ended = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB begins
            while not ended.wait(0.02):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=drip, args=[listener])
        server.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        settings = ConnectorSettings(url, failed_log=tmp_path / "failed.log", call_timeout_s=1)
        try:
            with pytest.raises(CoreSendFailed, match="no complete reply"):
                send({}, 1, settings=settings)
        finally:
            ended.set()
            server.join()


def test_a_call_that_ends_in_time_is_not_ended_by_the_deadline(send: Callable[..., Any], tmp_path: Path) -> None:
    def pauses(handler: CoreHandler) -> None:
        handler.server.closing.wait(0.05)
        replies()(handler)

    with core(tmp_path, pauses) as (_, settings):
        assert send({}, 1, settings=settings) == {"ok": True}
