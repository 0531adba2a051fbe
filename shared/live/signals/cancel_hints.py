"""Cancel hints in Redis (cancellation signal): announce a cancel to workers sooner than the heartbeat; may be lost."""

from __future__ import annotations

from typing import Final

import redis

CANCEL_HINT_TTL_S: Final = 60


def set_cancel_hint(client: redis.Redis, execution_id: str) -> None:
    """Set the cancel hint of a run, for its workers; raises RedisError."""
    client.set(_key(execution_id), b"1", ex=CANCEL_HINT_TTL_S)


def has_cancel_hint(client: redis.Redis, execution_id: str) -> bool:
    """Return whether a run has a cancel hint; raises RedisError."""
    return bool(client.exists(_key(execution_id)))


def _key(execution_id: str) -> str:
    return f"cancel:{execution_id}"
