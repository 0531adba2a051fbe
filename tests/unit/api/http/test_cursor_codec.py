"""Cursor codec: a sealed text is decoded as it was, for its own kind, or refused."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.cursor_codec import CursorKind, decode_cursor, encode_cursor
from tests.tampered_cursors import tampered_variants

TEXTS = {
    CursorKind.FEED: "0a1b2c3d.17.3.1795262400",
    CursorKind.EXECUTIONS: "1763700000000.1763700000_0123456789abcdef.0123456789abcdef",
    CursorKind.DEAD_LETTERS: "1763700000000.message-0123456789abcdef01234567",
    CursorKind.LOG_LINES: "1795276852177-0-3",
    CursorKind.KEYS: "3fR9x0Ab7QzL",
    CursorKind.INTEGRATIONS: "acme",
    CursorKind.AUDIT: "17",
}


@given(st.sampled_from(CursorKind), st.text())
def test_a_text_comes_back_as_it_was(kind: CursorKind, text: str) -> None:
    cursor = encode_cursor(kind, text)
    assert decode_cursor(kind, cursor) == text
    assert set(cursor) <= {*string.ascii_letters, *string.digits, "-", "_"}


@pytest.mark.parametrize("kind", CursorKind)
def test_a_cursor_with_any_change_is_refused(kind: CursorKind) -> None:
    for other in tampered_variants(encode_cursor(kind, TEXTS[kind])):
        with pytest.raises(ValueError):  # noqa: PT011 -- the decoder of base64 has its own messages
            decode_cursor(kind, other)


@pytest.mark.parametrize("kind", CursorKind)
@pytest.mark.parametrize("other", CursorKind)
def test_a_cursor_of_one_kind_is_refused_as_another_kind(kind: CursorKind, other: CursorKind) -> None:
    if kind is not other:
        with pytest.raises(ValueError, match="the checksum is wrong"):
            decode_cursor(other, encode_cursor(kind, TEXTS[kind]))


@pytest.mark.parametrize("kind", CursorKind)
@given(made_up=st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")))
def test_a_made_up_cursor_is_refused(kind: CursorKind, made_up: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- as above
        decode_cursor(kind, made_up)
