"""Makes cursors that are almost one of Bucket's: each must be refused."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Final

_ALPHABET: Final = string.ascii_letters + string.digits + "-_" + "+/=. \n\0ä"


def spoilt(cursor: str, others: str = _ALPHABET) -> Iterator[str]:
    """Answer ``cursor`` with each character replaced by each of ``others``; cut, doubled, extended, padded."""
    for at, was in enumerate(cursor):
        yield from (cursor[:at] + other + cursor[at + 1 :] for other in others if other != was)
        yield cursor[:at]
        yield cursor[at + 1 :]
        yield cursor[:at] + was + cursor[at:]
    yield from (cursor + more for more in ("A", "AAAA", "=", "==", "===", " ", "\n", cursor))
    yield from (f" {cursor}", f"={cursor}", cursor.swapcase(), cursor[::-1])
