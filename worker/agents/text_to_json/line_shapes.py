"""What one line of a text is: a list item, a key with its value, or neither; and what a value is."""

from __future__ import annotations

import re
from typing import Any, Final

KEY_WORDS_MAX: Final = 5
# A number that JSON writes the same way: no leading zeros (they are codes), no plus, and exact as a double.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,12})?", re.ASCII)
_DOUBLE_DIGITS: Final = 15
_LITERALS: Final = {"true": True, "false": False, "null": None}
_BULLET: Final = re.compile(r"\s*(?:[-*•]|[0-9]{1,4}[.)])\s+(\S.*)", re.DOTALL)
_PAIR: Final = re.compile(r"\s*([^\W\d_][^:={}\[\]\x22]{0,59}?)\s*(?::(?=\s|$)|=(?!=))\s*(.*)", re.DOTALL)
_SENTENCE: Final = re.compile(r"[.!?;,]\s")


def bullet_of(line: str) -> str | None:
    """Return the text of a list item (``- x``, ``* x``, ``• x``, ``1. x``, ``1) x``), None if the line is none."""
    found = _BULLET.fullmatch(line)
    return found[1].rstrip() if found else None


def key_value_of(line: str) -> tuple[str, str] | None:
    """Return key and value of ``Key: value`` or ``key = value``; None for a sentence that only has a colon in it.

    A key begins with a letter, has at most five words and sixty characters, and no end of a sentence, quote
    or bracket of JSON in it.
    """
    found = _PAIR.fullmatch(line)
    if found is None or len(found[1].split()) > KEY_WORDS_MAX or _SENTENCE.search(found[1]):
        return None
    return found[1], found[2].rstrip()


def value_of(text: str) -> Any:
    """Return a number, true, false or null if ``text`` is exactly that in JSON, a quoted text without its quotes."""
    if text in _LITERALS:
        return _LITERALS[text]
    if _NUMBER.fullmatch(text) and sum(map(str.isdigit, text)) <= _DOUBLE_DIGITS:
        return float(text) if "." in text else int(text)
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]:
        return text[1:-1]
    return text
