"""Reads moments as RFC 3339 writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_MOMENT: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:[0-5]\d)", re.ASCII)


def read_moment(told: str) -> datetime:
    """Answer a moment in UTC, to the microsecond; ValueError where ``told`` is none, or has no offset."""
    if not _MOMENT.fullmatch(told):
        raise ValueError("no moment with its offset")
    try:
        return datetime.fromisoformat(told.upper()).astimezone(UTC)
    except OverflowError:
        raise ValueError("no moment that can be told in UTC") from None
