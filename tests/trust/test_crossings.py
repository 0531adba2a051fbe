"""The short form of the test of crossings: two integrators, every operation, nothing of the other in any reply."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.api_client import AGENTS
from tests.stack import Stack
from tests.trust.crossings import SETTINGS, run_crossings

SEED = 7


@pytest.mark.timeout(120)
def test_two_integrators_see_and_change_nothing_of_each_other(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BUCKET_AGENTS_DIR=str(AGENTS), **SETTINGS)
    findings = run_crossings(stack, operations=3_600, seed=SEED)
    assert not findings.faults, "\n".join(findings.report())
