"""Sparse fields and log pages (``?fields=``, ``?after=``, ``?limit=``): selects a part of a poll.

It works on the rendered view, which has the newest log lines, so most of these polls cost one Redis round trip too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from flask import request

from api.http import query_params
from api.rows.row_fields import ALWAYS_INCLUDED, check_sees_payloads, hide_agent_texts
from shared.domain.access.caller import Caller
from shared.domain.execution import NEWEST_LOG_LINES, LogPageQuery

FIELD_NAMES: Final = (
    *ALWAYS_INCLUDED, "basket_name", "progress", "current_step", "steps", "waiting_for", "result", "error", "outputs",
    "logs", "count", "total", "next_after", "first_seq", "logs_dropped", "gap", "tags", "metadata", "input_source",
    "retry_of", "cancel", "execution_metadata", "created_at", "queued_at", "started_at", "finished_at", "poll_after_ms",
    "request_id", "reference", "expires_at", "erased_at", "traceparent",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FieldSelection:
    """The part of a poll that a caller wants: which log lines, and which fields (None: all).

    ``hides_texts`` replaces the texts of agents in the other fields.
    """

    page: LogPageQuery = NEWEST_LOG_LINES
    fields: frozenset[str] | None = None
    hides_texts: bool = False

    @property
    def is_all(self) -> bool:
        """Whether the poll is wanted exactly as it is stored in Redis."""
        return self.fields is None and self.page == NEWEST_LOG_LINES

    def select_from_newest(self, view: dict[str, Any]) -> bytes | None:
        """Return this part of a parsed view with the newest lines; None if the view lacks lines of the page."""
        if self.page != NEWEST_LOG_LINES and not _slice_logs(self.page, view):
            return None
        return self.select(view)

    def select(self, view: dict[str, Any]) -> bytes:
        """Return this part of a parsed view that shows the page already."""
        if self.hides_texts:
            hide_agent_texts(view)
        if self.fields is None:
            return orjson.dumps(view)
        # A gap is never silent: a reply with log lines always has this field.
        selected = self.fields | {"gap"} if "logs" in self.fields else self.fields
        always = {name: view[name] for name in ALWAYS_INCLUDED}
        return orjson.dumps(always | {name: value for name, value in view.items() if name in selected})


FULL_SELECTION: Final = FieldSelection()
PAYLOAD_FIELDS: Final = frozenset({"result", "outputs", "logs", "metadata"})
"""What a caller without payloads does not see: what callers and agents have put into the run."""
WITHOUT_PAYLOADS: Final = FieldSelection(fields=frozenset(FIELD_NAMES) - PAYLOAD_FIELDS, hides_texts=True)


def parse_field_selection(caller: Caller) -> FieldSelection:
    """Parse ``after``, ``limit`` and ``fields`` of this request; raises ValidationFailed.

    A caller without payloads gets all other fields; raises Forbidden if it asks for one of them, or for log lines.
    """
    if not request.environ.get("QUERY_STRING"):
        return FULL_SELECTION if caller.sees_payloads else WITHOUT_PAYLOADS
    page = LogPageQuery(query_params.after(), query_params.limit())
    fields = query_params.field_names(FIELD_NAMES, "a poll")
    if caller.sees_payloads:
        return FieldSelection(page, fields)
    check_sees_payloads(caller, PAYLOAD_FIELDS & (fields or set()) | ({"logs"} if page.after is not None else set()))
    return WITHOUT_PAYLOADS if fields is None else replace(WITHOUT_PAYLOADS, fields=fields)


def has_newer_lines(view: dict[str, Any], page: LogPageQuery) -> bool:
    """Return whether a view has log lines beyond the ``after`` of the caller."""
    return page.after is not None and bool(view["total"] > page.after)


def _slice_logs(page: LogPageQuery, view: dict[str, Any]) -> bool:
    """Reduce the lines of ``view`` to those of ``page``, as MongoDB would; return False if some are not in it."""
    lines, total, first_kept = view["logs"], view["total"], view["first_seq"]
    first_in_view = total - len(lines) + 1
    if page.after is None:
        first_requested = total - page.limit + 1
        lines = lines[-page.limit :]
    else:
        first_requested = page.after + 1
        skipped = max(first_requested - first_in_view, 0)
        lines = lines[skipped : skipped + page.limit]
        view["gap"] = first_requested < first_kept
    if max(first_requested, first_kept) < first_in_view:
        return False
    view["logs"], view["count"] = lines, len(lines)
    if lines:
        view["next_after"] = lines[-1]["seq"]
    elif page.after is not None:
        view["next_after"] = page.after
    return True
