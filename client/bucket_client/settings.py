"""The settings of one client, from its arguments and the environment; and its sources of time and chance."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

from bucket_client.errors import Invalid

DEFAULT_URL: Final = "http://localhost:8000"
TIMEOUT_MAX_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Where the server is and how long to try: ``timeout_s`` for one request, ``retries`` repeats of each.

    ``clock`` returns monotonic seconds, ``chance`` a number from 0 to 1.
    """

    url: str = DEFAULT_URL
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    retries: int = 5
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random

    @classmethod
    def read(cls, url: str | None, api_key: str | None, timeout: float, retries: int) -> Self:
        """Return the settings; what is None comes from ``BUCKET_URL`` and ``BUCKET_API_KEY``.

        Raises Invalid for an address that is none, or for numbers that make no sense.
        """
        url = (url or os.environ.get("BUCKET_URL") or DEFAULT_URL).rstrip("/")
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise Invalid(f"{url!r} is not the address of a Bucket; write it as {DEFAULT_URL}")
        if parts.username is not None or parts.password is not None:
            raise Invalid("the address must hold no user and no password; give the key as api_key or BUCKET_API_KEY")
        if not 0 < timeout <= TIMEOUT_MAX_S:
            raise Invalid(f"timeout must be more than 0 and at most {TIMEOUT_MAX_S} seconds, not {timeout}")
        if retries < 0:
            raise Invalid(f"retries must be 0 or more, not {retries}")
        key = (api_key or os.environ.get("BUCKET_API_KEY") or "").strip()  # a key from a file ends with a line feed
        if not all("!" <= character <= "~" for character in key):
            raise Invalid("the key holds characters that no key has; it is not shown here")
        return cls(url, key or None, timeout, retries)
