"""Pages of the feed: each execution is at its latest place, and nothing is lost between two pages."""

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
def test_each_change_is_shown_on_its_page_or_on_a_later_one(ids: list[str], visible: set[str], limit: int) -> None:
    start, pages = 0, []
    while start < len(ids):
        page, consumed = select_page(ids[start:], visible, limit)
        assert consumed > 0
        assert len(page) <= limit
        assert set(page) == set(ids[start : start + consumed]) & visible
        assert len(set(page)) == len(page)
        pages.append(page)
        start += consumed
    assert [execution_id for page in pages for execution_id in page][-1:] == [
        execution_id for execution_id in ids if execution_id in visible
    ][-1:]
