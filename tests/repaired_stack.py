"""Fixtures for tests that break a stack: one stack with the test agents for each file, repaired after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api_client import AGENTS, RunClient
from tests.stack import Stack


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture
def runs(stack: Stack, tmp_path: Path) -> Iterator[RunClient]:
    yield RunClient(stack, tmp_path / "counted")
    stack.repair()
