"""The change check of a long poll: decides whether a view has something new for the caller."""

from __future__ import annotations

import orjson

from api.http.etags import has_if_none_match_rev, matches_if_none_match
from api.http.wait_preference import WaitPreference
from api.polling.field_selection import has_newer_lines
from shared.domain.execution import LogPageQuery
from shared.live.render import parse_header
from shared.live.view_trailer import split_trailer


class ChangeCheck:
    """What one held poll waits for: a revision that its caller does not have, or a change after the first read."""

    def __init__(self, preference: WaitPreference, page: LogPageQuery) -> None:
        self._until_done = preference.until_done
        self._page = page
        self._first_rev: int | None = None

    def has_changed(self, view: bytes) -> bool:
        """Return whether ``view`` should be sent now; the view of a finished run always should."""
        head = parse_header(view)
        if head.is_done or self._until_done:
            return head.is_done
        if self._page.after is not None and has_newer_lines(orjson.loads(split_trailer(view)[0] + b"}"), self._page):
            return True
        if has_if_none_match_rev():
            return not matches_if_none_match(head)
        if self._first_rev is None:
            self._first_rev = head.rev
        return head.rev != self._first_rev
