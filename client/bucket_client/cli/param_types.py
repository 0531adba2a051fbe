"""Types of parameters: durations, times, and JSON objects from a file, from stdin or from the argument itself."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)?")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_INT64: Final = 2**63


class Duration(click.ParamType[float]):
    """Seconds as a number, or a number with a unit: 90, 30s, 5m, 2h, 1d."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, float | int):
            return float(value)
        seconds = _seconds_of(str(value), unit="s")
        if seconds is None:
            self.fail(f"{value!r} is no duration: write seconds, or 30s, 5m, 2h, 1d", param, ctx)
        return seconds


class Moment(click.ParamType[datetime]):
    """A time: RFC 3339, a date, or how long ago, as in 2h or 3d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time, with a time zone."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            ago_s = _seconds_of(text.removesuffix("ago").strip(), unit=None)
            moment = datetime.fromisoformat(text) if ago_s is None else datetime.now(UTC) - timedelta(seconds=ago_s)
            return moment.astimezone() if moment.tzinfo is None else moment
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: write 2026-11-21T10:00:00+01:00, 2026-11-21, 2h or 3d", param, ctx)


class Start(click.ParamType[float | datetime]):
    """When to run: in a duration, as in 2h, or at a time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | datetime:
        """Return the seconds until then, or the time."""
        if isinstance(value, float | datetime):
            return value
        seconds = _seconds_of(str(value), unit="s")
        if seconds is not None:
            return seconds
        try:
            moment = datetime.fromisoformat(str(value))
            return moment.astimezone() if moment.tzinfo is None else moment
        except ValueError:
            self.fail(f"{value!r} is no time: write 30m, 2h, or 2026-11-21T10:00:00+01:00", param, ctx)


class JsonObject(click.ParamType[dict[str, Any]]):
    """A JSON object: the text itself, which begins with ``{``, the name of a file, or ``-`` for stdin."""

    name = "FILE|-|JSON"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Return the object."""
        if isinstance(value, dict):
            return value
        where, text = "JSON", str(value)
        try:
            if not text.lstrip().startswith("{"):
                where = "stdin" if value == "-" else str(value)
                text = read_text(where, sys.stdin.buffer.read() if value == "-" else Path(value).read_bytes())
            return parse_object(text)
        except OSError as error:
            hint = "; JSON text begins with {" if isinstance(error, FileNotFoundError) else ""
            self.fail(f"{where}: {error.strerror or error}{hint}", param, ctx)
        except ValueError as error:
            self.fail(f"{where}: {error}", param, ctx)


class NotJson(ValueError):
    """A text is no JSON object that Bucket takes; the message says why, and where if that is known."""


def read_text(where: str, content: bytes) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark. Raises NotJson."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotJson(f"{where} is not UTF-8 at byte {error.start}") from None


def parse_object(text: str) -> dict[str, Any]:
    """Return the JSON object in a text. Raises NotJson for what Bucket would refuse too: a key twice, NaN."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise NotJson(f'must be a JSON object, as in {{"a": 1}}, not {_KINDS.get(type(value), "a number")}')
    return value


def parse_json(text: str) -> Any:
    """Return the JSON value in a text. Raises NotJson."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise NotJson("is empty") from None
        raise NotJson(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise NotJson("is too deep") from None


_KINDS: Final = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}


def _seconds_of(text: str, *, unit: str | None) -> float | None:
    """Return the seconds of a duration; without a unit in the text, those of ``unit``. None if it is none."""
    found = _DURATION.fullmatch(text)
    factor = _UNIT_S.get((found[2] or unit or "") if found else "")
    return None if found is None or factor is None else float(found[1]) * factor


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NotJson(f"the key {json.dumps(twice)} is there twice")
    return members


def _integer(text: str) -> int:
    number = int(text) if len(text) < 30 else _INT64  # noqa: PLR2004 -- longer ones are slow to read
    if not -_INT64 <= number < _INT64:
        raise NotJson(f"the integer {text[:30]} has more than 64 bits")
    return number


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NotJson(f"the number {text[:30]} has more than 64 bits")
    return number


def _constant(text: str) -> Any:
    raise NotJson(f"{text} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
