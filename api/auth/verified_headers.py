"""Remembers which Authorization headers bring a key that was checked, so that a key is hashed once and not each time.

An entry holds for as long as the record of the key is the one that was checked: a key that was revoked, rotated or read
anew is checked again. No secret is kept: the entries are found by a keyed hash of the header, made for this process.
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


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """A key whose secret was right, and who calls with it."""

    key: ApiKey
    caller: Caller


class VerifiedHeaders:
    """The headers that this process has checked."""

    def __init__(self, keys: KeyCache, remembered_max: int = CACHED_MAX) -> None:
        self._keys = keys
        self._max = remembered_max
        self._hash_key: Final = secrets.token_bytes(32)
        self._verified: dict[bytes, VerifiedKey] = {}

    def find(self, header: str, now: datetime) -> VerifiedKey | None:
        """Return the key of a header that was checked before; None if it is to be checked, also if it has ended."""
        verified = self._verified.get(self._digest(header))
        if verified is None or verified.key is not self._keys.peek(verified.key.id):
            return None
        return verified if now < verified.key.expires_at else None

    def add(self, header: str, key: ApiKey) -> VerifiedKey:
        """Remember a header whose key is right and valid now."""
        if len(self._verified) >= self._max:
            self._verified.clear()  # those in use are checked once more
        verified = self._verified[self._digest(header)] = VerifiedKey(key, key.caller())
        return verified

    def _digest(self, header: str) -> bytes:
        return hashlib.blake2b(header.encode("utf-8", "surrogatepass"), key=self._hash_key, digest_size=16).digest()
