"""A cursor of a list is decoded as it was made, in its own list, or refused."""

from __future__ import annotations

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

RUN = "1763700000_0123456789abcdef"
LISTS = [
    (CursorKind.EXECUTIONS, RUN, b"failed, newest"),
    (CursorKind.DEAD_LETTERS, RUN, b""),
    (CursorKind.DEAD_LETTERS, "message-0123456789abcdef01234567", b""),
]


@pytest.mark.parametrize(("kind", "row_id", "bound"), LISTS)
@given(ms=st.integers(0, 10**13))
def test_a_place_comes_back_as_it_was(kind: CursorKind, row_id: str, bound: bytes, ms: int) -> None:
    at = NOON + timedelta(milliseconds=ms)
    assert list_cursors.decode(kind, list_cursors.encode(kind, at, row_id, bound), bound) == (at, row_id)


@pytest.mark.parametrize(("kind", "row_id", "bound"), LISTS)
def test_a_cursor_with_any_change_is_refused(kind: CursorKind, row_id: str, bound: bytes) -> None:
    for other in tampered_variants(list_cursors.encode(kind, NOON, row_id, bound)):
        with pytest.raises(CursorInvalid, match="was not made by Bucket; pass a next_cursor back") as refused:
            list_cursors.decode(kind, other, bound)
        assert len(refused.value.message) < 600


@pytest.mark.parametrize("bound", [b"", b"failed, oldest"])
def test_a_cursor_of_another_list_is_refused_with_the_reason(bound: bytes) -> None:
    cursor = list_cursors.encode(CursorKind.EXECUTIONS, NOON, RUN, b"failed, newest")
    with pytest.raises(CursorInvalid, match="other filters or another order; begin anew without a cursor"):
        list_cursors.decode(CursorKind.EXECUTIONS, cursor, bound)


@pytest.mark.parametrize(
    "cursor",
    [
        list_cursors.encode(CursorKind.DEAD_LETTERS, NOON, RUN),
        list_cursors.encode(CursorKind.DEAD_LETTERS, NOON, RUN, b"failed, newest"),
        cursors.encode(FeedPosition("0a1b2c3d", 17, 3, NOON)),
        cursor_codec.encode_cursor(CursorKind.LOG_LINES, "1795276852177-0-3"),
    ],
)
def test_a_cursor_of_something_else_was_not_made_for_this_list(cursor: str) -> None:
    with pytest.raises(CursorInvalid, match="was not made by Bucket"):
        list_cursors.decode(CursorKind.EXECUTIONS, cursor, b"failed, newest")


@pytest.mark.parametrize(
    "text", ["", "1", f"1.{RUN}.", f"01.{RUN}", f"-1.{RUN}", f"٣.{RUN}", "1.x", f"{'9' * 15}.{RUN}", f"1.{RUN}\n"]
)
def test_a_forged_cursor_with_a_correct_checksum_is_refused(text: str) -> None:
    with pytest.raises(CursorInvalid, match="was not made by Bucket"):
        list_cursors.decode(CursorKind.DEAD_LETTERS, cursor_codec.encode_cursor(CursorKind.DEAD_LETTERS, text))
