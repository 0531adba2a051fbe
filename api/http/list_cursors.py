"""Cursors of lists by moment and id, sealed.

One that is ``bound`` to a list's filters leads on in that list alone: in another it would pass rows over.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from api.http import cursor_codec
from api.http.cursor_codec import Kind
from shared.errors import CursorInvalid
from shared.ids import EXECUTION_ID

_ROW: Final = rf"{EXECUTION_ID.pattern}|message-[0-9a-f]{{24}}"
_PLACE: Final = re.compile(rf"(0|[1-9][0-9]{{0,14}})\.({_ROW})((?:\.[0-9a-f]{{16}})?)", re.ASCII)
_MARK_DIGITS: Final = 16
_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)


def encode(kind: Kind, at: datetime, row_id: str, bound: bytes = b"") -> str:
    """Answer the cursor of a place in a list of ``kind``."""
    ms = (at - _1970) // timedelta(milliseconds=1)
    return cursor_codec.seal(kind, f"{ms}.{row_id}{_mark(bound)}")


def decode(kind: Kind, cursor: str, bound: bytes = b"") -> tuple[datetime, str]:
    """Answer the place that ``cursor`` was made from; raises CursorInvalid where it was not made for this list."""
    with suppress(ValueError, OverflowError):
        found = _PLACE.fullmatch(cursor_codec.unseal(kind, cursor))
        if found is not None:
            if found[3] != _mark(bound):
                raise CursorInvalid(
                    f"cursor={cursor[:64]!r} belongs to a list with other filters or another order; "
                    "begin anew without a cursor"
                )
            return _1970 + timedelta(milliseconds=int(found[1])), found[2]
    raise CursorInvalid(f"cursor={cursor[:64]!r} was not made by Bucket; pass a next_cursor back, or leave it out")


def _mark(bound: bytes) -> str:
    return f".{hashlib.sha256(bound).hexdigest()[:_MARK_DIGITS]}" if bound else ""
