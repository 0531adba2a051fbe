"""Says what counts as news to a poll that is held."""

from __future__ import annotations

import orjson

from api.http.etags import is_known, knows_something
from api.http.wait_preference import Patience
from api.polling.field_selection import lies_beyond
from shared.domain.execution import Page
from shared.live.render import head_of
from shared.live.view_trailer import cut_mark


class News:
    """What one held poll waits for: a revision that its caller lacks, or another than the first that was seen."""

    def __init__(self, patience: Patience, page: Page) -> None:
        self._until_done = patience.until_done
        self._page = page
        self._first_rev: int | None = None

    def is_in(self, view: bytes) -> bool:
        """True where the caller should be told of ``view`` now; of an end it always should."""
        head = head_of(view)
        if head.done or self._until_done:
            return head.done
        if self._page.after is not None and lies_beyond(orjson.loads(cut_mark(view)[0] + b"}"), self._page):
            return True
        if knows_something():
            return not is_known(head)
        if self._first_rev is None:
            self._first_rev = head.rev
        return head.rev != self._first_rev
