"""What is sealed as a cursor comes back as it was, for its own kind, or not at all."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.cursor_codec import Kind, seal, unseal
from tests.tampered_cursors import spoilt

TEXTS = {
    Kind.FEED: "0a1b2c3d.17.3.1795262400",
    Kind.EXECUTIONS: "1763700000000.1763700000_0123456789abcdef.0123456789abcdef",
    Kind.LETTERS: "1763700000000.message-0123456789abcdef01234567",
    Kind.LINES: "1795276852177-0-3",
}


@given(st.sampled_from(Kind), st.text())
def test_a_text_comes_back_as_it_was(kind: Kind, text: str) -> None:
    cursor = seal(kind, text)
    assert unseal(kind, cursor) == text
    assert set(cursor) <= {*string.ascii_letters, *string.digits, "-", "_"}


@pytest.mark.parametrize("kind", Kind)
def test_whatever_was_changed_in_a_cursor_it_is_refused(kind: Kind) -> None:
    for other in spoilt(seal(kind, TEXTS[kind])):
        with pytest.raises(ValueError):  # noqa: PT011 -- the decoder of base64 has words of its own
            unseal(kind, other)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("other", Kind)
def test_a_cursor_of_one_kind_is_none_of_another(kind: Kind, other: Kind) -> None:
    if kind is not other:
        with pytest.raises(ValueError, match="not sealed here"):
            unseal(other, seal(kind, TEXTS[kind]))


@pytest.mark.parametrize("kind", Kind)
@given(made_up=st.text() | st.binary().map(lambda told: base64.urlsafe_b64encode(told).decode().rstrip("=")))
def test_what_is_made_up_is_refused(kind: Kind, made_up: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- as above
        unseal(kind, made_up)
