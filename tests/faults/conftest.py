"""Fixtures of the fault tests: one stack with the test agents per file, repaired after each test, and a replica set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compose.embedded.group_reaper import GroupReaper
from tests.faults.replica_set import ReplicaSet
from tests.openapi_conformance import recorded_violations, responses_match_contract
from tests.repaired_stack import runs, stack

__all__ = [
    "recorded_violations",
    "responses_match_contract",
    "runs",
    "stack",
]  # every response of these tests is checked against the OpenAPI document


@pytest.fixture(scope="session")
def replica_set(tmp_path_factory: pytest.TempPathFactory, group_reaper: GroupReaper) -> Iterator[ReplicaSet]:
    """Yield a complete replica set of three; a test that stops a member calls ``mend`` afterwards."""
    members = ReplicaSet(tmp_path_factory.mktemp("members"), group_reaper)
    try:
        members.start()
        yield members
    finally:
        members.close()
