"""Cache-Control of each response: what may be stored, and by whom.

``private, no-cache`` (only the caller stores it, and revalidates each time) is for what has no hint beside a validator.
The poll of a live run is ``no-store``: its hints change without a new ETag, and after a 304 most caches show the stored
body with the old ``poll_after_ms``, some even the old ``Retry-After``. All that names nothing else is ``no-store`` too.

What may be stored varies with the key: one caller's 304 must not show what was stored for another who sees more.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import flask

_VARY: Final = "Accept-Encoding, Authorization"

PRIVATE_NO_CACHE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"Cache-Control": "private, no-cache", "Vary": _VARY}
)

LIVE_POLL_HEADERS: Final[Mapping[str, str]] = MappingProxyType({"Cache-Control": "no-store", "Vary": _VARY})


def private_no_cache(response: flask.Response) -> flask.Response:
    """Return ``response`` with the cache headers of a polled response."""
    response.headers.update(PRIVATE_NO_CACHE_HEADERS)
    return response
