"""Fetches the key set of a token issuer over HTTP: no redirects, no proxy, bounded in time and size."""

from __future__ import annotations

import time
from typing import Final

import httpx2

from api.auth.signing_keys import KEY_SET_MAX_BYTES, KeySetNotRead

_OPERATION_MAX_S: Final = 2.0
_FETCH_MAX_S: Final = 5.0
# Not compressed: the limit is for what is read.
_HEADERS: Final = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}


def fetch_key_set(url: str, within_s: float = _FETCH_MAX_S) -> bytes:
    """Return what is at ``url``; raises KeySetNotRead, also if it is not there after ``within_s``."""
    due_at_s = time.monotonic() + within_s
    try:
        with (
            httpx2.Client(timeout=min(_OPERATION_MAX_S, within_s), trust_env=False, follow_redirects=False) as client,
            client.stream("GET", url, headers=_HEADERS) as response,
        ):
            return _read(response, url, due_at_s)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise KeySetNotRead(f"{url}: {type(error).__name__}: {str(error)[:200]}") from None


def _read(response: httpx2.Response, url: str, due_at_s: float) -> bytes:
    if response.is_redirect:
        raise KeySetNotRead(f"{url} redirects, which is not followed; name the address that it leads to")
    if response.status_code != httpx2.codes.OK:
        raise KeySetNotRead(f"{url} answered {response.status_code}")
    raw = bytearray()
    for piece in response.iter_raw():
        raw += piece
        if len(raw) > KEY_SET_MAX_BYTES:
            raise KeySetNotRead(f"{url} sent more than {KEY_SET_MAX_BYTES} bytes")
        if time.monotonic() > due_at_s:
            raise KeySetNotRead(f"{url} did not send all of it in time")
    return bytes(raw)
