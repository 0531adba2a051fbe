"""Rows of lists and of polls of many: rendered views with the poll hint of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.hints.view_hints import ViewHints


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """One execution as JSON, and when to poll it again (None if it is done)."""

    json: bytes
    poll_after_ms: int | None


def row_of(view: bytes, view_hints: ViewHints) -> ExecutionRow:
    """Return the row of a rendered view, with the hints of this moment."""
    hinted = view_hints.add_to(view)
    return ExecutionRow(hinted.json, hinted.hints.poll_after_ms)


def json_array(rows: Sequence[ExecutionRow]) -> bytes:
    """Return rows as a JSON array."""
    return b"[" + b",".join([row.json for row in rows]) + b"]"
