"""Opaque cursors of the feed: a position in it, with a checksum."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import timedelta
from typing import Final

from api.http import cursor_codec
from api.http.cursor_codec import CursorKind
from shared.domain.feed_position import FeedPosition
from shared.errors import CursorInvalid
from shared.timestamps import UNIX_EPOCH

_CURSOR_TEXT: Final = re.compile(
    r"([0-9a-f]{8})\.([1-9][0-9]{0,14})\.(0|[1-9][0-9]{0,2})\.([1-9][0-9]{0,11})", re.ASCII
)


def encode(position: FeedPosition) -> str:
    """Return the cursor of a position in the feed."""
    second = (position.as_of - UNIX_EPOCH) // timedelta(seconds=1)
    return cursor_codec.encode_cursor(
        CursorKind.FEED, f"{position.epoch}.{position.batch_number}.{position.offset}.{second}"
    )


def decode(cursor: str, *, parameter: str) -> FeedPosition:
    """Return the position of ``cursor``; raises CursorInvalid, which names the ``parameter`` that it came in."""
    with suppress(ValueError, OverflowError):
        match = _CURSOR_TEXT.fullmatch(cursor_codec.decode_cursor(CursorKind.FEED, cursor))
        if match is not None:
            return FeedPosition(match[1], int(match[2]), int(match[3]), UNIX_EPOCH + timedelta(seconds=int(match[4])))
    raise CursorInvalid(f"{parameter}={cursor[:100]!r} was not made by Bucket; pass a next_since back as it came")
