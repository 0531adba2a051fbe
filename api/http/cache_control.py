"""Who may keep an answer: one that is polled is kept by its caller alone, who asks each time whether it still holds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import flask

PRIVATE_NO_CACHE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
)


def private_no_cache(response: flask.Response) -> flask.Response:
    """Answer ``response`` as one that is polled."""
    response.headers.update(PRIVATE_NO_CACHE_HEADERS)
    return response
