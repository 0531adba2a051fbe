"""A gateway for tests: it returns scripted responses and records every call; nothing leaves the process."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import httpx2

from worker.gateway.gateway import TIMEOUT_S
from worker.gateway.response import GatewayResponse
from worker.gateway.sender import Sender

# A status and a body (JSON, or text or bytes as they are), a whole response, or an exception to raise.
Reply: TypeAlias = "tuple[int, Any] | httpx2.Response | BaseException"

_OF_THE_GATEWAY: Final = frozenset(
    {"critical", "fallback", "retry", "idempotency_key", "timeout", "follow_redirects", "auth"}
)


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call of the agent; ``options`` are those of httpx, as the agent gave them."""

    method: str
    url: str
    options: Mapping[str, Any] = field(default_factory=dict)


class FakeHttp:
    """``ctx.http`` with a script: ``FakeHttp({("GET", "https://api.example/rates"): (200, {"EUR": 1})})``.

    The URL is the one without ``params``. A list of replies is used up one call after the other, and its last one
    stays. A reply with 4xx or 5xx raises the gateway's error; an exception in the script is raised as it is. ``calls``
    has every call. A call without a script raises AssertionError, which names those that have one. It does not retry:
    in a worker the gateway does, so script what it would have in the end.
    """

    def __init__(self, script: Mapping[tuple[str, str], Reply | list[Reply]] | None = None) -> None:
        self._replies = {
            (method.upper(), url): deque(replies if isinstance(replies, list) else [replies])
            for (method, url), replies in (script or {}).items()
        }
        self.calls: list[RecordedCall] = []

    def request(self, method: str, url: str, **options: Any) -> GatewayResponse:
        """Record the call and return its scripted response, or raise its scripted error."""
        self.calls.append(RecordedCall(method.upper(), url, options))
        replies = self._replies.get((method.upper(), url))
        if not replies:
            scripted = ", ".join(f"{verb} {address}" for verb, address in self._replies) or "none"
            raise AssertionError(f"FakeHttp has no reply for {method.upper()} {url}; it has those of: {scripted}")
        reply = replies.popleft() if len(replies) > 1 else replies[0]
        if isinstance(reply, BaseException):
            raise reply
        # The gateway's own way to send, so that errors are its own too; only the network is another.
        sender = Sender(httpx2.MockTransport(lambda _: _response_of(reply)))
        request = sender.build(method, url, {name: options[name] for name in options if name not in _OF_THE_GATEWAY})
        return sender.send(request, options.get("auth"), request.url.host, TIMEOUT_S)

    def get(self, url: str, **options: Any) -> GatewayResponse:
        """Send a GET request."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> GatewayResponse:
        """Send a POST request."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Any) -> GatewayResponse:
        """Send a PUT request."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Any) -> GatewayResponse:
        """Send a PATCH request."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> GatewayResponse:
        """Send a DELETE request."""
        return self.request("DELETE", url, **options)


def _response_of(reply: tuple[int, Any] | httpx2.Response) -> httpx2.Response:
    if isinstance(reply, httpx2.Response):  # a copy, because a response is read once
        return httpx2.Response(reply.status_code, headers=reply.headers, content=reply.content)
    status, body = reply
    return httpx2.Response(status, **{"content" if isinstance(body, str | bytes) else "json": body})
