"""HTTP calls to Core, sync and async: each is bounded in time and in size, and follows no redirect.

The time limit of an HTTP library counts for one read, so a server that sends a byte now and then is never cut off. The
async form bounds the whole call with ``asyncio.timeout``. The sync form has a timer that shuts the socket down.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from functools import cache
from types import TracebackType
from typing import Any, Final, Self

import httpx2

from bucket_client.connectors.connector_flows import (
    AwaitedWork,
    ConnectorEffect,
    CoreCall,
    CoreReply,
    NoCoreReply,
    Pause,
    Work,
)
from bucket_client.connectors.connector_settings import ConnectorSettings

REPLY_BYTES_MAX: Final = 1024 * 1024
_TRANSPORT_ERRORS: Final = (httpx2.HTTPError, httpx2.StreamError, OSError, UnicodeError)


class CoreClient:
    """Performs the effects of a flow in the calling thread; several threads may share it."""

    def __init__(self, settings: ConnectorSettings) -> None:
        self._settings = settings
        # No connection is used twice: the deadline must know the socket, and is told of it when it is connected.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx2.Client(**_options(settings), limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def perform(self, effect: ConnectorEffect) -> Any:
        """Do what a flow asks for and return the outcome."""
        match effect:
            case CoreCall():
                return self._call(effect)
            case Pause(seconds):
                return time.sleep(seconds)
            case Work(run):
                return run()
            case AwaitedWork():
                raise TypeError("a sync flow cannot await")

    def _call(self, call: CoreCall) -> CoreReply | NoCoreReply:
        started_at, deadline = time.perf_counter(), CallDeadline(self._settings.call_timeout_s)
        request: dict[str, Any] = {
            "content": call.body,
            "headers": call.headers,
            "extensions": {"trace": deadline.watch},
        }
        reply, reason = None, ""
        try:
            with deadline, self._client.stream("POST", self._settings.core_url, **request) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > REPLY_BYTES_MAX:
                        break
                reply = _reply_of(response, body, started_at)
        except _TRANSPORT_ERRORS as error:
            reason = _reason_of(error, self._settings)
        if deadline.has_expired:  # then the end of the body may be no real end
            reply, reason = None, _timeout_reason(self._settings)
        return reply or NoCoreReply(reason, time.perf_counter() - started_at)


class AsyncCoreClient:
    """Performs the effects of a flow on the running event loop; several tasks may share it."""

    def __init__(self, settings: ConnectorSettings) -> None:
        self._settings = settings
        self._client = httpx2.AsyncClient(**_options(settings), limits=httpx2.Limits(max_connections=None))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def perform(self, effect: ConnectorEffect) -> Any:
        """Do what a flow asks for and return the outcome."""
        match effect:
            case CoreCall():
                return await self._call(effect)
            case Pause(seconds):
                return await asyncio.sleep(seconds)
            case Work(run):
                return await asyncio.to_thread(run)
            case AwaitedWork(run):
                return await run()

    async def _call(self, call: CoreCall) -> CoreReply | NoCoreReply:
        started_at, settings = time.perf_counter(), self._settings
        request: dict[str, Any] = {"content": call.body, "headers": call.headers}
        try:
            async with (
                asyncio.timeout(settings.call_timeout_s),
                self._client.stream("POST", settings.core_url, **request) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > REPLY_BYTES_MAX:
                        break
                return _reply_of(response, body, started_at)
        except _TRANSPORT_ERRORS as error:  # TimeoutError is an OSError
            reason = _reason_of(error, settings)
        return NoCoreReply(reason, time.perf_counter() - started_at)


class CallDeadline:
    """Shuts the socket of one sync call down after ``timeout_s``; the read that waits then ends at once.

    It holds a duplicate of the socket: TLS moves the original into a new object, and a shutdown works through both. It
    does not bound the connect: each address of a host has ``timeout_s`` of its own, and the resolver its own limit.
    """

    def __init__(self, timeout_s: float) -> None:
        self.has_expired = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(timeout_s, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        with self._lock:
            if self._socket is not None:
                self._socket.close()

    def watch(self, event: str, info: dict[str, Any]) -> None:
        """Take the socket from the ``trace`` extension of httpx2 as soon as it is connected."""
        if event == "connection.connect_tcp.complete":
            connected: socket.socket = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._socket = connected.dup()
                if self.has_expired:
                    self._shut_down()

    def _expire(self) -> None:
        with self._lock:
            self.has_expired = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the server or this client has closed it
                self._socket.shutdown(socket.SHUT_RDWR)


def _options(settings: ConnectorSettings) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    if settings.core_token:
        headers["Authorization"] = f"Bearer {settings.core_token}"
    return {
        "headers": headers,
        # A TLS handshake that is cancelled leaves its socket open (httpcore2 2.16), so its own limit ends it before.
        "timeout": httpx2.Timeout(settings.call_timeout_s, connect=0.9 * settings.call_timeout_s),
        "trust_env": False,
        "follow_redirects": False,
        "verify": _tls(),
    }


@cache
def _tls() -> ssl.SSLContext:
    """Return the TLS settings; they are made once, since reading the certificates costs 25 ms."""
    return httpx2.create_ssl_context(trust_env=False)


def _reply_of(response: httpx2.Response, body: bytearray, started_at: float) -> CoreReply:
    return CoreReply(
        response.status_code,
        bytes(body[:REPLY_BYTES_MAX]),
        is_cut=len(body) > REPLY_BYTES_MAX,
        location=response.headers.get("Location", ""),
        retry_after=response.headers.get("Retry-After", ""),
        duration_s=time.perf_counter() - started_at,
    )


def _reason_of(error: Exception, settings: ConnectorSettings) -> str:
    # The time limit of a read may end at the same moment as that of the call.
    is_timeout = isinstance(error, httpx2.TimeoutException | TimeoutError)
    return _timeout_reason(settings) if is_timeout else f"{type(error).__name__}: {error}"


def _timeout_reason(settings: ConnectorSettings) -> str:
    return f"no complete reply within {settings.call_timeout_s:g} s"
