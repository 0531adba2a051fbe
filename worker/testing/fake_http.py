"""A gateway for tests: it returns scripted responses and records every call; nothing leaves the process."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx2

# A status and a body (JSON, or text or bytes as they are), a whole response, or an exception to raise.
Reply: TypeAlias = "tuple[int, Any] | httpx2.Response | BaseException"


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call of the agent; ``options`` are those of httpx, as the agent gave them."""

    method: str
    url: str
    options: Mapping[str, Any] = field(default_factory=dict)


class FakeHttp:
    """``ctx.http`` with a script: ``FakeHttp({("GET", "https://api.example/rates"): (200, {"EUR": 1})})``.

    The URL is the one without ``params``. A list of replies is used up one call after the other, and its last one
    stays. ``calls`` has every call. A call without a script raises AssertionError, which names those that have one. It
    does not retry: in a worker the gateway does, so script what it would return in the end.
    """

    def __init__(self, script: Mapping[tuple[str, str], Reply | list[Reply]] | None = None) -> None:
        self._replies = {
            (method.upper(), url): deque(replies if isinstance(replies, list) else [replies])
            for (method, url), replies in (script or {}).items()
        }
        self.calls: list[RecordedCall] = []

    def request(self, method: str, url: str, **options: Any) -> httpx2.Response:
        """Record the call and return its scripted response, or raise its scripted exception."""
        self.calls.append(RecordedCall(method.upper(), url, options))
        replies = self._replies.get((method.upper(), url))
        if not replies:
            scripted = ", ".join(f"{verb} {address}" for verb, address in self._replies) or "none"
            raise AssertionError(f"FakeHttp has no reply for {method.upper()} {url}; it has those of: {scripted}")
        reply = replies.popleft() if len(replies) > 1 else replies[0]
        if isinstance(reply, BaseException):
            raise reply
        # What the gateway adds to httpx's options has no part in the request itself.
        passed = {name: value for name, value in options.items() if name in _REQUEST_OPTIONS}
        request = httpx2.Request(method, url, **passed)
        if isinstance(reply, httpx2.Response):
            reply.request = request
            return reply
        status, body = reply
        content = {"content": body} if isinstance(body, str | bytes) else {"json": body}
        return httpx2.Response(status, request=request, **content)

    def get(self, url: str, **options: Any) -> httpx2.Response:
        """Send a GET request."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> httpx2.Response:
        """Send a POST request."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Any) -> httpx2.Response:
        """Send a PUT request."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Any) -> httpx2.Response:
        """Send a PATCH request."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> httpx2.Response:
        """Send a DELETE request."""
        return self.request("DELETE", url, **options)


_REQUEST_OPTIONS = frozenset({"params", "headers", "cookies", "content", "data", "files", "json"})
