"""The cache of keys on a real MongoDB: what one process changes, another learns without asking for each request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from api.auth import key_cache
from api.auth.key_cache import KeyCache
from shared.clock import boottime_s
from shared.domain.access.api_key import ApiKey, KeyRequest, issue_key
from shared.domain.access.caller import Role
from shared.errors import KeyNotFound, Unavailable
from shared.store.access.key_store import MongoKeyStore
from shared.store.database import Database


@pytest.fixture
def database(mongodb_url: str) -> Iterator[Database]:
    with closing(Database(mongodb_url, "api", 2.0)) as database:
        yield database


@pytest.fixture
def store(database: Database) -> MongoKeyStore:
    return MongoKeyStore(database)


def add_key(store: MongoKeyStore) -> ApiKey:
    _, key = issue_key(KeyRequest(Role.READER, "acme"), datetime.now(UTC), "test", b"")
    store.add(key)
    return key


def test_a_key_that_another_process_revokes_is_known_to_be_revoked_after_a_refresh(store: MongoKeyStore) -> None:
    key, ours, theirs = add_key(store), KeyCache(store), KeyCache(store)
    now = datetime.now(UTC)
    for cache in (ours, theirs):
        assert (found := cache.get(key.id)) is not None
        assert found.revoked_at is None
        cache.refresh(now)
    theirs.put(store.revoke(key.id, now))
    assert (told := theirs.get(key.id)) is not None
    assert told.revoked_at is not None, "at once in the process that was told"
    ours.refresh(datetime.now(UTC))
    assert (learnt := ours.get(key.id)) is not None
    assert learnt.revoked_at is not None


def test_a_change_that_was_stored_under_an_earlier_time_is_learnt_too(store: MongoKeyStore) -> None:
    """Two servers' clocks differ, and a write may become visible after a later one."""
    early, late, cache = add_key(store), add_key(store), KeyCache(store)
    for key in (early, late):
        cache.get(key.id)
    ahead = datetime.now(UTC) + timedelta(seconds=4)
    cache.refresh(ahead)
    store.revoke(early.id, ahead)
    cache.refresh(ahead)
    assert (found := cache.get(early.id)) is not None
    assert found.revoked_at is not None


def test_an_admins_key_that_cannot_be_read_is_not_valid(store: MongoKeyStore, database: Database) -> None:
    """Else ``bucketd up --auth`` would make no admin's key although nobody has one that works."""
    now = datetime.now(UTC)
    keys = [issue_key(KeyRequest(Role.ADMIN, "acme"), now, "test", b"")[1] for _ in range(2)]
    for key in keys:
        store.add(key)
    for key, is_left in zip(keys, (True, False), strict=True):
        assert store.has_valid_admin(now)
        database.collection("keys").update_one({"_id": key.id}, {"$set": {"baskets": "boring"}})
        assert store.has_valid_admin(now) is is_left


def test_what_was_read_before_a_change_never_replaces_it_in_a_cache(store: MongoKeyStore) -> None:
    key, cache = add_key(store), KeyCache(store)
    began_s = boottime_s()
    cache.put(store.revoke(key.id, datetime.now(UTC)))
    cache.put(key, read_from_s=began_s)  # read before, arrived after
    assert (found := cache.get(key.id)) is not None
    assert found.revoked_at is not None


def test_a_key_that_was_only_used_stays_the_same_object(store: MongoKeyStore) -> None:
    """What was verified with it, its hash among it, is known by the object."""
    key, cache = add_key(store), KeyCache(store)
    first = cache.get(key.id)
    store.record_uses({key.id: datetime.now(UTC)})
    cache.put(store.get(key.id), read_from_s=boottime_s())
    assert cache.get(key.id) is first
    cache.put(store.revoke(key.id, datetime.now(UTC)), read_from_s=boottime_s())
    assert cache.get(key.id) is not first


def test_a_change_that_no_refresh_saw_is_found_by_the_recheck(
    store: MongoKeyStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, cache = add_key(store), KeyCache(store)
    cache.get(key.id)
    changes = {"$set": {"revoked_at": datetime.now(UTC), "changed_at": datetime(2020, 1, 1, tzinfo=UTC)}}
    database.collection("keys").update_one({"_id": key.id}, changes)
    cache.refresh(datetime.now(UTC))
    assert (found := cache.get(key.id)) is not None
    assert found.revoked_at is None
    monkeypatch.setattr(key_cache, "_RECHECK_AFTER_S", -1.0)
    cache.refresh(datetime.now(UTC))
    assert (found := cache.get(key.id)) is not None
    assert found.revoked_at is not None


def test_cached_keys_go_on_while_mongodb_is_away_and_others_are_unavailable(
    store: MongoKeyStore, database: Database
) -> None:
    known, unknown, cache = add_key(store), add_key(store), KeyCache(store)
    cache.get(known.id)
    database.is_away = True
    assert cache.get(known.id) is not None
    with pytest.raises(Unavailable):
        cache.get(unknown.id)


def test_a_use_is_written_once_a_minute(store: MongoKeyStore) -> None:
    key, cache = add_key(store), KeyCache(store)
    cache.get(key.id)
    now = datetime.now(UTC).replace(microsecond=0)
    for seconds_ago in (3, 2, 1):
        cache.record_use(key.id, boottime_s() - seconds_ago)
        cache.refresh(now)
    used_at = store.get(key.id).last_used_at
    assert used_at is not None
    assert 2.5 < (now - used_at).total_seconds() < 3.1, "the first use; the others would be written a minute later"


def test_a_cache_does_not_grow_without_limit(store: MongoKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cache, "CACHED_MAX", 2)
    keys, cache = [add_key(store) for _ in range(4)], KeyCache(store)
    for key in keys:
        assert cache.get(key.id) is not None
    assert len(cache._cached) == 2


def test_a_key_that_cannot_be_read_hides_no_revocation_of_others(store: MongoKeyStore, database: Database) -> None:
    """Another version of Bucket, which shares the database during an upgrade, may know roles that this one does not."""
    key, other, cache = add_key(store), add_key(store), KeyCache(store)
    cache.get(key.id)
    database.collection("keys").update_one(
        {"_id": other.id}, {"$set": {"role": "of another version"}, "$currentDate": {"changed_at": True}}
    )
    store.revoke(key.id, datetime.now(UTC))
    cache.refresh(datetime.now(UTC))
    assert (found := cache.get(key.id)) is not None
    assert found.revoked_at is not None


@pytest.mark.parametrize("lost", ["deleted", "unreadable"])
def test_a_key_that_is_no_longer_there_is_forgotten_by_the_recheck(
    store: MongoKeyStore, database: Database, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """As after a backup was restored that is older than the key."""
    key, cache = add_key(store), KeyCache(store)
    cache.get(key.id)
    if lost == "deleted":
        database.collection("keys").delete_one({"_id": key.id})
    else:
        database.collection("keys").update_one({"_id": key.id}, {"$set": {"role": "of another version"}})
    monkeypatch.setattr(key_cache, "_RECHECK_AFTER_S", -1.0)
    cache.refresh(datetime.now(UTC))
    assert cache.peek(key.id) is None


def test_a_revocation_is_for_good_and_keeps_its_time(store: MongoKeyStore) -> None:
    key, now = add_key(store), datetime.now(UTC).replace(microsecond=0)
    assert store.revoke(key.id, now).revoked_at == now
    assert store.revoke(key.id, now + timedelta(hours=1)).revoked_at == now
    with pytest.raises(KeyNotFound):
        store.revoke("unknown", now)
