"""Tampered cursors: strings that are almost one of Bucket's cursors; each must be refused."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Final

_ALPHABET: Final = string.ascii_letters + string.digits + "-_" + "+/=. \n\0ä"


def tampered_variants(cursor: str, others: str = _ALPHABET) -> Iterator[str]:
    """Yield ``cursor`` with each character replaced by each of ``others``; also cut, doubled, extended and padded."""
    for index, original in enumerate(cursor):
        yield from (cursor[:index] + other + cursor[index + 1 :] for other in others if other != original)
        yield cursor[:index]
        yield cursor[index + 1 :]
        yield cursor[:index] + original + cursor[index:]
    yield from (cursor + suffix for suffix in ("A", "AAAA", "=", "==", "===", " ", "\n", cursor))
    yield from (f" {cursor}", f"={cursor}", cursor.swapcase(), cursor[::-1])
