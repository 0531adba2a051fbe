"""Finds JSON that stands in a text, over one or many lines, and refuses what no store can keep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, NoReturn

ATTEMPTS_MAX: Final = 200
"""Each attempt may go as deep as the parser can: without a limit, 25,000 opening brackets took 17 s."""
NESTING_MAX: Final = 32
_INT_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class FoundJson:
    """JSON in a text: the line on which it ends and the rest of that line; or the reason why there is none."""

    value: Any = None
    line: int = 0
    rest: str = ""
    reason: str | None = None


class _NotJson(ValueError):
    """Something that Python would read, and JSON does not have."""


class JsonFinder:
    """Finds JSON in the lines of one text."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._text = "\n".join(lines)
        self._begins = [0, *accumulate(len(line) + 1 for line in lines)]
        self._failed = 0
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object_of)

    def find(self, at: int, start: int) -> FoundJson:
        """Read the object or list that begins in line ``at`` at character ``start``."""
        if self._failed >= ATTEMPTS_MAX:
            return FoundJson(reason=f"not tried: {ATTEMPTS_MAX} lines before it look like JSON and are none")
        try:
            value, end = self._decoder.raw_decode(self._text, self._begins[at] + start)
            _check(value, 1)
        except RecursionError:
            self._failed += 1
            return FoundJson(reason=f"JSON with more than {NESTING_MAX} levels is not read")
        except ValueError as error:
            self._failed += 1
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            return FoundJson(reason=f"looks like JSON and is none: {what[:100]}")
        line = at
        while self._begins[line + 1] <= end and line + 1 < len(self._lines):
            line += 1
        # The end may lie on the line break: then it belongs to the line before.
        if end == self._begins[line] and line > at:
            line -= 1
        return FoundJson(value, line, self._lines[line][end - self._begins[line] :])


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJson(f"{name} is no JSON")


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotJson("an object has a key twice")
    return found


def _check(value: Any, level: int) -> None:
    if level > NESTING_MAX:
        raise RecursionError
    if isinstance(value, dict):
        for key, child in value.items():
            if "\0" in key or any("\ud800" <= mark <= "\udfff" for mark in key):
                raise _NotJson("a key has a character that cannot be stored")
            _check(child, level + 1)
    elif isinstance(value, list):
        for child in value:
            _check(child, level + 1)
    elif isinstance(value, str) and any("\ud800" <= mark <= "\udfff" for mark in value):
        raise _NotJson("half of a surrogate pair is no character")
    elif isinstance(value, int) and abs(value) > _INT_MAX:
        raise _NotJson("an integer has more than 64 bits")
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise _NotJson("a number is too large")
