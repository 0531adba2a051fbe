"""The short form of ``make fuzz``: whatever is sent, the answer is as the contract says, and nothing breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.run_cases import play

SEED = 4


@pytest.mark.timeout(300)
def test_whatever_is_sent_the_answer_is_as_the_contract_says(tmp_path: Path) -> None:
    played = play(tmp_path, cases=1_000, seed=SEED, examples=8)
    assert not played.failures, "\n".join(played.failures)
    assert played.cases >= 1_000
