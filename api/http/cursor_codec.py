"""Encodes a text as an opaque cursor, and decodes only cursors that Bucket has made.

A checksum detects a cursor that was cut, mistyped, made up, or made for something else. It is not a secret: a cursor
gives access to nothing that its holder could not read without one.
"""

from __future__ import annotations

import base64
import hashlib
from enum import StrEnum, unique
from typing import Final

_CHECKSUM_BYTES: Final = 6


@unique
class CursorKind(StrEnum):
    """What a cursor is for; one kind is not valid as another. At most eight bytes, the limit of blake2s' ``person``."""

    FEED = "feed"
    EXECUTIONS = "list"
    DEAD_LETTERS = "letters"
    LOG_LINES = "lines"
    KEYS = "keys"
    INTEGRATIONS = "integr"
    AUDIT = "audit"


def encode_cursor(kind: CursorKind, text: str) -> str:
    """Return ``text`` as a cursor of ``kind``: letters, digits, ``-`` and ``_``."""
    data = text.encode()
    checksum = hashlib.blake2s(data, digest_size=_CHECKSUM_BYTES, person=kind.encode()).digest()
    return base64.urlsafe_b64encode(checksum + data).decode().rstrip("=")


def decode_cursor(kind: CursorKind, cursor: str) -> str:
    """Return the text that ``cursor`` was made from; raises ValueError if it is not a cursor of ``kind``."""
    text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[_CHECKSUM_BYTES:].decode()
    if encode_cursor(kind, text) != cursor:  # another checksum, or the same bytes encoded in another way
        raise ValueError("the checksum is wrong: Bucket did not make this cursor")
    return text
