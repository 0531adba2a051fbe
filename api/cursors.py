"""Cursors of lists by moment and id: opaque to callers, and only what Bucket has made comes back in."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from shared.errors import CursorInvalid
from shared.ids import EXECUTION_ID

_ROW: Final = rf"{EXECUTION_ID.pattern}|message-[0-9a-f]{{24}}"
_PLACE: Final = re.compile(rf"([0-9]{{1,15}})\.({_ROW})", re.ASCII)
_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)


def encode(at: datetime, row_id: str) -> str:
    """Answer the cursor of a place in a list."""
    ms = (at - _1970) // timedelta(milliseconds=1)
    return base64.urlsafe_b64encode(f"{ms}.{row_id}".encode()).decode().rstrip("=")


def decode(cursor: str) -> tuple[datetime, str]:
    """Answer the place that ``cursor`` was made from; raises CursorInvalid where it was not made by Bucket."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        found = _PLACE.fullmatch(text)
        if found is not None:
            place = _1970 + timedelta(milliseconds=int(found[1])), found[2]
            if encode(*place) == cursor:
                return place
    except (binascii.Error, UnicodeError, OverflowError, ValueError):
        pass
    raise CursorInvalid(f"cursor={cursor[:64]!r} was not made by Bucket; pass a next_cursor back, or leave it out")
