"""Seals a text as a cursor: opaque to callers, and only what Bucket has made comes back in.

A sum over the whole shows a cursor that was cut, mistyped, made up, or made for something else. It is no secret: a
cursor opens nothing that its holder could not read without one.
"""

from __future__ import annotations

import base64
import hashlib
from enum import StrEnum, unique
from typing import Final

_CHECKSUM_BYTES: Final = 6


@unique
class CursorKind(StrEnum):
    """What a cursor leads on in; one kind is none of another. At most eight letters, which blake2s takes."""

    FEED = "feed"
    EXECUTIONS = "list"
    DEAD_LETTERS = "letters"
    LOG_LINES = "lines"


def encode_cursor(kind: CursorKind, text: str) -> str:
    """Answer ``text`` as a cursor of ``kind``: letters, digits, ``-`` and ``_``."""
    told = text.encode()
    summed = hashlib.blake2s(told, digest_size=_CHECKSUM_BYTES, person=kind.encode()).digest()
    return base64.urlsafe_b64encode(summed + told).decode().rstrip("=")


def decode_cursor(kind: CursorKind, cursor: str) -> str:
    """Answer the text that ``cursor`` was made from; raises ValueError where it was not sealed as one of ``kind``."""
    text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[_CHECKSUM_BYTES:].decode()
    if encode_cursor(kind, text) != cursor:  # another sum, or the same bytes written in another way
        raise ValueError("not sealed here")
    return text
