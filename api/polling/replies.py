"""The replies to polls of one execution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import flask
import orjson

from api.hints.view_hints import HintedView
from api.http.cache_control import PRIVATE_NO_CACHE_HEADERS
from api.http.etags import RawResponse, etag_of

NOT_MODIFIED: Final = 304


def poll_response(view: HintedView, body: bytes | None, status: int) -> flask.Response:
    """Return the response of a poll with its ETag and ``Retry-After``; ``body`` is None for a 304."""
    head = view.head
    headers = [("ETag", etag_of(head.execution_id, head.rev)), *PRIVATE_NO_CACHE_HEADERS.items()]
    if body is not None:
        headers.append(("Content-Type", "application/json"))
    if view.hints.retry_after_s is not None:
        headers.append(("Retry-After", str(view.hints.retry_after_s)))
    return RawResponse(body, status, headers)


def with_warnings(response: flask.Response, warnings: Sequence[str]) -> flask.Response:
    """Return the poll ``response``, with ``warnings`` as its last field if there are any."""
    if warnings:
        response.set_data(response.get_data()[:-1] + b"," + orjson.dumps({"warnings": warnings})[1:])
    return response
