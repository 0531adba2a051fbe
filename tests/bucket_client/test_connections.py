"""The client's connections: servers that are silent, hang up or redirect; the key; no connection is left open."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from bucket_client import AsyncBucket, Bucket, ServerFault, Unavailable

Reply = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(reply: Reply) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    """Yield the address of a server whose requests all get ``reply``, and its requests."""
    requests: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self)
            reply(self)

        do_POST = do_GET  # noqa: N815 -- the names are those of http.server

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 256  # with 5, connections of a hundred callers at once would be tried again after a second

    listener = Server(("127.0.0.1", 0), Handler)
    thread = Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}", requests
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in (headers | {"Content-Length": str(len(body))}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time(retries: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Bucket(url, timeout=0.2, retries=retries) as bucket, pytest.raises(Unavailable, match="did not reply"):
            bucket.health()


def test_a_server_that_hangs_up_is_asked_again() -> None:
    def hang_up_twice(handler: BaseHTTPRequestHandler) -> None:
        if len(requests) > 2:
            send(handler, 200, b'{"status": "healthy"}')

    with server(hang_up_twice) as (url, requests), Bucket(url) as bucket:
        assert bucket.health() == {"status": "healthy"}
    assert len(requests) == 3


def test_a_redirect_is_not_followed_and_the_key_not_sent_on() -> None:
    with (
        server(lambda handler: send(handler, 200, b"{}")) as (elsewhere, reached),
        server(lambda handler: send(handler, 307, Location=elsewhere)) as (url, _),
        Bucket(url, "a-secret-key", retries=0) as bucket,
        pytest.raises(ServerFault, match="correct the address"),
    ):
        bucket.health()
    assert reached == []


def test_the_key_is_sent_as_a_bearer_token_and_never_shown() -> None:
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 503)

    with (
        server(refuse) as (url, requests),
        Bucket(url, "a-secret-key", retries=0) as bucket,
        pytest.raises(Unavailable) as caught,
    ):
        bucket.run("a", {})
    assert requests[0].headers["Authorization"] == "Bearer a-secret-key"
    assert requests[0].headers["User-Agent"].startswith("bucket-client/")
    assert "a-secret-key" not in repr(caught.value) + str(vars(caught.value))


def test_a_page_of_a_stranger_is_no_reply_of_bucket() -> None:
    with (
        server(lambda handler: send(handler, 200, b"<html>hello</html>")) as (url, _),
        Bucket(url) as bucket,
        pytest.raises(ServerFault, match="does the address lead to Bucket"),
    ):
        bucket.health()


def test_a_path_prefix_of_the_address_is_kept() -> None:
    with (
        server(lambda handler: send(handler, 200, b"{}")) as (url, requests),
        Bucket(f"{url}/behind/a/proxy/") as bucket,
    ):
        bucket.health()
    assert requests[0].path == "/behind/a/proxy/health"


def test_threads_may_share_a_client_and_an_async_client_serves_many_tasks() -> None:
    with server(lambda handler: send(handler, 200, b'{"status": "healthy"}')) as (url, requests):
        with Bucket(url) as bucket, ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(lambda _: bucket.health(), range(100)))) == 100

        async def ask_all() -> int:
            async with AsyncBucket(url) as client:
                return len(await asyncio.gather(*(client.health() for _ in range(100))))

        assert asyncio.run(ask_all()) == 100
    assert len(requests) == 200
