"""Fixtures of the tests of operations: one stack a file, repaired after each test; replies are checked by contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api_client import AGENTS, RunClient
from tests.openapi_conformance import recorded_violations, responses_match_contract
from tests.stack import Stack

__all__ = [
    "recorded_violations",
    "responses_match_contract",
]  # every response of these tests is checked against the OpenAPI document


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture
def runs(stack: Stack, tmp_path: Path) -> Iterator[RunClient]:
    yield RunClient(stack, tmp_path / "counted")
    stack.repair()
