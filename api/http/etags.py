"""Answers who says by an ETag what it has already; an execution's is its revision."""

from __future__ import annotations

import re
from typing import Any, Final

import flask
from flask import request
from werkzeug.datastructures import Headers

from shared.ids import EXECUTION_ID_PATTERN
from shared.live.render import ViewHeader

_ETAG_REVISION: Final = re.compile(rf'"({EXECUTION_ID_PATTERN.pattern})\.([0-9]{{1,15}})"', re.ASCII)


def etag_of(execution_id: str, rev: int) -> str:
    """Answer the mark of a revision; weak, for hints move without one."""
    return f'W/"{execution_id}.{rev}"'


def matches_if_none_match(head: ViewHeader) -> bool:
    """True where the caller's If-None-Match names this revision; weakly compared, as GET is."""
    told = request.environ.get("HTTP_IF_NONE_MATCH")
    if not told:
        return False
    return told == etag_of(head.execution_id, head.rev) or request.if_none_match.contains_weak(
        f"{head.execution_id}.{head.rev}"
    )


def if_none_match_rev(execution_id: str) -> int:
    """Answer the highest revision of an execution that the caller's If-None-Match names; 0 where it names none."""
    told = request.environ.get("HTTP_IF_NONE_MATCH")
    return max((int(found[2]) for found in _ETAG_REVISION.finditer(told or "") if found[1] == execution_id), default=0)


def has_if_none_match_rev() -> bool:
    """True where the caller names revisions, and not just any."""
    told = request.environ.get("HTTP_IF_NONE_MATCH")
    return bool(told) and not request.if_none_match.star_tag


class RawResponse(flask.Response):
    """A reply whose headers are whole as they are given: werkzeug need not look through them once more."""

    default_mimetype = None

    def get_wsgi_headers(self, environ: Any) -> Headers:  # noqa: ARG002  the signature is werkzeug's
        """Answer the headers."""
        return self.headers
