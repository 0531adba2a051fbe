"""Fetches the key set of a token issuer over HTTP: no redirects, no proxy, bounded in time and size."""

from __future__ import annotations

import time
from typing import Final

import httpcore2
import httpx2

from api.auth.tokens.signing_keys import KEY_SET_MAX_BYTES, KeySetNotRead

_OPERATION_MAX_S: Final = 2.0
_FETCH_MAX_S: Final = 5.0
# Not compressed: the limit is for what is read.
_HEADERS: Final = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}


class KeySetClient:
    """The client of one address; its authorities are those of the system, or of ``SSL_CERT_FILE``."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._authorities = httpcore2.default_ssl_context()  # once: to load them takes 25 ms, which hold up requests

    def fetch(self, within_s: float = _FETCH_MAX_S) -> bytes:
        """Return the key set; raises KeySetNotRead, also if it has not come after ``within_s``."""
        due_at_s = time.monotonic() + within_s
        try:
            with (
                httpx2.Client(
                    verify=self._authorities,
                    timeout=min(_OPERATION_MAX_S, within_s),
                    trust_env=False,
                    follow_redirects=False,
                ) as client,
                client.stream("GET", self._url, headers=_HEADERS) as response,
            ):
                return self._read(response, due_at_s)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise KeySetNotRead(f"{self._url}: {type(error).__name__}: {str(error)[:200]}") from None

    def _read(self, response: httpx2.Response, due_at_s: float) -> bytes:
        if response.is_redirect:
            raise KeySetNotRead(f"{self._url} redirects, which is not followed; name the address that it leads to")
        if response.status_code != httpx2.codes.OK:
            raise KeySetNotRead(f"{self._url} answered {response.status_code}")
        raw = bytearray()
        for piece in response.iter_raw():
            raw += piece
            if len(raw) > KEY_SET_MAX_BYTES:
                raise KeySetNotRead(f"{self._url} sent more than {KEY_SET_MAX_BYTES} bytes")
            if time.monotonic() > due_at_s:
                raise KeySetNotRead(f"{self._url} did not send all of it in time")
        return bytes(raw)
