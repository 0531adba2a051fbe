"""One stack with the test agents for each file of faults, mended after each test; and three mongod where asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compose.embedded.group_reaper import GroupReaper
from tests.api_client import AGENTS, Runs
from tests.faults.replica_set import ReplicaSet
from tests.openapi_conformance import answers_watched, as_the_contract_says
from tests.stack import Stack

__all__ = ["answers_watched", "as_the_contract_says"]  # every answer of these tests is held against the contract


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture
def runs(stack: Stack, tmp_path: Path) -> Iterator[Runs]:
    yield Runs(stack, tmp_path / "counted")
    stack.mend()


@pytest.fixture(scope="session")
def replica_set(tmp_path_factory: pytest.TempPathFactory, guard: GroupReaper) -> Iterator[ReplicaSet]:
    """Answer a replica set of three, whole; one that stops a member calls ``mend`` after it."""
    made = ReplicaSet(tmp_path_factory.mktemp("members"), guard)
    try:
        made.start()
        yield made
    finally:
        made.close()
