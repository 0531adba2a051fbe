"""Cache-Control of polled responses: ``private, no-cache``: only the caller stores one, and revalidates each time."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import flask

PRIVATE_NO_CACHE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
)


def private_no_cache(response: flask.Response) -> flask.Response:
    """Return ``response`` with the cache headers of a polled response."""
    response.headers.update(PRIVATE_NO_CACHE_HEADERS)
    return response
