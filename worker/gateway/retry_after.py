"""The header ``Retry-After``: seconds, or a date."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_SECONDS_MAX: Final = 10.0 * 365 * 86_400
"""More digits may be infinity, with which no caller can reckon."""


def parse_retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds to wait, at least 0; None if there is no header or it is neither seconds nor a date."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _SECONDS_MAX)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a zone of many digits overflows
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)  # "-0000", which says that the zone is not known
    return max((at - (now or datetime.now(UTC))).total_seconds(), 0.0)
