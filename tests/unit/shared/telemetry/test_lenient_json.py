"""Lenient JSON: any value can be written, but not always exactly."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry.lenient_json import encode_lenient


class Hostile:
    """Raises an error when it is converted to text."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def circle() -> list[Any]:
    ring: list[Any] = [1]
    ring.extend((ring, ring))
    return ring


def deep() -> list[Any]:
    nest: list[Any] = []
    for _ in range(5000):
        nest = [nest]
    return nest


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ([float("nan"), float("inf"), 1.5], [None, None, 1.5]),
        ([2**70, float("inf")], [2**70, None]),
        ([10**6000], [None]),
        ({"a": "\ud800é"}, {"a": "?é"}),
        ({1: 2, None: 3}, {"1": 2, "null": 3}),
        ({"d": Decimal("1.50"), "s": {1}, "b": b"x"}, {"d": "1.50", "s": [1], "b": "x"}),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        ([2**70, date(2026, 1, 2), Decimal("1.50"), b"\xff"], [2**70, "2026-01-02", "1.50", "\ufffd"]),
        ([Hostile()], ["<Hostile>"]),
        (circle(), [1, None, None]),
    ],
)
def test_a_value_that_json_cannot_express_is_written_as_closely_as_possible(value: Any, written: Any) -> None:
    assert json.loads(encode_lenient(value)) == written


def test_depth_beyond_reason_ends_in_null() -> None:
    assert b"null" in encode_lenient(deep())


ANY = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes() | st.decimals(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner),
)


@given(ANY)
def test_nothing_raises_and_all_is_json(value: Any) -> None:
    json.loads(encode_lenient(value))
