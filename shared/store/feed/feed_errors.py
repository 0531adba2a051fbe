"""Errors of the change feed that no client sees: the API and the relay turn each into what they do about it."""

from __future__ import annotations

from shared.errors import BucketError


class ChangeHistoryLost(BucketError):
    """The store no longer has the changes since the feed's last batch; the feed starts a new epoch."""


class PositionExpired(BucketError):
    """The feed does not have the changes after this position; a client gets CursorExpired, with a way to catch up."""
