"""Sealing: authenticated encryption (AES-256-GCM) of stored content under a key ring, whose first key seals.

A sealed value names its key and is bound to its place (the associated data): copied to another run or another field it
does not open. The nonce is random for each value, so a key must seal at most 2^32 values (NIST SP 800-38D, 8.3): with a
thousand a second that is fifty days, so rotate the key of a busy server each month. Values that are not sealed open as
they are, so that a server can begin to seal at any time.

Layout: one byte that begins no JSON, the length of the key's id, the id, 12 bytes of nonce, the ciphertext and its tag.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.errors import EncryptionKeyMissing, SealBroken

_MAGIC: Final = 0xB1
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}", re.ASCII)


class KeyRing:
    """The keys by their ids, the sealing one first; its text has the ids alone."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return iter(self._keys.items())

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"


def parse_key_ring(text: str) -> KeyRing:
    """Parse ``id:base64,id:base64``; raises ValueError, which names what is wrong and never shows a key."""
    keys: dict[str, bytes] = {}
    for number, entry in enumerate(text.split(","), 1):
        key_id, colon, encoded = entry.strip().partition(":")
        if not colon or not _KEY_ID.fullmatch(key_id):
            raise ValueError(f"entry {number} is not id:base64 (an id has up to 32 of A-Z a-z 0-9 _ . -)")
        if key_id in keys:
            raise ValueError(f"the id {key_id} is given twice")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"the key {key_id} is not valid base64") from None
        if len(key) != _KEY_BYTES:
            raise ValueError(
                f"the key {key_id} has {len(key)} bytes and must have {_KEY_BYTES}: openssl rand -base64 {_KEY_BYTES}"
            )
        if key in keys.values():
            raise ValueError(f"the key {key_id} is the same as another one")
        keys[key_id] = key
    return KeyRing(keys)


def key_id_of(value: bytes) -> str | None:
    """Return the id of the key that sealed ``value``; None if it is not sealed."""
    if not value or value[0] != _MAGIC:
        return None
    return bytes(value[2 : 2 + value[1]]).decode("ascii", "replace") if len(value) > 1 else ""


class Sealer:
    """Seals and opens values; without keys it seals nothing."""

    def __init__(self, keys: KeyRing | None = None, *, seals_payloads: bool = False) -> None:
        """``seals_payloads``: whether every payload is sealed, and not only what a schema marks."""
        self._ciphers: dict[str, Any] = {}
        self.key_id: str | None = None
        """The id of the key that seals; None if there is no key."""
        if keys is not None:
            # Imported here: a server without keys should not pay for the library.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._ciphers = {key_id: AESGCM(key) for key_id, key in keys}
            self.key_id = next(iter(self._ciphers))
        self.seals_payloads = seals_payloads and keys is not None

    @property
    def key_ids(self) -> list[str]:
        """The ids of all keys, the sealing one first."""
        return [*self._ciphers]

    @property
    def has_keys(self) -> bool:
        """Whether anything can be sealed."""
        return self.key_id is not None

    def seal(self, value: bytes, place: str) -> bytes:
        """Return ``value`` sealed by the first key and bound to ``place``."""
        if self.key_id is None:
            raise RuntimeError("there is no key to seal with")
        header = bytes((_MAGIC, len(self.key_id))) + self.key_id.encode()
        nonce = os.urandom(_NONCE_BYTES)
        sealed: bytes = self._ciphers[self.key_id].encrypt(nonce, value, header + place.encode())
        return header + nonce + sealed

    def open(self, value: bytes, place: str) -> bytes:
        """Return the clear value; one that is not sealed as it is.

        Raises EncryptionKeyMissing if the ring lacks its key, and SealBroken if it was changed or belongs elsewhere.
        """
        key_id = key_id_of(value)
        if key_id is None:
            return value
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise EncryptionKeyMissing(
                f"this content is sealed by the encryption key {key_id!r}, which BUCKET_ENCRYPTION_KEYS of this server "
                "does not have: an operator must add it there again"
            )
        from cryptography.exceptions import InvalidTag

        header_bytes = 2 + len(key_id)
        nonce = bytes(value[header_bytes : header_bytes + _NONCE_BYTES])
        header, sealed = bytes(value[:header_bytes]), bytes(value[header_bytes + _NONCE_BYTES :])
        try:
            clear: bytes = cipher.decrypt(nonce, sealed, header + place.encode())
        except (InvalidTag, ValueError):
            raise SealBroken(f"a sealed value does not open at {place}") from None
        return clear

    def move(self, value: bytes, place: str, new_place: str) -> bytes:
        """Return ``value`` bound to another place, sealed by the first key; one that is not sealed as it is."""
        return value if key_id_of(value) is None else self.seal(self.open(value, place), new_place)


NO_SEALER: Final = Sealer()


def input_place(execution_id: str) -> str:
    """Return the place of a run's input."""
    return f"{execution_id}:input"


def output_place(execution_id: str, step: str) -> str:
    """Return the place of a step's output."""
    return f"{execution_id}:output:{step}"


def marked_place(execution_id: str, step: str) -> str:
    """Return the place of the marked fields of a step's output."""
    return f"{execution_id}:marked:{step}"


def checkpoint_place(execution_id: str, step: str) -> str:
    """Return the place of a step's checkpoint."""
    return f"{execution_id}:checkpoint:{step}"


def log_place(execution_id: str) -> str:
    """Return the place of the data of a run's log lines."""
    return f"{execution_id}:log"
