"""Hints in Redis that a run was asked to stop: they bring a cancel sooner than the next heartbeat, and may be lost."""

from __future__ import annotations

from typing import Final

import redis

CANCEL_HINT_TTL_S: Final = 60


def set_cancel_hint(client: redis.Redis, execution_id: str) -> None:
    """Leave word for the workers of a run; raises RedisError."""
    client.set(_key(execution_id), b"1", ex=CANCEL_HINT_TTL_S)


def has_cancel_hint(client: redis.Redis, execution_id: str) -> bool:
    """True where word was left that a run is to stop; raises RedisError."""
    return bool(client.exists(_key(execution_id)))


def _key(execution_id: str) -> str:
    return f"cancel:{execution_id}"
