"""Rows of lists and of polls of many: rendered views, to each of which is added when to come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.hints.view_hints import ViewHints


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """One execution as JSON, and when to ask for it again; None once it is done."""

    json: bytes
    poll_after_ms: int | None


def row_of(view: bytes, view_hints: ViewHints) -> ExecutionRow:
    """Answer the row that a rendered view makes now."""
    hinted = view_hints.add_to(view)
    return ExecutionRow(hinted.json, hinted.hints.poll_after_ms)


def json_array(rows: Sequence[ExecutionRow]) -> bytes:
    """Answer rows as a JSON array."""
    return b"[" + b",".join([row.json for row in rows]) + b"]"
