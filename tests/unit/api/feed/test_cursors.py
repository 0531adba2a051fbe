"""A cursor of the feed is decoded as it was made, or refused."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.feed import cursors
from api.http import cursor_codec, list_cursors
from api.http.cursor_codec import CursorKind
from shared.domain.feed_position import FeedPosition
from shared.errors import CursorInvalid
from tests.builders import NOON
from tests.tampered_cursors import tampered_variants

PLACE = FeedPosition("0a1b2c3d", 17, 3, NOON)
CURSOR = cursors.encode(PLACE)


@given(st.integers(1, 10**15 - 1), st.integers(0, 249), st.integers(0, 10**9))
def test_a_place_comes_back_as_it_was(number: int, taken: int, second: int) -> None:
    place = FeedPosition("ffffffff", number, taken, NOON + timedelta(seconds=second))
    cursor = cursors.encode(place)
    assert cursors.decode(cursor, parameter="since") == place
    assert cursor.isascii()
    assert "=" not in cursor


@pytest.mark.parametrize(
    "made_up",
    [
        "", "now ", "0", "null", CURSOR[:-1], CURSOR + "A", CURSOR + "=", CURSOR.swapcase(), f" {CURSOR}", "\ud800",
        "ä", "a\0b", list_cursors.encode(CursorKind.DEAD_LETTERS, NOON, "1763700000_0123456789abcdef"), "A" * 100_000,
        base64.urlsafe_b64encode(b"0a1b2c3d.18.3.1795262400").decode().rstrip("="),
    ],
)  # fmt: skip
def test_a_made_up_cursor_is_refused(made_up: str) -> None:
    with pytest.raises(CursorInvalid) as refused:
        cursors.decode(made_up, parameter="since")
    assert refused.value.message.startswith("since=")
    assert len(refused.value.message) < 600


def test_a_cursor_with_any_change_is_refused() -> None:
    for other in tampered_variants(CURSOR):
        with pytest.raises(CursorInvalid, match="was not made by Bucket"):
            cursors.decode(other, parameter="since")


def test_cursors_that_callers_hold_stay_good() -> None:
    assert CURSOR == "WBriSWUIMGExYjJjM2QuMTcuMy4xNzk1MjYyNDAw"


@pytest.mark.parametrize(
    "text", ["", "0a1b2c3d.0.3.1", "0a1b2c3d.01.3.1", "0A1B2C3D.1.3.1", "0a1b2c3d.1.3.999999999999"]
)
def test_a_forged_cursor_with_a_correct_checksum_is_refused(text: str) -> None:
    with pytest.raises(CursorInvalid, match="was not made by Bucket"):
        cursors.decode(cursor_codec.encode_cursor(CursorKind.FEED, text), parameter="since")
