"""The last good answers of providers, kept in Redis for reads that ask for them when their provider gives none."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import orjson
import redis

ANSWER_MAX_BYTES: Final = 256 * 1024
ANSWER_TTL_S: Final = 24 * 3_600
_PREFIX: Final = "answer:"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer; ``age_s`` is how long ago it was kept."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    age_s: float = 0.0


def answer_key(parts: Iterable[object]) -> str:
    """Return the key of what ``parts`` asks for: who asks, with which credentials, and the whole request."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = repr(part).encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)  # so that two lists never read as one text
    return _PREFIX + digest.hexdigest()


def keep_answer(client: redis.Redis, key: str, answer: Answer) -> None:
    """Keep an answer for a day, if its body has at most 256 KiB; raises RedisError."""
    if len(answer.body) > ANSWER_MAX_BYTES:
        return
    head = orjson.dumps([_FORMAT, time.time(), answer.status, answer.headers])
    client.set(key, len(head).to_bytes(4, "big") + head + answer.body, ex=ANSWER_TTL_S)


def read_answer(client: redis.Redis, key: str) -> Answer | None:
    """Return the answer that was kept, if there is one; raises RedisError."""
    stored: bytes | None = client.get(key)  # type: ignore[assignment]
    if stored is None:
        return None
    end = 4 + int.from_bytes(stored[:4], "big")
    try:
        version, kept_at, status, headers = orjson.loads(stored[4:end])
    except ValueError:
        return None
    if version != _FORMAT:
        return None  # of an older or newer release
    pairs = tuple((str(name), str(value)) for name, value in headers)
    return Answer(int(status), pairs, stored[end:], max(time.time() - kept_at, 0.0))
