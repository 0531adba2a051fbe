"""Cursors of the feed: opaque to callers, and only what Bucket has made comes back in.

A sum over the whole shows a cursor that was cut, mistyped or made up. It is no secret: a cursor opens nothing that
its holder could not read without one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from shared.domain.feed import Place
from shared.errors import CursorInvalid

_PLACE: Final = re.compile(r"([0-9a-f]{8})\.([1-9][0-9]{0,14})\.(0|[1-9][0-9]{0,2})\.([1-9][0-9]{0,11})", re.ASCII)
_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)


def encode(place: Place) -> str:
    """Answer the cursor of a place in the feed."""
    second = (place.as_of - _1970) // timedelta(seconds=1)
    text = f"{place.epoch}.{place.number}.{place.taken}.{second}".encode()
    return base64.urlsafe_b64encode(_sum(text) + text).decode().rstrip("=")


def decode(cursor: str, *, told_in: str) -> Place:
    """Answer the place that ``cursor`` was made from; raises CursorInvalid, which names where it was ``told_in``."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        text = raw[_SUM_BYTES:]
        found = _PLACE.fullmatch(text.decode("ascii"))
        if found is not None and raw[:_SUM_BYTES] == _sum(text):
            place = Place(found[1], int(found[2]), int(found[3]), _1970 + timedelta(seconds=int(found[4])))
            if encode(place) == cursor:
                return place
    except (binascii.Error, UnicodeError, OverflowError, ValueError):
        pass
    raise CursorInvalid(f"{told_in}={cursor[:100]!r} was not made by Bucket; pass a next_since back as it came")


_SUM_BYTES: Final = 6


def _sum(text: bytes) -> bytes:
    return hashlib.blake2s(text, digest_size=_SUM_BYTES, person=b"feed").digest()
