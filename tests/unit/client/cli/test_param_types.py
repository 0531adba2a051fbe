"""Parameters of the command line: durations, times, and JSON from the argument, a file or stdin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from bucket_client.cli.param_types import Duration, JsonObject, Moment, NotJson, Start, parse_json, parse_object


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("30s", 30), ("5m", 300), ("2h", 7200), ("1 d", 86_400), ("1w", 604_800)],
)
def test_a_duration_is_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "2y", "1h30", "inf", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no duration"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize("text", ["2h", "2h ago", " 2 h "])
def test_a_moment_may_be_so_long_ago(text: str) -> None:
    before = datetime.now(UTC)
    moment = Moment().convert(text, None, None)
    assert before <= moment + timedelta(hours=2) <= datetime.now(UTC)


def test_a_moment_without_an_offset_is_in_the_time_zone_of_this_machine() -> None:
    assert Moment().convert("2026-11-21T10:00:00+01:00", None, None) == datetime(2026, 11, 21, 9, tzinfo=UTC)
    assert Moment().convert("2026-11-21T10:00:00Z", None, None) == datetime(2026, 11, 21, 10, tzinfo=UTC)
    local = datetime(2026, 11, 21).astimezone()
    assert Moment().convert("2026-11-21", None, None) == local


@pytest.mark.parametrize("text", ["", "yesterday", "90", "2026-13-01", "99999999999w"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """A number alone is none either: it could be seconds, or a Unix time."""
    with pytest.raises(click.BadParameter, match="no time"):
        Moment().convert(text, None, None)


def test_a_start_is_a_duration_from_now_or_a_time() -> None:
    assert Start().convert("2h", None, None) == 7200.0
    assert Start().convert("2026-11-21T10:00:00Z", None, None) == datetime(2026, 11, 21, 10, tzinfo=UTC)
    with pytest.raises(click.BadParameter):
        Start().convert("soon", None, None)


def test_json_is_the_argument_or_a_file_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    assert JsonObject().convert(' {"a": "ä"}', None, None) == {"a": "ä"}
    for prefix in (b"", b"\xef\xbb\xbf"):
        path = tmp_path / "input.json"
        path.write_bytes(prefix + '{"a": "ä"}'.encode())
        assert JsonObject().convert(str(path), None, None) == {"a": "ä"}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b"", "is empty"),
        (b"[1]", "must be a JSON object"),
        (b'{"a": 1, "a": 2}', 'the key "a" is there twice'),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1e999}', "more than 64 bits"),
        (b'{"a": 9223372036854775808}', "more than 64 bits"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
    ],
)
def test_a_wrong_file_is_refused_with_what_and_where(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "input.json"
    path.write_bytes(content)
    with pytest.raises(click.BadParameter, match=r"input\.json") as caught:
        JsonObject().convert(str(path), None, None)
    assert fault in caught.value.message


def test_a_file_that_is_not_there_may_have_been_meant_as_json() -> None:
    with pytest.raises(click.BadParameter, match=r"nope: No such file.*JSON text begins with {"):
        JsonObject().convert("nope", None, None)


def test_json_that_is_too_deep_is_refused_and_no_crash() -> None:
    with pytest.raises(NotJson, match="too deep"):
        parse_json("[" * 100_000)


@pytest.mark.parametrize("value", [[1], "text", True, None, 1.5])
def test_only_an_object_is_an_input(value: Any) -> None:
    import json  # here, because only this test writes JSON

    with pytest.raises(NotJson, match="must be a JSON object"):
        parse_object(json.dumps(value))
