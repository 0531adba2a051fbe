"""Cursors of the feed: a place in it, sealed."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from api.http import cursor_codec
from api.http.cursor_codec import Kind
from shared.domain.feed_position import Place
from shared.errors import CursorInvalid

_PLACE: Final = re.compile(r"([0-9a-f]{8})\.([1-9][0-9]{0,14})\.(0|[1-9][0-9]{0,2})\.([1-9][0-9]{0,11})", re.ASCII)
_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)


def encode(place: Place) -> str:
    """Answer the cursor of a place in the feed."""
    second = (place.as_of - _1970) // timedelta(seconds=1)
    return cursor_codec.seal(Kind.FEED, f"{place.epoch}.{place.number}.{place.taken}.{second}")


def decode(cursor: str, *, told_in: str) -> Place:
    """Answer the place that ``cursor`` was made from; raises CursorInvalid, which names where it was ``told_in``."""
    with suppress(ValueError, OverflowError):
        found = _PLACE.fullmatch(cursor_codec.unseal(Kind.FEED, cursor))
        if found is not None:
            return Place(found[1], int(found[2]), int(found[3]), _1970 + timedelta(seconds=int(found[4])))
    raise CursorInvalid(f"{told_in}={cursor[:100]!r} was not made by Bucket; pass a next_since back as it came")
