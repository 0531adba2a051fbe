"""The deadline of a sync call: it ends a read of a connected socket, also after TLS has moved the socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bucket_client.connectors.core_http import CallDeadline

CONNECTED = "connection.connect_tcp.complete"


class Stream:
    """The stream that httpx2 reports when it has connected."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def get_extra_info(self, name: str) -> Any:
        return {"socket": self._socket}[name]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.settimeout(10)
    far.settimeout(10)
    with near, far:
        yield near, far


def test_a_read_ends_at_the_deadline(ends: tuple[socket.socket, socket.socket]) -> None:
    with CallDeadline(0.01) as deadline:
        deadline.watch(CONNECTED, {"return_value": Stream(ends[0])})
        assert ends[0].recv(1) == b""
    assert deadline.has_expired


def test_a_read_ends_at_the_deadline_after_tls_has_moved_the_socket(ends: tuple[socket.socket, socket.socket]) -> None:
    with CallDeadline(0.05) as deadline:
        deadline.watch(CONNECTED, {"return_value": Stream(ends[0])})
        with socket.socket(fileno=ends[0].detach()) as moved:
            moved.settimeout(10)
            assert moved.recv(1) == b""


def test_a_socket_that_connects_after_the_deadline_is_shut_down(ends: tuple[socket.socket, socket.socket]) -> None:
    with CallDeadline(0.01) as deadline:
        deadline._timer.join()
        deadline.watch(CONNECTED, {"return_value": Stream(ends[0])})
        assert ends[0].recv(1) == b""


def test_a_call_that_has_ended_is_left_alone(ends: tuple[socket.socket, socket.socket]) -> None:
    with CallDeadline(60) as deadline:
        deadline.watch(CONNECTED, {"return_value": Stream(ends[0])})
    ends[1].sendall(b"x")
    assert ends[0].recv(1) == b"x"
    assert not deadline.has_expired
