"""``log`` and ``progress`` never raise into an agent, and never make a line that a store refuses."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from worker.context import LOG_LINE_MAX_BYTES, AgentContext
from worker.testing import FakeContext, RecordingReporter


class Broken:
    """A Reporter that always raises."""

    def line(self, *_: object) -> None:
        raise RuntimeError

    def progress(self, *_: object) -> None:
        raise RuntimeError


class RaisesInRepr:
    """A value whose text cannot be read."""

    def __repr__(self) -> str:
        raise RuntimeError


def context(reporter: Any) -> AgentContext:
    return FakeContext(reporter=reporter)


def logged(message: object, /, level: str = "info", **data: Any) -> tuple[str, str, Any]:
    reporter = RecordingReporter()
    context(reporter).log(message, level=level, **data)
    ((logged_level, text, data_json),) = reporter.lines
    assert len(orjson.dumps(text)) + len(data_json) <= LOG_LINE_MAX_BYTES
    return logged_level, text, orjson.loads(data_json)


def progressed(*calls: tuple[Any, ...]) -> list[tuple[int | None, str | None]]:
    reporter = RecordingReporter()
    ctx = context(reporter)
    for call in calls:
        ctx.progress(*call)
    return reporter.steps


def test_a_line_is_reported_unchanged() -> None:
    assert logged("page read", page=3, rows=[1, 2]) == ("info", "page read", {"page": 3, "rows": [1, 2]})


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", "debug"), ("ERROR", "error"), ("warn", "warning"), ("critical", "error"), ("x", "info")],
)
def test_a_level_is_one_of_four(level: str, expected: str) -> None:
    assert logged("m", level=level)[0] == expected


def test_data_may_be_named_like_the_arguments() -> None:
    assert logged("m", message=1, self=2)[2] == {"message": 1, "self": 2}


def test_a_message_that_is_not_a_string_is_converted() -> None:
    assert logged(ValueError("bad"))[1] == "bad"


def test_a_message_whose_str_raises_is_replaced_by_a_note() -> None:
    assert logged(RaisesInRepr())[1] == "<RaisesInRepr, whose text raises RuntimeError>"


def test_a_lone_surrogate_is_replaced() -> None:
    assert logged("a\ud800b")[1] == "a\ufffdb"


@pytest.mark.parametrize("letter", ["x", "é", "€", "\U0001f600", "\n", "\x01", '"'])
def test_a_long_message_is_cut_and_says_so(letter: str) -> None:
    text = letter * 50_000
    line = logged(text, page=1)
    assert line[1].startswith(letter * 500)
    assert line[1].endswith(f"… (cut from {len(text.encode())} bytes)")
    assert line[2] == {"cut": True, "bytes": len(orjson.dumps({"page": 1}))}


def test_long_data_is_dropped_and_the_message_kept() -> None:
    _, message, data = logged("page read", rows="x" * 5000)
    assert message == "page read"
    assert data == {"cut": True, "bytes": len(orjson.dumps({"rows": "x" * 5000}))}


def test_a_line_of_exactly_the_limit_is_whole() -> None:
    room = LOG_LINE_MAX_BYTES - len('""{}')
    assert logged("x" * room)[1:] == ("x" * room, {})
    assert logged("x" * (room + 1))[1].endswith(f"(cut from {room + 1} bytes)")


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, {1: 2}, 2**63, 2**64, -(2**64), "\ud800", {"a\0b": 1}, {"a": {"\ud800": 1}}, b"bytes"],
)
def test_a_value_that_no_store_accepts_is_reported_as_its_repr(value: Any) -> None:
    _, _, data = logged("m", bad=value, good=1)
    assert data["good"] == 1
    assert data["bad"]["not_json"] is True
    assert data["bad"]["repr"] == repr(value)[:500]


def test_a_value_that_is_nested_too_deeply_is_reported_as_its_repr() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    data = logged("m", deep=deep, endless=endless, flat=[[[]]])[2]
    assert data["deep"]["not_json"]
    assert data["endless"] == {"not_json": True, "repr": "[[...]]"}
    assert data["flat"] == [[[]]]


def test_a_value_whose_repr_raises_is_replaced_by_a_note() -> None:
    assert logged("m", bad=RaisesInRepr())[2]["bad"]["repr"] == "<RaisesInRepr, whose repr raises RuntimeError>"


def test_a_reporter_that_fails_never_fails_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    ctx = context(Broken())
    with caplog.at_level(logging.WARNING):
        ctx.log("m")
        ctx.progress(0.5)
    assert [record.message for record in caplog.records] == [
        "an agent's log line was lost",
        "an agent's progress was lost",
    ]


def test_progress_is_reported_in_whole_percent() -> None:
    assert progressed((0,), (0.29, "page 3"), (0.999,), (1.0,)) == [(0, None), (29, "page 3"), (99, None), (100, None)]


def test_progress_never_goes_back() -> None:
    assert progressed((0.5,), (0.2, "again")) == [(50, None), (50, "again")]


@pytest.mark.parametrize(("fraction", "percent"), [(-1, 0), (7, 100), (math.inf, 100), (-math.inf, 0), (True, 100)])
def test_progress_stays_between_0_and_100(fraction: float, percent: int) -> None:
    assert progressed((fraction,)) == [(percent, None)]


@pytest.mark.parametrize("fraction", [math.nan, None, "much", 10**400, object()])
def test_a_fraction_that_is_not_a_number_changes_nothing(fraction: Any) -> None:
    assert progressed((fraction, "reading"), (0.5,), (fraction,)) == [(None, "reading"), (50, None), (50, None)]


def test_a_long_progress_message_is_cut() -> None:
    ((_, message),) = progressed((0.5, "x" * 10_000))
    assert message is not None
    assert len(message) == 200


def test_cancelled_says_whether_the_agent_is_asked_to_stop() -> None:
    ctx = context(RecordingReporter())
    assert not ctx.cancelled
    ctx.cancel.set()
    assert ctx.cancelled


def test_no_part_of_a_setting_is_left_where_a_long_repr_is_cut() -> None:
    secret = "hush-hush-1234"
    reporter = RecordingReporter()
    session = SimpleNamespace(padding="x" * 465, token=secret)
    FakeContext(reporter=reporter, settings={"RATES_KEY": secret}).log("sent", session=session)
    assert b"hush" not in reporter.lines[0][2]
