"""Agent memory on a real MongoDB: the latest output per key, kept for an hour."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.store.agent_memory_store import MemoryKey, MongoAgentMemory
from shared.store.database import Database
from tests.builders import NOON, SECOND, ManualClock

HERE = MemoryKey("public", "basket", "daily", "memo")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def memory(database: Database, clock: ManualClock) -> MongoAgentMemory:
    return MongoAgentMemory(database, clock)


def test_the_latest_output_is_kept_even_if_an_older_one_is_written_later(memory: MongoAgentMemory) -> None:
    assert memory.recall(HERE) is None
    for seconds, output in ((1, b'{"n":1}'), (3, b'{"n":3}'), (2, b'{"n":2}')):
        memory.remember(HERE, output, NOON + seconds * SECOND)
    assert memory.recall(HERE) == b'{"n":3}'


@pytest.mark.parametrize("change", [{"integrator": "x"}, {"kind": "agent"}, {"basket": "x"}, {"agent": "x"}], ids=str)
def test_another_key_is_another_memory(memory: MongoAgentMemory, change: dict[str, str]) -> None:
    memory.remember(HERE, b"{}", NOON)
    assert memory.recall(replace(HERE, **change)) is None


def test_after_an_hour_it_expires(memory: MongoAgentMemory, clock: ManualClock, database: Database) -> None:
    memory.remember(HERE, b"{}", NOON)
    clock.advance(3599)
    assert memory.recall(HERE) == b"{}"
    clock.advance(1)
    assert memory.recall(HERE) is None
    index = database.collection("agent_memory").index_information()["expiry"]
    assert (index["key"], index["expireAfterSeconds"]) == ([("expires_at", 1)], 0)
