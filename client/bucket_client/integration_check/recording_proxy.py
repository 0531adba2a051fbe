"""The recording proxy: forwards one command's requests to the server, records them, and injects the planned faults.

It is an HTTP/1.1 server on 127.0.0.1 alone. Status, headers and bodies pass through as they are, except for headers
of the connection itself (RFC 9110, 7.6.1). Request and reply are read whole before they are passed on.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

import httpx2

from bucket_client.integration_check.exchanges import Exchange, Kind, RecordedReply, RecordedRequest
from bucket_client.integration_check.scenarios import Fault, FaultPlan, ScenarioTimes

_HOST: Final = "127.0.0.1"
_HELD_MAX_S: Final = 30.0
_MARGIN_S: Final = 15.0
_CONNECT_S: Final = 10.0
_HEAD_BYTES_MAX: Final = 1024 * 1024
_OF_THE_CONNECTION: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
)
_BROKEN: Final = (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError, OSError, ValueError)

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Incoming:
    """A request as it was read from the connection."""

    method: str
    target: str
    headers: Headers
    body: bytes
    keeps_alive: bool


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A reply as it is written to the connection; ``body`` may be compressed, ``text`` is not."""

    status: int
    reason: str
    headers: Headers
    body: bytes
    text: bytes


class RecordingProxy:
    """A proxy for one run of the command; it listens inside of an ``async with``."""

    def __init__(self, upstream: str, plan: FaultPlan, times: ScenarioTimes) -> None:
        self.exchanges: list[Exchange] = []
        self.client_hung_up = False
        """Whether the client gave up a poll that got no reply."""
        self._upstream = httpx2.URL(upstream)
        self._prefix = self._upstream.path.rstrip("/")
        self._plan = plan
        self._times = times
        self._port = 0
        self._server: asyncio.Server | None = None
        self._restart: asyncio.Task[None] | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        """Return the address for ``BUCKET_URL``, with the path of the server's address."""
        return f"http://{_HOST}:{self._port}{self._prefix}"

    async def __aenter__(self) -> Self:
        timeout = httpx2.Timeout(_HELD_MAX_S + _MARGIN_S, connect=_CONNECT_S)
        limits = httpx2.Limits(max_connections=None)
        self._http = httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=timeout, limits=limits)
        await self._listen(_bound_socket(0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.gather(self._restart, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        self._close_connections()
        await asyncio.gather(*connections, return_exceptions=True)
        await self._http.aclose()

    async def _listen(self, bound: socket.socket) -> None:
        self._port = bound.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=bound, limit=_HEAD_BYTES_MAX)

    def _close_connections(self, but: asyncio.Task[None] | None = None) -> None:
        for task, writer in list(self._connections.items()):
            if task is not but:
                task.cancel()
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until one of its sides, or a fault, ends it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine always runs in a task
        self._connections[task] = writer
        try:
            while await self._serve_request(reader, writer):
                pass
        except _BROKEN:
            pass
        finally:
            del self._connections[task]
            writer.close()

    async def _serve_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request and return whether the connection goes on."""
        incoming = await _read_request(reader, writer)
        target = incoming.target.removeprefix(self._prefix)
        arrived_at = asyncio.get_running_loop().time()
        request = RecordedRequest.read(arrived_at, incoming.method, target, incoming.headers, incoming.body)
        fault = self._plan.next_fault(request)
        record = Exchange(request, None, was_delivered=False)
        try:
            if fault is Fault.HANG:
                await self._hang(reader)
                return False
            outgoing = (
                self._refusal(incoming.target) if fault is Fault.REFUSE else await self._forward(incoming, request)
            )
            replied_at = asyncio.get_running_loop().time()  # before it is written: the client cannot know it sooner
            headers = {name.lower(): value for name, value in outgoing.headers}
            reply = RecordedReply.read(request, replied_at, outgoing.status, headers, outgoing.text)
            record = Exchange(request, reply, was_delivered=False)
            if fault is Fault.LOSE_REPLY:
                return False
            if fault is Fault.RESTART:
                self._stop_for_a_while()
            writer.write(_encoded(outgoing, incoming))
            await writer.drain()
            record = Exchange(request, reply)
        finally:
            self.exchanges.append(record)
        return incoming.keeps_alive and fault is not Fault.RESTART

    async def _forward(self, incoming: _Incoming, request: RecordedRequest) -> _Outgoing:
        drops_prefer = self._plan.declines_holds and request.kind is Kind.SUBMIT
        dropped = _OF_THE_CONNECTION | {"host", "content-length"} | ({"prefer"} if drops_prefer else set())
        outgoing = httpx2.Request(
            incoming.method,
            self._upstream.copy_with(raw_path=incoming.target.encode("latin-1")),
            headers=[(name, value) for name, value in incoming.headers if name.lower() not in dropped],
            content=incoming.body or None,
        )
        try:
            response = await self._http.send(outgoing, stream=True)
            try:
                body = b"".join([piece async for piece in response.aiter_raw()])
            finally:
                await response.aclose()
        except httpx2.RequestError as error:
            return _problem(502, "bad_gateway", f"the server did not reply: {error or type(error).__name__}", {})
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
        headers = [(name, value) for name, value in pairs if name.lower() not in _OF_THE_CONNECTION]
        text = body
        if "content-encoding" in response.headers and body:
            text = httpx2.Response(response.status_code, headers=headers, content=body).content
        return _Outgoing(response.status_code, response.reason_phrase, headers, body, text)

    def _refusal(self, target: str) -> _Outgoing:
        detail = f"MongoDB is away; nothing of {target} was stored, send the same request again"
        return _problem(503, "unavailable", detail, {"Retry-After": str(self._times.retry_after_s)})

    async def _hang(self, reader: asyncio.StreamReader) -> None:
        """Read until the client closes the connection, or until the time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._times.hang_s):
                with suppress(ConnectionError):
                    while await reader.read(_HEAD_BYTES_MAX):
                        pass
                self.client_hung_up = True

    def _stop_for_a_while(self) -> None:
        """Refuse connections and break the others, as a server that restarts does."""
        if self._server is not None:
            self._server.close()
        # The port stays bound meanwhile, or the system could give it to somebody else.
        placeholder = _bound_socket(self._port)
        self._close_connections(but=asyncio.current_task())
        self._restart = asyncio.create_task(self._start_again(placeholder))

    async def _start_again(self, placeholder: socket.socket) -> None:
        with placeholder:
            await asyncio.sleep(self._times.restart_s)
        await self._listen(_bound_socket(self._port))


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((_HOST, port))
    return bound


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Incoming:
    """Read one request. Raises IncompleteReadError at the end of the connection, ValueError for no HTTP."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, version = first.split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    values = {name.lower(): value for name, value in headers}
    if values.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if values.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(values.get("content-length", "0")))
    keeps_alive = version == "HTTP/1.1" and values.get("connection", "").lower() != "close"
    return _Incoming(method, target, headers, body, keeps_alive)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks: list[bytes] = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # a trailer
    return b"".join(chunks)


def _problem(status: int, code: str, detail: str, headers: Mapping[str, str]) -> _Outgoing:
    title = HTTPStatus(status).phrase
    problem = {"type": f"/problems/{code}", "title": title, "status": status, "detail": detail, "error_code": code}
    body = json.dumps(problem | {"message": detail, "details": []}).encode()
    pairs = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"} | dict(headers)
    return _Outgoing(status, title, list(pairs.items()), body, body)


def _encoded(outgoing: _Outgoing, incoming: _Incoming) -> bytes:
    """Return a reply as bytes; the length of a body that HEAD leaves out is that of the server."""
    headers = list(outgoing.headers)
    has_body = incoming.method != "HEAD" and outgoing.status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
    if has_body:
        headers = [pair for pair in headers if pair[0].lower() != "content-length"]
        headers.append(("Content-Length", str(len(outgoing.body))))
    if not incoming.keeps_alive:
        headers.append(("Connection", "close"))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"HTTP/1.1 {outgoing.status} {outgoing.reason}\r\n{lines}\r\n".encode("latin-1")
    return head + outgoing.body if has_body else head
