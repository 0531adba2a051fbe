"""Connections of the gateway: resolves a name once, checks each address, and connects to an address that was checked.

This module imports the HTTP library, which takes 20 MB: it is imported at an agent's first call and never before.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpcore2
import httpx2

from shared.outbound_hosts import Address, OutboundHosts, parse_address

Resolver = Callable[[str, int], Sequence[str]]
"""Returns the addresses of a host and port, as texts; raises OSError if there are none."""

CONNECT_TIMEOUT_S: Final = 10.0
_CONNECTIONS_MAX: Final = 32
_IDLE_MAX: Final = 8
_IDLE_S: Final = 15.0
_due_at: ContextVar[float] = ContextVar("due_at", default=float("inf"))


class AddressNotAllowed(Exception):
    """A name resolved to an address that may not be called."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let all input and output of this thread's request end within ``seconds``, however little comes at a time."""
    token = _due_at.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _due_at.reset(token)


class PoolTransport(httpx2.BaseTransport):
    """A pool of connections that only lead to checked addresses, and one through a proxy if there is one.

    Hosts that are addresses, and ``localhost``, are called without the proxy.
    """

    def __init__(self, hosts: OutboundHosts, resolve: Resolver | None = None, proxy: str = "") -> None:
        """Open nothing yet; ``resolve`` is how names become addresses, ``proxy`` the URL of a proxy."""
        limits: dict[str, Any] = {
            "ssl_context": httpcore2.default_ssl_context(),  # one for all connections: to make it takes 25 ms
            "max_connections": _CONNECTIONS_MAX,
            "max_keepalive_connections": _IDLE_MAX,
            "keepalive_expiry": _IDLE_S,
        }
        resolve = resolve or resolve_name
        self._pool = httpcore2.ConnectionPool(network_backend=CheckedNetwork(hosts.allows_address, resolve), **limits)
        self._proxied: httpcore2.ConnectionPool | None = None
        if proxy:
            # The proxy itself may be anywhere: it is the operator's. It resolves the names.
            network = CheckedNetwork(lambda _host, _address: True, resolve)
            address, auth = _split_credentials(proxy)
            self._proxied = httpcore2.HTTPProxy(address, auth, network_backend=network, **limits)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; errors are those of httpcore2, and AddressNotAllowed."""
        url = request.url
        response = self._pool_of(url.host).handle_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx2.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response.stream),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()
        if self._proxied is not None:
            self._proxied.close()

    def _pool_of(self, host: str) -> httpcore2.ConnectionPool:
        is_direct = self._proxied is None or host == "localhost" or parse_address(host) is not None
        return self._pool if is_direct or self._proxied is None else self._proxied


class _Body(httpx2.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._stream.close()


class CheckedNetwork(httpcore2.NetworkBackend):
    """Connects to addresses that were checked, within the time limit of the request."""

    def __init__(self, allows: Callable[[str, Address], bool], resolve: Resolver) -> None:
        """``allows`` returns whether a connection for a host may lead to an address."""
        self._allows = allows
        self._resolve = resolve
        self._network = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address of ``host`` that accepts; raises AddressNotAllowed if one may not be called."""
        limit_s = CONNECT_TIMEOUT_S if timeout is None else min(timeout, CONNECT_TIMEOUT_S)
        addresses = self._checked_addresses(host, port, _remaining(limit_s, httpcore2.ConnectTimeout))
        failure: Exception | None = None
        for address in addresses:
            try:
                stream = self._network.connect_tcp(
                    address, port, _remaining(limit_s, httpcore2.ConnectTimeout), local_address, socket_options
                )
                return TimedStream(stream)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        try:
            raise failure or httpcore2.ConnectError("the name has no address")
        finally:
            del failure  # its traceback holds this frame

    def _checked_addresses(self, host: str, port: int, limit_s: float) -> list[str]:
        try:
            addresses = [str(ipaddress.ip_address(host))]
        except ValueError:
            addresses = [*dict.fromkeys(_resolve_within(self._resolve, host, port, limit_s))]
        for text in addresses:
            if not self._allows(host, ipaddress.ip_address(text)):
                raise AddressNotAllowed(
                    f"{host} resolves to a private address, which BUCKET_OUTBOUND_HOSTS does not name"
                )
        return addresses


class TimedStream(httpcore2.NetworkStream):
    """A connection whose reads and writes end when the request's time is over."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what has come."""
        return self._stream.read(max_bytes, _remaining(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of ``buffer``."""
        self._stream.write(buffer, _remaining(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Begin TLS for the name of the URL, not for the address."""
        limit_s = _remaining(timeout, httpcore2.ConnectTimeout)
        return TimedStream(self._stream.start_tls(ssl_context, server_hostname, limit_s))

    def get_extra_info(self, info: str) -> Any:
        """Return a fact about the connection."""
        return self._stream.get_extra_info(info)


def resolve_name(host: str, port: int) -> list[str]:
    """Return the addresses of ``host`` as the operating system resolves it."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _split_credentials(proxy: str) -> tuple[str, tuple[str, str] | None]:
    """Return the address of a proxy without user and password, and these."""
    parts = urlsplit(proxy)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    auth = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return f"{parts.scheme}://{host}:{parts.port}", auth


def _remaining(limit_s: float | None, timeout_error: type[Exception]) -> float:
    remaining_s = _due_at.get() - time.monotonic()
    if remaining_s <= 0:
        raise timeout_error("the time of the request is over")
    return remaining_s if limit_s is None else min(limit_s, remaining_s)


def _resolve_within(resolve: Resolver, host: str, port: int, limit_s: float) -> Sequence[str]:
    # In a thread: getaddrinfo has no timeout, and no signal ends its wait.
    replies: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            replies.put(resolve(host, port))
        except Exception as error:  # noqa: BLE001  (it is raised in the thread that waits)
            replies.put(error)

    threading.Thread(target=run, name="gateway-resolver", daemon=True).start()
    try:
        reply = replies.get(timeout=limit_s)
    except queue.Empty:
        raise httpcore2.ConnectTimeout("the name was not resolved in time") from None
    if isinstance(reply, Exception):
        raise httpcore2.ConnectError(f"the name cannot be resolved ({type(reply).__name__})")
    return reply
