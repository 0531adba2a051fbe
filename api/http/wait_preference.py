"""Parses the wait preference of a long poll: ``?wait=``, ``?until=`` and the header ``Prefer: wait=`` (RFC 7240)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.request import parse_http_list

import flask
from flask import request

from api.http import query_params
from api.http.long_poll import WAIT_MAX_S

# Any number of JSON that is not negative, as the OpenAPI document says; also in the form that a client prints.
_WAIT_PATTERN: Final = re.compile(r"[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class WaitPreference:
    """How long a caller waits, at most 30 s; with ``until_done`` only the end of the run counts as a change."""

    wait_s: float = 0.0
    until_done: bool = False
    is_from_prefer: bool = False

    def mark_applied(self, response: flask.Response, *, is_granted: bool) -> flask.Response:
        """Return ``response``, with the header ``Preference-Applied`` if a wait from ``Prefer`` was granted."""
        if is_granted and self.is_from_prefer:
            response.headers["Preference-Applied"] = f"wait={self.wait_s:g}"
        return response


NO_WAIT: Final = WaitPreference()


def parse_wait_preference() -> WaitPreference:
    """Return how long this request waits; the query wins over ``Prefer``. Raises ValidationFailed."""
    if not request.environ.get("QUERY_STRING"):
        return parse_prefer_header()
    until = query_params.text("until")
    if until not in {None, "done"}:
        query_params.raise_invalid("until", "must be done; leave it out to be told of any change")
    value = query_params.text("wait")
    if value is None:
        preferred = parse_prefer_header()
        return WaitPreference(preferred.wait_s, until is not None, preferred.is_from_prefer)
    if not _WAIT_PATTERN.fullmatch(value):
        query_params.raise_invalid("wait", "must be seconds, such as 10; more than 30 count as 30")
    return WaitPreference(min(float(value), WAIT_MAX_S), until is not None)


def parse_prefer_header() -> WaitPreference:
    """Return the wait of the ``Prefer`` header alone; the first ``wait`` counts, a malformed one means no wait."""
    header = request.environ.get("HTTP_PREFER")
    if not header:
        return NO_WAIT
    for element in parse_http_list(header):
        name, _, value = element.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            return _parse_prefer_wait(value.strip())
    return NO_WAIT


def _parse_prefer_wait(value: str) -> WaitPreference:
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if not (value.isascii() and value.isdigit()):
        return NO_WAIT
    seconds = min(float(value), WAIT_MAX_S)
    return WaitPreference(seconds, is_from_prefer=seconds > 0)
