"""The short form of ``make fuzz``: every response to random requests follows the OpenAPI document."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.run_cases import run_cases

SEED = 4


@pytest.mark.timeout(300)
def test_responses_to_random_requests_follow_the_contract(tmp_path: Path) -> None:
    played = run_cases(tmp_path, cases=1_000, seed=SEED, examples=8)
    assert not played.failures, "\n".join(played.failures)
    assert played.cases >= 1_000
