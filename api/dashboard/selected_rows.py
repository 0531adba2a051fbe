"""What a form of the dashboard has sent: the rows that were selected in a list, and the key of the form itself."""

from __future__ import annotations

import secrets
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

    Raises ApiRefused for any other refusal.
    """
    done = skipped = 0
    for path in paths:
        try:
            internal_api.send(caller, "POST", path, body={})
            done += 1
        except ApiRefused as refused:
            if refused.status not in _CHANGED:
                raise
            skipped += 1
    return f"{done} {word}" + (f", {skipped} skipped" if skipped else "")


def idempotency_key() -> str:
    """Return the key that the page has put into its form: a form that is sent twice makes one run."""
    return request.form.get("form_key") or secrets.token_hex(8)
