"""Stacks with the misbehaving test agents, shared by the test files that stop no process; others use ``make_stack``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compose.embedded.group_reaper import GroupReaper
from tests.acceptance.client import AGENTS, ApiClient
from tests.openapi_conformance import recorded_violations, responses_match_contract
from tests.stack import Stack

__all__ = [
    "recorded_violations",
    "responses_match_contract",
]  # every response of these tests is checked against the OpenAPI document


@pytest.fixture(scope="package")
def caller(tmp_path_factory: pytest.TempPathFactory, group_reaper: GroupReaper) -> Iterator[ApiClient]:
    """Yield a client of a stack that all these tests share: do not stop it or delete its data."""
    stack = Stack(tmp_path_factory.mktemp("shared-stack"), group_reaper, BUCKET_AGENTS_DIR=str(AGENTS))
    try:
        stack.start_all()
        yield ApiClient(stack)
    finally:
        stack.close()


@pytest.fixture(scope="package")
def short_lease_caller(tmp_path_factory: pytest.TempPathFactory, group_reaper: GroupReaper) -> Iterator[ApiClient]:
    """Yield a client of a shared stack with short leases: resume each process that you pause."""
    short_times = {"BUCKET_LEASE_S": "2", "BUCKET_HEARTBEAT_S": "0.5", "BUCKET_HANDOFF_S": "0.5"}
    stack = Stack(tmp_path_factory.mktemp("brisk-stack"), group_reaper, BUCKET_AGENTS_DIR=str(AGENTS), **short_times)
    try:
        stack.start_all()
        yield ApiClient(stack)
    finally:
        stack.close()
