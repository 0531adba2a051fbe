"""Searches everything that a run has written for secrets: files, MongoDB's documents, Redis' values, and replies."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pymongo
import redis
from bson.raw_bson import RawBSONDocument

_PART: Final = 16
"""Characters of a secret that count as the secret itself: texts are cut in messages."""


@dataclass(slots=True)
class SecretScan:
    """The secrets of a run, and where one of them was found."""

    found: list[str] = field(default_factory=list)
    scanned: dict[str, int] = field(default_factory=dict)
    """The bytes of each place that was searched."""
    _needles: dict[bytes, str] = field(default_factory=dict)

    def add(self, name: str, secret: str) -> None:
        """Add a secret: its beginning, its end, and both in base64, wherever in a longer text it begins."""
        assert re.fullmatch(r"[\w+/.-]+=*", secret, re.ASCII), "the search knows no secret with other characters"
        for part in {secret[:_PART], secret.rstrip("=")[-_PART:]}:
            self._needles[part.encode()] = name
            for offset in range(3):
                text = base64.b64encode(b"\0" * offset + part.encode()).rstrip(b"=")
                # The first characters also depend on what stands before, the last one on what follows.
                self._needles[text[(8 * offset + 5) // 6 : -1]] = f"{name} in base64"

    def add_key(self, name: str, key: str) -> None:
        """Add an API key: its id is no secret, what follows is one."""
        self.add(name, key.split("_", 2)[2])

    def add_token(self, name: str, token: str) -> None:
        """Add a token (JWT): the whole, and its claims and its signature alone."""
        self.add(name, token)
        _, claims, signature = token.split(".")
        self.add(f"the claims of {name}", claims)
        self.add(f"the signature of {name}", signature)

    def search(self, place: str, content: bytes) -> None:
        """Search ``content``, which was found in ``place``."""
        kind = place.partition(" ")[0]
        self.scanned[kind] = self.scanned.get(kind, 0) + len(content)
        shortest = min(map(len, self._needles))
        # Most of what servers store is no text of this kind: without it the search takes a tenth of the time.
        words = b" ".join(re.findall(rb"[\w+/.-]{%d,}" % shortest, content))
        for needle, name in self._needles.items():
            if needle in words:
                at = content.find(needle)
                self.found.append(f"{name} in {place}: {content[max(0, at - 60) : at + 60]!r}")

    def search_files(self, root: Path) -> None:
        """Search all files below ``root``."""
        for path in sorted(root.rglob("*")):
            if path.is_file():
                self.search(f"file {path.relative_to(root)}", path.read_bytes())

    def search_mongo(self, url: str) -> None:
        """Search all documents of all databases, as they are stored."""
        with pymongo.MongoClient[RawBSONDocument](url, document_class=RawBSONDocument) as client:
            for database in client.list_database_names():
                for collection in client[database].list_collection_names():
                    for document in client[database][collection].find():
                        self.search(f"mongodb {database}.{collection}", bytes(document.raw))

    def search_redis(self, url: str) -> None:
        """Search all keys and values."""
        client = redis.Redis.from_url(url)
        for key in client.scan_iter():
            self.search("redis key", key)
            self.search(f"redis {key!r}", b"\0".join(_flat(_read(client, key))))
        client.close()


def _read(client: Any, key: bytes) -> Any:
    readers: Mapping[bytes, Any] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"list": lambda name: client.lrange(name, 0, -1),
        b"zset": lambda name: client.zrange(name, 0, -1),
        b"stream": client.xrange,
        b"none": lambda _: b"",  # it has just expired
    }
    return readers[client.type(key)](key)


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, Mapping):
        yield from _flat([*value.keys(), *value.values()])
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for each in value:
            yield from _flat(each)
