"""Caches API keys in this process, so that no request waits for MongoDB, and forgets one soon after it has changed.

A background thread asks for the keys that have changed since it last asked, so what a request costs does not depend on
how many keys there are. While MongoDB is away, cached keys stay valid for as long as they would be otherwise.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from shared.clock import boottime_s
from shared.domain.access.api_key import ApiKey
from shared.store.access.key_store import MongoKeyStore

REFRESH_EVERY_S: Final = 0.5
CACHED_MAX: Final = 20_000
_RECHECK_AFTER_S: Final = 60.0
"""After a step of the server's clock a change may be missed; it is found after this time at the latest."""
_RECHECKED_MAX: Final = 1_000
_OVERLAP: Final = timedelta(seconds=10)
"""Changes are asked for again for this long: one that was stored later may bear an earlier time."""
_USES_WRITTEN_EVERY_S: Final = 60.0


@dataclass(slots=True)
class _CachedKey:
    key: ApiKey
    read_at_s: float
    use_written_at_s: float = 0.0
    used_at_s: float | None = None


class KeyCache:
    """The keys that this process has seen."""

    def __init__(self, store: MongoKeyStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._cached: OrderedDict[str, _CachedKey] = OrderedDict()
        self._changes_seen: datetime | None = None

    def get(self, key_id: str) -> ApiKey | None:
        """Return a key; None if there is none. Raises Unavailable if it is not cached and MongoDB is away."""
        cached = self._cached.get(key_id)
        if cached is not None:
            return cached.key
        began_s = boottime_s()
        key = self._store.find(key_id)
        if key is not None:
            self.put(key, read_from_s=began_s)
        return key

    def peek(self, key_id: str) -> ApiKey | None:
        """Return a key if it is cached; it asks nobody."""
        cached = self._cached.get(key_id)
        return None if cached is None else cached.key

    def put(self, key: ApiKey, *, read_from_s: float | None = None) -> None:
        """Take over a key that this process has just changed, or one that was read by a call that began at that time.

        What was read before the key was last taken over is older, and is passed over.
        """
        now_s = boottime_s()
        with self._lock:
            cached = self._cached.get(key.id)
            if cached is None:
                self._cached[key.id] = _CachedKey(key, now_s)
                if len(self._cached) > CACHED_MAX:
                    self._cached.popitem(last=False)
            elif read_from_s is None or read_from_s >= cached.read_at_s:
                cached.read_at_s = now_s
                # One that was only used stays the same object, and what was verified with it holds.
                if replace(key, last_used_at=cached.key.last_used_at) != cached.key:
                    cached.key = key

    def record_use(self, key_id: str, now_s: float) -> None:
        """Record that a key was used at ``now_s`` (``boottime_s``); it is written later, at most once a minute."""
        cached = self._cached.get(key_id)
        if cached is not None:
            cached.used_at_s = now_s

    def refresh(self, now: datetime) -> None:
        """Take over what has changed since the last call, and write what was used; ``now`` is the store's time."""
        if not self._cached:
            self._changes_seen = None
            return
        since, began_s = (self._changes_seen or now) - _OVERLAP, boottime_s()
        for key_id, key, changed_at in self._store.changed_since(since):
            self._changes_seen = max(self._changes_seen or changed_at, changed_at)
            if key is None:
                with self._lock:
                    self._cached.pop(key_id, None)  # it may have been revoked
            elif key_id in self._cached:
                self.put(key, read_from_s=began_s)
        self._changes_seen = max(self._changes_seen or now, now - _OVERLAP)
        self._recheck()
        self._write_uses(now, began_s)

    def _recheck(self) -> None:
        """Read again what was read long ago, and forget what is no longer there, as after a restored backup."""
        now_s = boottime_s()
        with self._lock:
            old = [key_id for key_id, cached in self._cached.items() if now_s - cached.read_at_s > _RECHECK_AFTER_S]
        if not old:
            return
        found = {key.id: key for key in self._store.find_all(old[:_RECHECKED_MAX])}
        for key in found.values():
            self.put(key, read_from_s=now_s)
        with self._lock:
            for key_id in set(old[:_RECHECKED_MAX]) - found.keys():
                self._cached.pop(key_id, None)

    def _write_uses(self, now: datetime, now_s: float) -> None:
        with self._lock:
            due = [
                (key_id, cached, now + timedelta(seconds=cached.used_at_s - now_s))
                for key_id, cached in self._cached.items()
                if cached.used_at_s is not None and now_s - cached.use_written_at_s >= _USES_WRITTEN_EVERY_S
            ]
        if not due:
            return
        self._store.record_uses({key_id: used_at for key_id, _, used_at in due})
        for _, cached, _ in due:
            cached.use_written_at_s, cached.used_at_s = now_s, None
