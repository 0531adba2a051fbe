"""A thread waits on a keep-alive connection only if the next request follows at once."""

from __future__ import annotations

import contextlib
import io
import math
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from api.gthread_keepalive import KeepAliveThreads
from api.timed_socket import TimedSocket
from tests.waiting import wait_until

THREADS = 8


class Connection(SimpleNamespace):
    """A fake of gunicorn's connection; each byte that the other end sends is a request."""

    def __init__(self, sock: socket.socket, answered_at: float) -> None:
        unreader = SimpleNamespace(buf=io.BytesIO())
        super().__init__(sock=sock, parser=SimpleNamespace(unreader=unreader), answered_at=answered_at)


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def ends(sockets: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    return pair(sockets)


def pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    return stack.enter_context(TimedSocket.adopt(ours)), stack.enter_context(theirs)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> KeepAliveThreads:
    def handle(self: Any, conn: Any) -> bool:
        self.answered += 1
        return bool(conn.sock.recv(1))

    monkeypatch.setattr(ThreadWorker, "__init__", lambda self: setattr(self, "cfg", SimpleNamespace(threads=THREADS)))
    monkeypatch.setattr(ThreadWorker, "handle", handle)
    monkeypatch.setattr(ThreadWorker, "init_process", lambda _: None)
    monkeypatch.setattr(ThreadWorker, "enqueue_req", lambda *_: None)
    worker = KeepAliveThreads()
    worker.init_process()
    worker.alive, worker.answered = True, 0
    return worker


def fast_caller(sock: socket.socket) -> Any:
    return Connection(sock, answered_at=math.inf)


def test_requests_that_follow_closely_are_answered_in_one_go(
    worker: Any, ends: tuple[socket.socket, socket.socket]
) -> None:
    ends[1].sendall(b"123")
    assert worker.handle(fast_caller(ends[0])) is True
    assert worker.answered == 3


def test_a_caller_who_hangs_up_is_not_kept(worker: Any, ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].sendall(b"1")
    ends[1].shutdown(socket.SHUT_WR)
    assert worker.handle(fast_caller(ends[0])) is False


def test_a_new_caller_and_a_slow_one_are_left_to_the_main_thread(
    worker: Any, ends: tuple[socket.socket, socket.socket]
) -> None:
    ends[1].sendall(b"12")
    connection = Connection(ends[0], answered_at=time.monotonic() - 0.25)
    assert worker.handle(connection) is True
    assert worker.answered == 1
    connection.answered_at = math.inf
    worker.handle(connection)
    assert worker.answered == 2, "what was left is answered next time"


def test_no_caller_is_waited_for_while_a_request_needs_a_thread_or_the_process_ends(
    worker: Any, ends: tuple[socket.socket, socket.socket]
) -> None:
    ends[1].sendall(b"1234")
    for _ in range(THREADS + 1):
        worker.enqueue_req(None)
    worker.handle(fast_caller(ends[0]))
    assert worker.answered == 1
    worker.alive = False
    worker.handle(fast_caller(ends[0]))
    assert worker.answered == 2
    worker.alive = True
    worker.handle(fast_caller(ends[0]))
    assert worker.answered == 4


def test_all_waiting_threads_yield_once_a_request_finds_no_idle_thread(
    worker: Any, monkeypatch: pytest.MonkeyPatch, sockets: contextlib.ExitStack
) -> None:
    monkeypatch.setattr("api.gthread_keepalive.WAIT_S", 60.0)
    pairs = [pair(sockets) for _ in range(3)]
    for _ in range(THREADS):
        worker.enqueue_req(None)
    waiting = [threading.Thread(target=worker.handle, args=(fast_caller(ours),), daemon=True) for ours, _ in pairs]
    for thread, (_, theirs) in zip(waiting, pairs, strict=True):
        theirs.sendall(b"1")
        thread.start()
    wait_until(lambda: worker.answered == len(pairs), what="the first requests are answered")
    waiting[0].join(0.1)
    assert all(thread.is_alive() for thread in waiting), "they wait for the next ones"
    for _ in pairs:
        worker.enqueue_req(None)
    for thread in waiting:
        thread.join(5)
    assert not any(thread.is_alive() for thread in waiting)
    assert worker._requests == THREADS


def test_callers_are_waited_for_again_once_the_crowd_is_gone(
    worker: Any, ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.gthread_keepalive.WAIT_S", 60.0)
    for _ in range(THREADS + 1):
        worker.enqueue_req(None)
    worker._count(-1)
    ends[1].sendall(b"1")
    waiting = threading.Thread(target=worker.handle, args=(fast_caller(ends[0]),), daemon=True)
    waiting.start()
    wait_until(lambda: worker.answered == 1, what="the first request is answered")
    waiting.join(0.1)
    assert waiting.is_alive(), "it waits for the next one"
    ends[1].shutdown(socket.SHUT_WR)
    waiting.join(5)
    assert (waiting.is_alive(), worker.answered) == (False, 2)


def test_a_connection_whose_next_request_was_read_ahead_is_not_waited_for(
    worker: Any, ends: tuple[socket.socket, socket.socket]
) -> None:
    ends[1].sendall(b"12")
    connection = fast_caller(ends[0])
    connection.parser.unreader.buf.write(b"GET")
    worker.handle(connection)
    assert worker.answered == 1


def test_a_thread_is_counted_while_it_works_and_given_back_also_after_an_error(
    worker: Any, ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def broken(self: Any, _: Any) -> bool:
        counts.append(self._requests)
        raise ConnectionResetError

    monkeypatch.setattr(ThreadWorker, "handle", broken)
    for _ in range(2):
        worker.enqueue_req(None)
        with pytest.raises(ConnectionResetError):
            worker.handle(fast_caller(ends[0]))
    assert (counts, worker._requests) == ([1, 1], 0)
