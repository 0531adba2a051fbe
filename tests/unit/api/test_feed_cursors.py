"""A cursor of the feed comes back as it was made, or not at all."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import cursors, feed_cursors
from shared.domain.feed import Place
from shared.errors import CursorInvalid
from tests.builders import NOON

PLACE = Place("0a1b2c3d", 17, 3, NOON)
CURSOR = feed_cursors.encode(PLACE)


@given(st.integers(1, 10**15 - 1), st.integers(0, 249), st.integers(0, 10**9))
def test_a_place_comes_back_as_it_was(number: int, taken: int, second: int) -> None:
    place = Place("ffffffff", number, taken, NOON + timedelta(seconds=second))
    cursor = feed_cursors.encode(place)
    assert feed_cursors.decode(cursor, told_in="since") == place
    assert cursor.isascii()
    assert "=" not in cursor


@pytest.mark.parametrize(
    "made_up",
    [
        "", "now ", "0", "null", CURSOR[:-1], CURSOR + "A", CURSOR + "=", CURSOR.swapcase(), f" {CURSOR}", "\ud800",
        "ä", "a\0b", cursors.encode(NOON, "1763700000_0123456789abcdef"), "A" * 100_000,
        base64.urlsafe_b64encode(b"0a1b2c3d.18.3.1795262400").decode().rstrip("="),
    ],
)  # fmt: skip
def test_what_bucket_has_not_made_is_refused(made_up: str) -> None:
    with pytest.raises(CursorInvalid) as refused:
        feed_cursors.decode(made_up, told_in="since")
    assert refused.value.message.startswith("since=")
    assert len(refused.value.message) < 600


@given(st.integers(0, len(CURSOR) - 1), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_cursor_with_one_other_character_is_refused(at: int, other: str) -> None:
    if CURSOR[at] != other:
        with pytest.raises(CursorInvalid):
            feed_cursors.decode(CURSOR[:at] + other + CURSOR[at + 1 :], told_in="since")
