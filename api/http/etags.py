"""Conditional requests: ETag and If-None-Match; the ETag of an execution is its revision."""

from __future__ import annotations

import re
from typing import Any, Final

import flask
from flask import request
from werkzeug.datastructures import Headers

from shared.ids import EXECUTION_ID_PATTERN
from shared.live.render import ViewHeader

# A proxy that compresses changes the ETag, and does not change it back: Apache's mod_deflate adds "-gzip".
_SUFFIXES: Final = ("", "-gzip", "--gzip", "-br", "-zstd", "-deflate")
_ETAG_REVISION: Final = re.compile(
    rf'"({EXECUTION_ID_PATTERN.pattern})\.([0-9]{{1,15}})(?:{"|".join(_SUFFIXES)})"', re.ASCII
)


def etag_of(execution_id: str, rev: int) -> str:
    """Return the ETag of a revision; weak, because the hints change without a new revision."""
    return f'W/"{execution_id}.{rev}"'


def matches_if_none_match(head: ViewHeader) -> bool:
    """Return whether If-None-Match names this revision, by weak comparison as GET requires."""
    header = request.environ.get("HTTP_IF_NONE_MATCH")
    if not header:
        return False
    return header == etag_of(head.execution_id, head.rev) or if_none_match_names(f"{head.execution_id}.{head.rev}")


def if_none_match_names(tag: str) -> bool:
    """Return whether If-None-Match is ``*`` or names ``tag``, by weak comparison; also with a proxy's suffix."""
    tags = request.if_none_match
    return any(tags.contains_weak(tag + suffix) for suffix in _SUFFIXES)


def if_none_match_rev(execution_id: str) -> int:
    """Return the highest revision of this execution that If-None-Match names; 0 if it names none."""
    header = request.environ.get("HTTP_IF_NONE_MATCH")
    return max(
        (int(match[2]) for match in _ETAG_REVISION.finditer(header or "") if match[1] == execution_id), default=0
    )


def has_if_none_match_rev() -> bool:
    """Return whether the request has an If-None-Match with ETags, not just ``*``."""
    header = request.environ.get("HTTP_IF_NONE_MATCH")
    return bool(header) and not request.if_none_match.star_tag


class RawResponse(flask.Response):
    """A response whose headers are sent as they are, without werkzeug's corrections: the hot path of the poll."""

    default_mimetype = None

    def get_wsgi_headers(self, environ: Any) -> Headers:  # noqa: ARG002  the signature is werkzeug's
        """Return the headers unchanged."""
        return self.headers
