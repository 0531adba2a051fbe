"""Cursors for keyset pagination of lists: a timestamp and an id, with a checksum.

A cursor that is bound to the ``filters`` of a list is valid for that list only: in another it would skip rows.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from api.http import cursor_codec
from api.http.cursor_codec import CursorKind
from shared.errors import CursorInvalid
from shared.ids import DEAD_LETTER_ID_PATTERN
from shared.timestamps import UNIX_EPOCH

_CURSOR_TEXT: Final = re.compile(
    rf"(0|[1-9][0-9]{{0,14}})\.({DEAD_LETTER_ID_PATTERN.pattern})((?:\.[0-9a-f]{{16}})?)", re.ASCII
)
_DIGEST_CHARS: Final = 16


def encode(kind: CursorKind, at: datetime, row_id: str, filters: bytes = b"") -> str:
    """Return the cursor of a position (time, id) in a list of ``kind``, bound to ``filters``."""
    ms = (at - UNIX_EPOCH) // timedelta(milliseconds=1)
    return cursor_codec.encode_cursor(kind, f"{ms}.{row_id}{_filters_digest(filters)}")


def decode(kind: CursorKind, cursor: str, filters: bytes = b"") -> tuple[datetime, str]:
    """Return the position (time, id) of ``cursor``; raises CursorInvalid if it was not made for this list."""
    with suppress(ValueError, OverflowError):
        if match := _CURSOR_TEXT.fullmatch(cursor_codec.decode_cursor(kind, cursor)):
            if match[3] != _filters_digest(filters):
                raise CursorInvalid(
                    f"cursor={cursor[:64]!r} belongs to a list with other filters or another order; "
                    "begin anew without a cursor"
                )
            return UNIX_EPOCH + timedelta(milliseconds=int(match[1])), match[2]
    raise CursorInvalid(f"cursor={cursor[:64]!r} was not made by Bucket; pass a next_cursor back, or leave it out")


def _filters_digest(filters: bytes) -> str:
    return f".{hashlib.sha256(filters).hexdigest()[:_DIGEST_CHARS]}" if filters else ""
