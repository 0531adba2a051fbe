"""Says how long a request is willing to wait: by ``?wait=``, ``?until=`` and the header ``Prefer`` (RFC 7240)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.request import parse_http_list

import flask
from flask import request

from api.http import query_params
from api.http.long_poll import WAIT_MAX_S
from shared.errors import ValidationFailed

DONE: Final = "done"
_SECONDS: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?", re.ASCII)
_WHOLE: Final = re.compile(r"[0-9]+", re.ASCII)
_DIGITS_READ: Final = 3  # more of them are more than the most, however many


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a caller waits, at most 30 s; ``until_done`` where no change but the end is news to it."""

    wait_s: float = 0.0
    until_done: bool = False
    is_preference: bool = False

    def note(self, response: flask.Response, *, granted: bool) -> flask.Response:
        """Answer ``response``, which says so where a ``Prefer`` was granted."""
        if granted and self.is_preference:
            response.headers["Preference-Applied"] = f"wait={self.wait_s:g}"
        return response


NONE: Final = Patience()


def patience_asked() -> Patience:
    """Answer how long this request waits; the query wins over ``Prefer``. Raises ValidationFailed."""
    if not request.environ.get("QUERY_STRING"):
        return patience_preferred()
    until_done = _is_until_done(query_params.text("until"))
    told = query_params.text("wait")
    if told is None:
        preferred = patience_preferred()
        return Patience(preferred.wait_s, until_done, preferred.is_preference)
    if not _SECONDS.fullmatch(told):
        raise _fault("wait", "must be seconds, such as 10; more than 30 count as 30")
    return Patience(min(float(told), WAIT_MAX_S), until_done)


def patience_preferred() -> Patience:
    """Answer how long this request waits by its ``Prefer`` alone; of two the first counts, a malformed one does not."""
    header = request.environ.get("HTTP_PREFER")
    if not header:
        return NONE
    for element in parse_http_list(header):
        name, _, value = element.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            return _preferred(value.strip())
    return NONE


def _preferred(value: str) -> Patience:
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if not _WHOLE.fullmatch(value):
        return NONE
    digits = value.lstrip("0")
    seconds = WAIT_MAX_S if len(digits) > _DIGITS_READ else min(float(digits or 0), WAIT_MAX_S)
    return Patience(seconds, is_preference=seconds > 0)


def _is_until_done(told: str | None) -> bool:
    if told not in {None, DONE}:
        raise _fault("until", f"must be {DONE}; leave it out to be told of any change")
    return told == DONE


def _fault(name: str, message: str) -> ValidationFailed:
    return ValidationFailed(f"{name} {message}", details=[{"parameter": name, "message": message}])
