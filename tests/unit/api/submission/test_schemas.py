"""The schemas of submits: a start is a moment of these ten years, or past."""

from __future__ import annotations

from datetime import UTC, datetime

import marshmallow
import pytest

from api.submission.schemas import RunBasketSchema


@pytest.mark.parametrize("run_after", ["1970-01-01T00:00:00Z", "2010-01-01T00:00:00.1234567+02:00"])
def test_a_start_may_lie_any_time_in_the_past(run_after: str) -> None:
    assert RunBasketSchema().load({"basket_name": "b", "run_after": run_after})["run_after"] < datetime.now(UTC)


@pytest.mark.parametrize("run_after", ["2999-01-01T00:00:00Z", "2026-11-21", 5, ""])
def test_a_start_is_a_moment_of_these_ten_years(run_after: object) -> None:
    with pytest.raises(marshmallow.ValidationError, match="at most ten years ahead"):
        RunBasketSchema().load({"basket_name": "b", "run_after": run_after})
