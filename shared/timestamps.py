"""RFC 3339 timestamps: parsed from requests, formatted for replies."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:[0-5]\d)", re.ASCII
)


def parse_rfc3339(text: str) -> datetime:
    """Parse a timestamp into UTC, to the microsecond; raises ValueError if ``text`` is none, or has no offset."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("no timestamp with its offset")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        raise ValueError("no timestamp that can be written in UTC") from None


@lru_cache(maxsize=256)  # one view has the same time in several places, and so have later views
def format_rfc3339(at: datetime | None) -> str | None:
    """Format a timestamp in UTC, to the millisecond; None for None."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
