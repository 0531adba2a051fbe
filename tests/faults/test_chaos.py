"""The short form of ``make chaos``: scenario 42 for a minute, and shorter runs on a store whose writes fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.chaos.__main__ import play
from tests.faults.chaos.killer import print_now

SEED = 4


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("runs", "seconds", "store"), [(120, 40.0, None), (40, 12.0, "before"), (40, 12.0, "after")])
def test_42_chaos_loses_doubles_and_changes_nothing(
    tmp_path: Path, runs: int, seconds: float, store: str | None
) -> None:
    figures = play(tmp_path, runs=runs, seconds=seconds, seed=SEED, store=store)
    print_now(figures.summary())
    assert not figures.faults
    assert figures.final == runs
