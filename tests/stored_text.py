"""Searches everything that a stack has stored for a text: each document of MongoDB, and each value of Redis."""

from __future__ import annotations

from contextlib import closing

import redis

from tests.stack import Stack


def places_with(stack: Stack, text: str) -> set[str]:
    """Return the names of the collections and the keys of Redis that contain ``text``."""
    with closing(redis.Redis.from_url(stack.redis_url)) as client:
        keys = {key.decode() for key in client.scan_iter() if text in _value(client, key)}
    return collections_with(stack, text) | keys


def collections_with(stack: Stack, text: str) -> set[str]:
    """Return the names of the collections of MongoDB that contain ``text``."""
    database = stack.mongo()
    names = database.list_collection_names()
    return {name for name in names if any(text in repr(document) for document in database[name].find())}


def _value(client: redis.Redis, key: bytes) -> str:
    readers = {
        b"string": lambda: client.get(key),
        b"stream": lambda: client.xrange(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"hash": lambda: client.hgetall(key),
        b"set": lambda: client.smembers(key),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"none": str,
    }
    return repr(readers[client.type(key)]())  # type: ignore[index, no-untyped-call]
