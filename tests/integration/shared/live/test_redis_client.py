"""The Redis client while Redis is frozen, killed or restarted."""

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
from shared.live.redis_client import ConnectionReader, connect
from tests.pause_aware_timer import PauseAwareTimer


@pytest.fixture
def reader(client: redis.Redis) -> ConnectionReader:
    return ConnectionReader(client.connection_pool)


@pytest.fixture
def silent_server(tmp_path: Path) -> Iterator[tuple[str, list[socket.socket]]]:
    """Yield the URL of a server that accepts connections and never replies, and its connections."""
    path, calls = tmp_path / "silent.sock", []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def listen() -> None:
            with suppress(OSError):
                while True:
                    calls.append(listener.accept()[0])

        thread = threading.Thread(target=listen)
        thread.start()
        yield f"unix://{path}", calls
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for call in calls:
        call.close()


def test_a_client_fails_within_its_time_and_repeats_nothing(own_redis: tuple[Child, str]) -> None:
    child, url = own_redis
    with closing(connect(url, timeout_s=0.3)) as client:
        client.set("counted", 0)
        child.pause()
        with PauseAwareTimer() as stopwatch, pytest.raises(redis.RedisError):
            client.incr("counted")
        assert stopwatch.seconds < 1
        child.resume()
        with closing(connect(url, timeout_s=10)) as patient:
            assert patient.get("counted") in {b"0", b"1"}, "once at most"


def test_an_existing_key_is_read_and_a_missing_one_is_none(client: redis.Redis, reader: ConnectionReader) -> None:
    client.set("there", b"\x00bytes")
    assert reader.get("there") == b"\x00bytes"
    assert reader.get("not there") is None


def test_reads_at_once_have_a_connection_each_and_later_ones_use_these_again(
    client: redis.Redis, reader: ConnectionReader
) -> None:
    others = {line["id"] for line in client.client_list()}  # they may disappear at any time

    def lines() -> int:
        return len({line["id"] for line in client.client_list()} - others)

    for _ in range(5):
        reader.get("key")
    assert lines() == 1
    together = threading.Barrier(4)

    def read() -> None:
        together.wait(10)
        for _ in range(50):
            assert reader.get("key") is None

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(read) for _ in range(4)]:
            future.result(10)
    assert 1 <= lines() <= 4


def test_a_broken_connection_is_reopened_transparently(client: redis.Redis, reader: ConnectionReader) -> None:
    client.set("key", b"value")
    assert reader.get("key") == b"value"
    assert client.client_kill_filter(_type="normal", skipme=True) >= 1
    assert reader.get("key") == b"value"


def test_a_restarted_redis_is_read_and_a_dead_one_raises(own_redis: tuple[Child, str]) -> None:
    child, url = own_redis
    with closing(connect(url)) as client:
        reader = ConnectionReader(client.connection_pool)
        assert reader.get("key") is None
        child.kill()
        with pytest.raises(redis.ConnectionError):
            reader.get("key")
        child.start()
        child.wait_ready()
        assert reader.get("key") is None


def test_a_late_reply_is_never_used_for_the_next_command(own_redis: tuple[Child, str]) -> None:
    child, url = own_redis
    with closing(connect(url, timeout_s=0.3)) as client:
        client.mset({"first": b"1", "second": b"2"})
        reader = ConnectionReader(client.connection_pool)
        assert reader.get("first") == b"1"
        child.pause()
        with pytest.raises(redis.TimeoutError):
            reader.get("first")
        child.resume()
        child.wait_ready()
        assert reader.get("second") == b"2"


def test_a_redis_that_does_not_reply_gets_each_command_only_once(
    silent_server: tuple[str, list[socket.socket]],
) -> None:
    url, calls = silent_server
    with closing(connect(url, timeout_s=0.1)) as client, pytest.raises(redis.TimeoutError):
        ConnectionReader(client.connection_pool).get("key")
    assert len(calls) == 1


def test_a_value_of_another_type_raises_and_the_connection_stays(client: redis.Redis, reader: ConnectionReader) -> None:
    client.lpush("list", b"1")
    client.set("key", b"value")
    with pytest.raises(redis.ResponseError):
        reader.get("list")
    assert reader.get("key") == b"value"


def test_a_reader_after_a_fork_gets_no_replies_of_the_other_process(redis_url: str, client: redis.Redis) -> None:
    client.mset({f"key{number}": number for number in range(500)})
    program = """
import os, sys
from shared.live.redis_client import ConnectionReader, connect
reader = ConnectionReader(connect(sys.argv[1]).connection_pool)
reader.get("key0")
child = os.fork()
wrong = sum(reader.get(f"key{n}") != str(n).encode() for n in range(500))
if child == 0:
    os._exit(min(wrong, 255))
sys.exit(min(wrong + os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 255))
"""
    ran = subprocess.run([sys.executable, "-c", program, redis_url], check=False, timeout=30)
    assert ran.returncode == 0, "replies that belonged to the other process"
