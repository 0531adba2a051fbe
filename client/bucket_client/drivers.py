"""Runs flows over a real connection: the sync driver and the async one.

Nothing here decides anything; both drivers send what a flow yields and hand back what came.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from importlib import metadata
from typing import Any, Final, TypeVar

import httpx2

from bucket_client.effects import Emit, EmittingFlow, Flow, NoReply, Reply, Request, Sleep
from bucket_client.errors import Invalid
from bucket_client.settings import ClientSettings

T = TypeVar("T")

_CONNECT_S: Final = 5.0
_MARGIN_S: Final = 5.0
_KEPT_CONNECTIONS: Final = 32
_NEVER_SENT: Final = (httpx2.InvalidURL, httpx2.LocalProtocolError, UnicodeError)
USER_AGENT: Final = f"bucket-client/{metadata.version('bucket-client')}"


class SyncDriver:
    """Runs flows with a blocking connection pool; several threads may use it."""

    def __init__(self, settings: ClientSettings, transport: httpx2.BaseTransport | None = None) -> None:
        self.settings = settings
        self._http = httpx2.Client(transport=transport, **_client_options(settings))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end and return its value."""
        outcome: Reply | NoReply | None = None
        while True:
            try:
                effect = flow.send(outcome)
            except StopIteration as stop:
                value: T = stop.value
                return value
            outcome = self._perform(effect)

    def iterate(self, flow: EmittingFlow[T]) -> Generator[T, None, None]:
        """Yield what a flow emits; it goes on when the next value is asked for."""
        outcome: Reply | NoReply | None = None
        try:
            while True:
                try:
                    effect = flow.send(outcome)
                except StopIteration:
                    return
                if isinstance(effect, Emit):
                    yield effect.value
                    outcome = None
                else:
                    outcome = self._perform(effect)
        finally:
            flow.close()

    def _perform(self, effect: Request | Sleep) -> Reply | NoReply | None:
        if isinstance(effect, Sleep):
            time.sleep(effect.seconds)
            return None
        try:
            response = self._http.request(**_request_options(self.settings, effect))
        except _NEVER_SENT as error:
            raise Invalid(f"the request cannot be sent: {error}") from error
        except httpx2.RequestError as error:
            return NoReply(_reason_of(error))
        return _reply_of(response)


class AsyncDriver:
    """Runs flows in an event loop, with its own connection pool."""

    def __init__(self, settings: ClientSettings, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self._http = httpx2.AsyncClient(transport=transport, **_client_options(settings))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end and return its value."""
        outcome: Reply | NoReply | None = None
        while True:
            try:
                effect = flow.send(outcome)
            except StopIteration as stop:
                value: T = stop.value
                return value
            outcome = await self._perform(effect)

    async def iterate(self, flow: EmittingFlow[T]) -> AsyncGenerator[T, None]:
        """Yield what a flow emits; it goes on when the next value is asked for."""
        outcome: Reply | NoReply | None = None
        try:
            while True:
                try:
                    effect = flow.send(outcome)
                except StopIteration:
                    return
                if isinstance(effect, Emit):
                    yield effect.value
                    outcome = None
                else:
                    outcome = await self._perform(effect)
        finally:
            flow.close()

    async def _perform(self, effect: Request | Sleep) -> Reply | NoReply | None:
        if isinstance(effect, Sleep):
            await asyncio.sleep(effect.seconds)
            return None
        try:
            response = await self._http.request(**_request_options(self.settings, effect))
        except _NEVER_SENT as error:
            raise Invalid(f"the request cannot be sent: {error}") from error
        except httpx2.RequestError as error:
            return NoReply(_reason_of(error))
        return _reply_of(response)


def _client_options(settings: ClientSettings) -> dict[str, Any]:
    headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
    if settings.api_key is not None:
        headers["Authorization"] = f"Bearer {settings.api_key}"
    # A held poll keeps a connection for long, so the number of callers that share a client is not limited here.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=_KEPT_CONNECTIONS)
    return {"headers": headers, "follow_redirects": False, "limits": limits}


def _request_options(settings: ClientSettings, request: Request) -> dict[str, Any]:
    headers = dict(request.headers)
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    limit_s = min(settings.timeout_s + (request.hold_s + _MARGIN_S if request.hold_s else 0.0), request.limit_s)
    return {
        "method": request.method,
        "url": settings.url + request.path,
        "params": request.params or None,
        "content": request.body,
        "headers": headers,
        "timeout": httpx2.Timeout(limit_s, connect=min(_CONNECT_S, limit_s)),
    }


def _reply_of(response: httpx2.Response) -> Reply:
    headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, response.content)


def _reason_of(error: httpx2.RequestError) -> str:
    """Return why there was no reply; several of the library's errors have no text."""
    return str(error) or type(error).__name__
