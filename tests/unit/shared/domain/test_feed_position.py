"""What one page of the feed takes in: each execution at its latest place, and nothing lost at the cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.feed_position import coalesce, select_page

IDS = st.lists(st.sampled_from("abcdef"), max_size=40)


def test_each_execution_stands_once_at_its_latest_place() -> None:
    assert coalesce("abacb") == ("a", "c", "b")


def test_a_page_ends_before_the_first_that_would_be_too_many() -> None:
    assert select_page("abacbd", "abcd", 2) == (("b", "a"), 3)
    assert select_page("abab", "ab", 2) == (("a", "b"), 4)
    assert select_page("xaxxb", "ab", 1) == (("a",), 4)
    assert select_page("xxx", "ab", 1) == ((), 3)


@given(IDS, st.sets(st.sampled_from("abcdef")), st.integers(1, 5))
def test_page_after_page_every_change_is_followed_by_a_showing(ids: list[str], shown: set[str], limit: int) -> None:
    at, pages = 0, []
    while at < len(ids):
        page, taken = select_page(ids[at:], shown, limit)
        assert taken > 0
        assert len(page) <= limit
        assert set(page) == set(ids[at : at + taken]) & shown
        assert len(set(page)) == len(page)
        pages.append(page)
        at += taken
    assert [each for page in pages for each in page][-1:] == [each for each in ids if each in shown][-1:]
