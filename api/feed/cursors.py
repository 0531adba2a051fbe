"""Cursors of the feed: a place in it, sealed."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from api.http import cursor_codec
from api.http.cursor_codec import CursorKind
from shared.domain.feed_position import FeedPosition
from shared.errors import CursorInvalid

_CURSOR_TEXT: Final = re.compile(
    r"([0-9a-f]{8})\.([1-9][0-9]{0,14})\.(0|[1-9][0-9]{0,2})\.([1-9][0-9]{0,11})", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def encode(place: FeedPosition) -> str:
    """Answer the cursor of a place in the feed."""
    second = (place.as_of - _EPOCH) // timedelta(seconds=1)
    return cursor_codec.encode_cursor(CursorKind.FEED, f"{place.epoch}.{place.batch_number}.{place.offset}.{second}")


def decode(cursor: str, *, parameter: str) -> FeedPosition:
    """Answer the place that ``cursor`` was made from; raises CursorInvalid, which names where it was ``told_in``."""
    with suppress(ValueError, OverflowError):
        found = _CURSOR_TEXT.fullmatch(cursor_codec.decode_cursor(CursorKind.FEED, cursor))
        if found is not None:
            return FeedPosition(found[1], int(found[2]), int(found[3]), _EPOCH + timedelta(seconds=int(found[4])))
    raise CursorInvalid(f"{parameter}={cursor[:100]!r} was not made by Bucket; pass a next_since back as it came")
