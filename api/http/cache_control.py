"""Cache-Control of each response: what may be stored, and by whom.

``private, no-cache`` (only the caller stores it, and revalidates each time) is for what has no hint beside a validator.
The poll of a live run is ``no-store``: its hints change without a new ETag, and after a 304 most caches show the stored
body with the old ``poll_after_ms``, some even the old ``Retry-After``. All that names nothing else is ``no-store`` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import flask

PRIVATE_NO_CACHE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
)

LIVE_POLL_HEADERS: Final[Mapping[str, str]] = MappingProxyType({"Cache-Control": "no-store", "Vary": "Accept-Encoding"})


def private_no_cache(response: flask.Response) -> flask.Response:
    """Return ``response`` with the cache headers of a polled response."""
    response.headers.update(PRIVATE_NO_CACHE_HEADERS)
    return response
