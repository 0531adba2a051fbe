"""When a reader of the feed has caught up, and when it should poll again."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from api.feed.changes import FEED_POLL_AFTER_MAX_MS, has_caught_up, poll_after_ms
from api.hints.poll_hints import POLL_AFTER_MIN_MS
from shared.domain.feed_position import FeedEnd, FeedPosition
from shared.store.feed.reader import FeedPage
from tests.builders import NOON

SECOND = timedelta(seconds=1)


def page(*, rested: timedelta = timedelta(0), whole: timedelta = timedelta(0), is_last: bool = True) -> FeedPage:
    end = FeedEnd("0a1b2c3d", 7, NOON - rested, NOON - whole)
    return FeedPage((), end.position if is_last else FeedPosition(end.epoch, 7, 0, NOON), end)


@pytest.mark.parametrize(
    ("page_read", "now", "caught_up"),
    [
        (page(rested=SECOND, whole=SECOND), NOON, True),
        (page(rested=SECOND, whole=SECOND, is_last=False), NOON, False),
        (page(rested=SECOND / 10, whole=SECOND / 10), NOON, False),
        (page(rested=9 * SECOND, whole=4 * SECOND), NOON, False),
        (page(rested=9 * SECOND, whole=-4 * SECOND), NOON, False),
        (page(rested=SECOND, whole=SECOND), None, False),
    ],
    ids=["at rest", "more to read", "just written to", "no relay", "clocks at odds", "no clock"],
)
def test_a_reader_has_caught_up_only_if_a_live_relay_says_so(
    page_read: FeedPage, now: datetime | None, caught_up: bool
) -> None:
    assert has_caught_up(page_read, now) is caught_up


def test_a_reader_with_more_to_read_polls_at_once_and_one_that_has_caught_up_later_the_quieter_the_feed_is() -> None:
    assert poll_after_ms(page(rested=600 * SECOND, is_last=False), NOON) == POLL_AFTER_MIN_MS
    assert poll_after_ms(page(), NOON) == POLL_AFTER_MIN_MS
    assert 1_800 <= poll_after_ms(page(rested=10 * SECOND), NOON) <= 2_200
    assert 4_500 <= poll_after_ms(page(rested=600 * SECOND), NOON) <= FEED_POLL_AFTER_MAX_MS
    for now in (None, NOON):
        assert 1_800 <= poll_after_ms(page(rested=600 * SECOND, whole=9 * SECOND), now) <= 2_200
