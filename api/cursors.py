"""Cursors of lists by moment and id: opaque to callers, and only what Bucket has made comes back in.

One that is ``bound`` to a list's filters leads on in that list alone: in another it would pass rows over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from shared.errors import CursorInvalid
from shared.ids import EXECUTION_ID

_ROW: Final = rf"{EXECUTION_ID.pattern}|message-[0-9a-f]{{24}}"
_PLACE: Final = re.compile(rf"([0-9]{{1,15}})\.({_ROW})((?:\.[0-9a-f]{{16}})?)", re.ASCII)
_MARK_DIGITS: Final = 16
_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)


def encode(at: datetime, row_id: str, bound: bytes = b"") -> str:
    """Answer the cursor of a place in a list."""
    ms = (at - _1970) // timedelta(milliseconds=1)
    return base64.urlsafe_b64encode(f"{ms}.{row_id}{_mark(bound)}".encode()).decode().rstrip("=")


def decode(cursor: str, bound: bytes = b"") -> tuple[datetime, str]:
    """Answer the place that ``cursor`` was made from; raises CursorInvalid where it was not made for this list."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        found = _PLACE.fullmatch(text)
        if found is not None:
            place = _1970 + timedelta(milliseconds=int(found[1])), found[2]
            if encode(*place, bound) == cursor:
                return place
            if bound and found[3] not in {"", _mark(bound)}:
                raise CursorInvalid(f"cursor={cursor[:64]!r} belongs to a list with other filters or another order")
    except (binascii.Error, UnicodeError, OverflowError, ValueError):
        pass
    raise CursorInvalid(f"cursor={cursor[:64]!r} was not made by Bucket; pass a next_cursor back, or leave it out")


def _mark(bound: bytes) -> str:
    return f".{hashlib.sha256(bound).hexdigest()[:_MARK_DIGITS]}" if bound else ""
