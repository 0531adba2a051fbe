"""What a client of Redis does where Redis falls silent, falls, or comes back."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
import redis

from compose.embedded.managed_process import Child
from shared.live.redis_client import ThreadLocalReader, connect
from tests.pause_aware_timer import Stopwatch
from tests.waiting import wait_until


@pytest.fixture
def reader(client: redis.Redis) -> ThreadLocalReader:
    return ThreadLocalReader(client.connection_pool)


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[str, list[socket.socket]]]:
    """The address of somebody who takes every call and says nothing, and the calls."""
    place, calls = tmp_path / "silent.sock", []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()

        def listen() -> None:
            with suppress(OSError):
                while True:
                    calls.append(listener.accept()[0])

        thread = threading.Thread(target=listen)
        thread.start()
        yield f"unix://{place}", calls
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for call in calls:
        call.close()


def test_a_client_fails_within_its_time_and_repeats_nothing(own_redis: tuple[Child, str]) -> None:
    child, url = own_redis
    with closing(connect(url, timeout_s=0.3)) as client:
        client.set("counted", 0)
        child.pause()
        with Stopwatch() as took, pytest.raises(redis.RedisError):
            client.incr("counted")
        assert took.seconds < 1
        child.resume()
        with closing(connect(url, timeout_s=10)) as patient:
            assert patient.get("counted") in {b"0", b"1"}, "once at most"


def test_what_is_there_is_read_and_what_is_not_is_none(client: redis.Redis, reader: ThreadLocalReader) -> None:
    client.set("there", b"\x00bytes")
    assert reader.get("there") == b"\x00bytes"
    assert reader.get("not there") is None


def test_each_thread_has_one_connection_until_it_ends(client: redis.Redis, reader: ThreadLocalReader) -> None:
    others = {line["id"] for line in client.client_list()}  # which may go at any moment

    def lines() -> int:
        return len({line["id"] for line in client.client_list()} - others)

    together = threading.Barrier(3)

    def read() -> None:
        for _ in range(5):
            reader.get("key")
        together.wait(10)
        together.wait(10)

    with ThreadPoolExecutor(2) as threads:
        ended = [threads.submit(read) for _ in range(2)]
        together.wait(10)
        assert lines() == 2
        together.wait(10)
        for one in ended:
            one.result(10)
    wait_until(lambda: lines() == 0, what="the lines of threads that are gone are given up")


def test_a_line_that_fell_is_taken_up_again_unnoticed(client: redis.Redis, reader: ThreadLocalReader) -> None:
    client.set("key", b"value")
    assert reader.get("key") == b"value"
    assert client.client_kill_filter(_type="normal", skipme=True) >= 1
    assert reader.get("key") == b"value"


def test_a_redis_that_came_back_is_read_and_one_that_is_gone_is_told(own_redis: tuple[Child, str]) -> None:
    child, url = own_redis
    with closing(connect(url)) as client:
        reader = ThreadLocalReader(client.connection_pool)
        assert reader.get("key") is None
        child.kill()
        with pytest.raises(redis.ConnectionError):
            reader.get("key")
        child.start()
        child.wait_ready()
        assert reader.get("key") is None


def test_an_answer_that_comes_too_late_is_never_taken_for_the_next(own_redis: tuple[Child, str]) -> None:
    child, url = own_redis
    with closing(connect(url, timeout_s=0.3)) as client:
        client.mset({"first": b"1", "second": b"2"})
        reader = ThreadLocalReader(client.connection_pool)
        assert reader.get("first") == b"1"
        child.pause()
        with pytest.raises(redis.TimeoutError):
            reader.get("first")
        child.resume()
        child.wait_ready()
        assert reader.get("second") == b"2"


def test_a_redis_that_does_not_answer_is_not_asked_twice(silent: tuple[str, list[socket.socket]]) -> None:
    url, calls = silent
    with closing(connect(url, timeout_s=0.1)) as client, pytest.raises(redis.TimeoutError):
        ThreadLocalReader(client.connection_pool).get("key")
    assert len(calls) == 1


def test_a_value_of_another_kind_is_told_and_the_line_stands(client: redis.Redis, reader: ThreadLocalReader) -> None:
    client.lpush("list", b"1")
    client.set("key", b"value")
    with pytest.raises(redis.ResponseError):
        reader.get("list")
    assert reader.get("key") == b"value"


def test_a_reader_that_crossed_a_fork_hears_no_answers_of_the_other_process(
    redis_url: str, client: redis.Redis
) -> None:
    client.mset({f"key{number}": number for number in range(500)})
    program = """
import os, sys
from shared.live.redis_client import Reader, connect
reader = Reader(connect(sys.argv[1]).connection_pool)
reader.get("key0")
child = os.fork()
wrong = sum(reader.get(f"key{n}") != str(n).encode() for n in range(500))
if child == 0:
    os._exit(min(wrong, 255))
sys.exit(min(wrong + os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 255))
"""
    ran = subprocess.run([sys.executable, "-c", program, redis_url], check=False, timeout=30)
    assert ran.returncode == 0, "so many answers were another's"
