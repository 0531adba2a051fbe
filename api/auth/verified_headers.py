"""Remembers which Authorization headers bring a key that was checked, so that a key is hashed once and not each time.

An entry holds for ten seconds at most, never beyond the end of its key, and only while the record of the key is the one
that was checked: a key that was revoked, rotated or read anew is checked again. The seconds are those since boot: to
compute the store's time costs more than the rest of the check. No secret is kept: the entries are found by a keyed hash
of the header, made for this process.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from api.auth.key_cache import CACHED_MAX, KeyCache
from shared.domain.access.api_key import ApiKey
from shared.domain.access.caller import Caller

CHECKED_EVERY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """A key whose secret was right, and who calls with it; ``until_s`` is :func:`shared.clock.boottime_s`."""

    key: ApiKey
    caller: Caller
    until_s: float


class VerifiedHeaders:
    """The headers that this process has checked."""

    def __init__(self, keys: KeyCache, remembered_max: int = CACHED_MAX) -> None:
        self._keys = keys
        self._max = remembered_max
        self._hash_key: Final = secrets.token_bytes(32)
        self._verified: dict[bytes, VerifiedKey] = {}

    def find(self, header: str, now_s: float) -> VerifiedKey | None:
        """Return the key of a header that was checked; None if it is to be checked. ``now_s`` is ``boottime_s``."""
        verified = self._verified.get(self._digest(header))
        if verified is None or now_s >= verified.until_s or verified.key is not self._keys.peek(verified.key.id):
            return None
        return verified

    def add(self, header: str, key: ApiKey, now: datetime, now_s: float) -> VerifiedKey:
        """Remember a header whose key is right and valid at ``now``, the store's time, which is ``now_s`` here."""
        digest = self._digest(header)
        if len(self._verified) >= self._max and digest not in self._verified:
            self._verified.clear()  # those in use are checked once more
        valid_s = min((key.expires_at - now).total_seconds(), CHECKED_EVERY_S)
        verified = self._verified[digest] = VerifiedKey(key, key.caller(), now_s + valid_s)
        return verified

    def _digest(self, header: str) -> bytes:
        return hashlib.blake2b(header.encode("utf-8", "surrogatepass"), key=self._hash_key, digest_size=16).digest()
