"""Reads the parameters of an address: each at most once, each of its form, or 400 with its name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, NoReturn, TypeVar

from flask import request

from shared.errors import ValidationFailed
from shared.timestamps import parse_rfc3339

_NO_MOMENT: Final = "must be a moment with its offset, such as 2026-11-21T12:00:00Z"

LIMIT: Final = 100
LIMIT_MAX: Final = 1_000
_SEQ_MAX: Final = 2**53

Word = TypeVar("Word", bound=StrEnum)


def text(name: str) -> str | None:
    """Answer a parameter as it stands, None where it is absent; raises ValidationFailed where it stands twice."""
    found = request.args.getlist(name)
    if len(found) > 1:
        _refuse(name, "must be given once")
    return found[0] if found else None


def words(name: str, known: type[Word]) -> tuple[Word, ...]:
    """Answer a comma list of words that are ``known``, each once and in the order of ``known``."""
    told = text(name)
    if told is None:
        return ()
    chosen = {word.strip() for word in told.split(",")}
    if not chosen <= set(known):
        _refuse(name, f"must be one or several of {_listed(tuple(known))}, with commas between")
    return tuple(word for word in known if word in chosen)


def word(name: str, default: Word) -> Word:
    """Answer one word of the kind that ``default`` is."""
    told = text(name)
    known = type(default)
    if told is None:
        return default
    if told not in set(known):
        _refuse(name, f"must be one of {_listed(tuple(known))}")
    return known(told)


def moment(name: str) -> datetime | None:
    """Answer a moment as RFC 3339 writes it, with its offset.

    A "+" that was not percent-encoded has become a space on its way, and can have been nothing else.
    """
    told = text(name)
    if told is None:
        return None
    try:
        return parse_rfc3339(told.replace(" ", "+"))
    except ValueError:
        _refuse(name, _NO_MOMENT)


def whole_number(name: str, *, least: int, most: int) -> int | None:
    """Answer a query parameter that is a whole number, None where it is absent; raises ValidationFailed."""
    told = text(name)
    if told is None:
        return None
    if not (told.isascii() and told.isdigit() and len(told) < 20 and least <= int(told) <= most):  # noqa: PLR2004
        _refuse(name, f"must be a whole number from {least} to {most}")
    return int(told)


def limit() -> int:
    """Answer how many rows this request asks for."""
    return whole_number("limit", least=1, most=LIMIT_MAX) or LIMIT


def after() -> int | None:
    """Answer the ``seq`` beyond which this request asks for log lines."""
    return whole_number("after", least=0, most=_SEQ_MAX)


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)


def _refuse(name: str, message: str) -> NoReturn:
    raise ValidationFailed(f"{name} {message}", details=[{"parameter": name, "message": message}])
