"""Answers a part of a poll: the log lines beyond a ``seq``, and no other fields than were asked for.

It works on the rendered view, which bears the newest lines, so that most of this costs one Redis round trip as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from flask import request

from api.http import query_params
from shared.domain.execution import NEWEST, Page
from shared.errors import ValidationFailed

ALWAYS: Final = ("execution_id", "status", "done", "rev")
NAMES: Final = (
    *ALWAYS, "basket_name", "progress", "current_step", "steps", "waiting_for", "result", "error", "outputs", "logs",
    "count", "total", "next_after", "first_seq", "logs_dropped", "gap", "tags", "metadata", "input_source", "retry_of",
    "cancel", "execution_metadata", "created_at", "queued_at", "started_at", "finished_at", "poll_after_ms",
    "request_id",
)  # fmt: skip
_KNOWN: Final = frozenset(NAMES)
_SHOWN_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Portion:
    """What of a poll a caller wants: which log lines, and which fields (None: all)."""

    page: Page = NEWEST
    fields: frozenset[str] | None = None

    @property
    def is_all(self) -> bool:
        """True for a poll as it lies in Redis."""
        return self.fields is None and self.page == NEWEST

    def of_view(self, shown: dict[str, Any]) -> bytes | None:
        """Answer this portion of a parsed poll that shows the newest lines; None where it lacks lines of the page."""
        if self.page != NEWEST and not _turn_to(self.page, shown):
            return None
        return self.of(shown)

    def of(self, shown: dict[str, Any]) -> bytes:
        """Answer this portion of a parsed poll that shows the page already."""
        if self.fields is None:
            return orjson.dumps(shown)
        # A gap is never silent: whoever gets lines is told of it.
        wanted = self.fields | {"gap"} if "logs" in self.fields else self.fields
        always = {name: shown[name] for name in ALWAYS}
        return orjson.dumps(always | {name: told for name, told in shown.items() if name in wanted})


ALL: Final = Portion()


def portion_asked() -> Portion:
    """Answer what this request asks for by ``after``, ``limit`` and ``fields``; raises ValidationFailed."""
    if not request.environ.get("QUERY_STRING"):
        return ALL
    return Portion(Page(query_params.after(), query_params.limit()), _fields_asked(query_params.text("fields")))


def lies_beyond(shown: dict[str, Any], page: Page) -> bool:
    """True where a poll tells of log lines that a caller who has those up to ``after`` lacks."""
    return page.after is not None and bool(shown["total"] > page.after)


def _turn_to(page: Page, shown: dict[str, Any]) -> bool:
    """Leave of the lines of ``shown`` those of ``page``, as MongoDB would; False where some are not there."""
    lines, total, first_kept = shown["logs"], shown["total"], shown["first_seq"]
    first_here = total - len(lines) + 1
    if page.after is None:
        first_wanted = total - page.limit + 1
        lines = lines[-page.limit :]
    else:
        first_wanted = page.after + 1
        skipped = max(first_wanted - first_here, 0)
        lines = lines[skipped : skipped + page.limit]
        shown["gap"] = first_wanted < first_kept
    if max(first_wanted, first_kept) < first_here:
        return False
    shown["logs"], shown["count"] = lines, len(lines)
    if lines:
        shown["next_after"] = lines[-1]["seq"]
    elif page.after is not None:
        shown["next_after"] = page.after
    return True


def _fields_asked(told: str | None) -> frozenset[str] | None:
    if told is None:
        return None
    names = [name.strip() for name in told.split(",")]
    unknown = next((name for name in names if name not in _KNOWN), None)
    if unknown is None:
        return frozenset(names)
    wrong = f"{unknown[:_SHOWN_MAX]!r} is no field of a poll" if unknown else "a name is missing"
    fault = {"parameter": "fields", "message": f"{wrong}; name some of {', '.join(NAMES)}, with commas between"}
    raise ValidationFailed(f"fields: {fault['message']}", details=[fault])
