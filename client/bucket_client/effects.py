"""What a flow may ask of its driver: to send a request, to sleep, to hand a value to the caller.

A flow is a generator that yields these effects and is sent their outcomes. It holds all logic of the client and never
does input or output itself, so one flow serves both the sync and the async client.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar

from bucket_client.errors import ServerFault

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """A request to send; its outcome is a :class:`Reply` or :class:`NoReply`.

    ``path`` is below the server's address and already percent-encoded. ``hold_s`` is how long the server may hold it,
    ``limit_s`` for how long its reply is waited for at most; without it the limit is that of the settings.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    hold_s: float = 0.0
    limit_s: float = math.inf


@dataclass(frozen=True)
class Reply:
    """The reply to a request; the names of its headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after_s(self) -> float | None:
        """Return how long to wait before the next request, in seconds; None if the header is absent or unreadable.

        Bucket sends seconds; a proxy may send a date, which is compared with the reply's own.
        """
        value = self.headers.get("retry-after", "")
        if value.isascii() and value.isdigit():
            return float(value)
        try:
            until, now = (parsedate_to_datetime(text) for text in (value, self.headers.get("date", "")))
            return max(0.0, (until - now).total_seconds())
        except (ValueError, TypeError):
            return None

    def json(self) -> Any:
        """Return the parsed body. Raises ServerFault if it is no JSON, as a proxy's page is not."""
        return self._parsed

    @cached_property
    def _parsed(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            message = f"the server replied {self.status} with a body that is not JSON: does the address lead to Bucket?"
            raise ServerFault(message, status=self.status) from None


@dataclass(frozen=True, slots=True)
class NoReply:
    """The request got no reply: the connection failed, broke, or the time was up."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sleep:
    """A pause of ``seconds``; its outcome is None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """A value for the caller who iterates; the flow goes on when the next one is asked for."""

    value: T


Flow: TypeAlias = Generator[Request | Sleep, Any, T]
"""A flow that returns one value."""
EmittingFlow: TypeAlias = Generator[Request | Sleep | Emit[T], Any, None]
"""A flow that emits values one after the other."""
