"""The head of a reply leaves together with its body, and limits of time hold as gunicorn sets them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]
from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped]
from gunicorn.util import close_graceful  # type: ignore[import-untyped]

from api.timed_socket import TimedSocket
from shared.errors import RequestTimeout


@pytest.fixture
def ends() -> Iterator[tuple[TimedSocket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # which keeps what was sent together
    with contextlib.ExitStack() as stack:
        timed = stack.enter_context(TimedSocket.adopt(ours))
        yield timed, stack.enter_context(theirs)


def test_a_head_is_sent_with_the_first_part_of_its_body(ends: tuple[TimedSocket, socket.socket]) -> None:
    ours, theirs = ends
    ours.hold_head()
    for part in (b"head ", b"body ", b"more"):
        ours.sendall(part)
    ours.send_head()
    assert [theirs.recv(100), theirs.recv(100)] == [b"head body ", b"more"]
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)


def test_a_head_without_a_body_is_sent_at_the_end(ends: tuple[TimedSocket, socket.socket]) -> None:
    ours, theirs = ends
    ours.hold_head()
    ours.sendall(b"head")
    ours.send_head()
    ours.sendall(b"next")
    assert [theirs.recv(100), theirs.recv(100)] == [b"head", b"next"]


def test_after_a_failure_the_error_reply_is_all_that_is_sent(ends: tuple[TimedSocket, socket.socket]) -> None:
    ours, theirs = ends
    ours.hold_head()
    ours.sendall(b"head")
    ours.drop_head()
    ours.sendall(b"error")
    assert theirs.recv(100) == b"error"


def test_a_file_is_sent_after_its_head(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"body")
    ours, theirs = socket.socketpair()
    with TimedSocket.adopt(ours) as timed, theirs, (tmp_path / "file").open("rb") as file:
        timed.hold_head()
        timed.sendall(b"head ")
        timed.sendfile(file)
        timed.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: theirs.recv(100), b"")) == b"head body"


def test_each_call_can_be_limited(ends: tuple[TimedSocket, socket.socket]) -> None:
    ours, _ = ends
    ours.settimeout(0.05)
    assert ours.gettimeout() == 0.05
    with pytest.raises(TimeoutError):
        ours.recv(1)
    with pytest.raises(TimeoutError):
        send_endlessly(ours)


def test_a_reply_of_any_length_is_sent_whole() -> None:
    ours, theirs = socket.socketpair()
    reply = bytes(range(256)) * 20_000
    with TimedSocket.adopt(ours) as timed, theirs, ThreadPoolExecutor(1) as reader:
        received = reader.submit(lambda: b"".join(iter(lambda: theirs.recv(65_536), b"")))
        timed.sendall(reply)
        timed.shutdown(socket.SHUT_WR)
        assert received.result(10) == reply


def test_a_reply_that_is_not_read_is_given_up(
    ends: tuple[TimedSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.timed_socket.REQUEST_TIMEOUT_S", 0.05)
    with pytest.raises(TimeoutError):
        send_endlessly(ends[0])


def test_a_caller_that_stays_idle_counts_as_gone(
    ends: tuple[TimedSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.timed_socket.IDLE_TIMEOUT_S", 0.05)
    ours, _ = ends
    ours.await_request()
    assert ours.recv(1) == b""


def test_at_the_end_an_idle_caller_counts_as_gone_after_what_it_has_sent() -> None:
    ours, theirs = socket.socketpair()
    with TimedSocket.adopt(ours) as timed, theirs:
        theirs.sendall(b"GET")
        timed.release_idle()
        assert [timed.recv(3), timed.recv(3)] == [b"GET", b""]


def test_at_the_end_a_request_that_has_begun_is_read() -> None:
    ours, theirs = socket.socketpair()
    with TimedSocket.adopt(ours) as timed, theirs:
        theirs.sendall(b"GET")
        assert timed.recv(3) == b"GET"
        timed.release_idle()
        theirs.sendall(b" / ")
        assert timed.recv(3) == b" / "


def test_a_request_has_a_deadline_and_what_gunicorn_drops_after_it_has_not(
    ends: tuple[TimedSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = ends
    monkeypatch.setattr("api.timed_socket.HEADERS_TIMEOUT_S", 0)
    theirs.sendall(b"G")
    assert ours.recv(1) == b"G"
    with pytest.raises(RequestTimeout):
        ours.recv(1)
    theirs.sendall(b"the rest")
    close_graceful(ours, timeout=0.05)  # the client does not close: it gives up, without an error
    assert ours.fileno() == -1
    assert theirs.recv(1) == b"", "it was closed"


def test_at_the_end_the_request_in_progress_is_the_last_one(ends: tuple[TimedSocket, socket.socket]) -> None:
    ours, _ = ends
    closed: list[str] = []
    ours.end_after_request()
    ours.begin_body(lambda: closed.append("first"))
    ours.end_after_request()
    ours.await_request()
    ours.end_after_request()
    assert closed == ["first"]


def test_a_body_that_is_not_read_ends_the_connection_without_a_second_reply(
    ends: tuple[TimedSocket, socket.socket],
) -> None:
    ours, theirs = ends
    theirs.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
    parser = RequestParser(Config(), ours, ("127.0.0.1", 1))
    next(parser)
    assert parser.finish_body(deadline=time.monotonic() + 0.05) is False


def send_endlessly(ours: TimedSocket) -> None:
    while True:
        ours.sendall(b"x" * 4096)
