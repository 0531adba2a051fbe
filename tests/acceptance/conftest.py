"""Stacks with the agents that misbehave, shared by the files that stop nothing; others ask for ``make_stack``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compose.embedded.group_reaper import GroupReaper
from tests.acceptance.client import AGENTS, Caller
from tests.openapi_conformance import answers_watched, as_the_contract_says
from tests.stack import Stack

__all__ = ["answers_watched", "as_the_contract_says"]  # every answer of these tests is held against the contract


@pytest.fixture(scope="package")
def caller(tmp_path_factory: pytest.TempPathFactory, guard: GroupReaper) -> Iterator[Caller]:
    """Answer an integrator of a stack that all these tests share: leave it running, and its data alone."""
    stack = Stack(tmp_path_factory.mktemp("shared-stack"), guard, BUCKET_AGENTS_DIR=str(AGENTS))
    try:
        stack.start_all()
        yield Caller(stack)
    finally:
        stack.close()


@pytest.fixture(scope="package")
def brisk(tmp_path_factory: pytest.TempPathFactory, guard: GroupReaper) -> Iterator[Caller]:
    """Answer an integrator of a shared stack where a lost lease is soon over: resume what you pause."""
    short = {"BUCKET_LEASE_S": "2", "BUCKET_HEARTBEAT_S": "0.5", "BUCKET_HANDOFF_S": "0.5"}
    stack = Stack(tmp_path_factory.mktemp("brisk-stack"), guard, BUCKET_AGENTS_DIR=str(AGENTS), **short)
    try:
        stack.start_all()
        yield Caller(stack)
    finally:
        stack.close()
