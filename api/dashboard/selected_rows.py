"""What a form of the dashboard has sent: the rows that were selected in a list, and the key of the form itself."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from flask import request

from api.dashboard import internal_api
from api.dashboard.internal_api import ApiRefused
from shared.domain.access.caller import Caller

_CHANGED: Final = frozenset({HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
"""What the API says of a row that has become something else since it was selected."""


def post_each(caller: Caller, paths: Iterable[str], word: str) -> str:
    """Send a POST to each path, one after the other; return how many were ``word``, and how many had changed.

    Any other refusal ends it, and is said too; raises ApiRefused if nothing was done before it. What is sent again
    within the same minute, by a second click or another person, is done once.
    """
    done = skipped = 0
    key, stopped = idempotency_key(), ""
    for path in paths:
        try:
            internal_api.send(caller, "POST", path, body={}, HTTP_IDEMPOTENCY_KEY=f"dashboard-{key}{path}"[:255])
            done += 1
        except ApiRefused as refused:
            if refused.status in _CHANGED:
                skipped += 1
            elif done == 0:
                raise
            else:
                stopped = f"; the others were not: {refused}"
                break
    return f"{done} {word}" + (f", {skipped} skipped" if skipped else "") + stopped


def key_of_this_minute() -> str:
    """Return the form key of a list: with a new one at each refresh no list would ever be unchanged (304)."""
    return f"minute-{int(time.time()) // 60}"


def idempotency_key() -> str:
    """Return the key that the page has put into its form: a form that is sent twice makes one run."""
    return request.form.get("form_key") or secrets.token_hex(8)
