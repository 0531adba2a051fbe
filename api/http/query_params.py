"""Reads the parameters of an address: each at most once, each of its form, or 400 with its name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, NoReturn, TypeVar

from flask import request

from shared.errors import ValidationFailed
from shared.timestamps import parse_rfc3339

_INVALID_TIMESTAMP: Final = "must be a moment with its offset, such as 2026-11-21T12:00:00Z"

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1_000
_SEQ_MAX: Final = 2**53

EnumT = TypeVar("EnumT", bound=StrEnum)


def text(name: str) -> str | None:
    """Answer a parameter as it stands, None where it is absent; raises ValidationFailed where it stands twice."""
    found = request.args.getlist(name)
    if len(found) > 1:
        _raise_invalid(name, "must be given once")
    return found[0] if found else None


def enum_values(name: str, enum_type: type[EnumT]) -> tuple[EnumT, ...]:
    """Answer a comma list of words that are ``known``, each once and in the order of ``known``."""
    told = text(name)
    if told is None:
        return ()
    chosen = {word.strip() for word in told.split(",")}
    if not chosen <= set(enum_type):
        _raise_invalid(name, f"must be one or several of {_join_words(tuple(enum_type))}, with commas between")
    return tuple(word for word in enum_type if word in chosen)


def enum_value(name: str, default: EnumT) -> EnumT:
    """Answer one word of the kind that ``default`` is."""
    told = text(name)
    known = type(default)
    if told is None:
        return default
    if told not in set(known):
        _raise_invalid(name, f"must be one of {_join_words(tuple(known))}")
    return known(told)


def timestamp(name: str) -> datetime | None:
    """Answer a moment as RFC 3339 writes it, with its offset.

    A "+" that was not percent-encoded has become a space on its way, and can have been nothing else.
    """
    told = text(name)
    if told is None:
        return None
    try:
        return parse_rfc3339(told.replace(" ", "+"))
    except ValueError:
        _raise_invalid(name, _INVALID_TIMESTAMP)


def integer(name: str, *, minimum: int, maximum: int) -> int | None:
    """Answer a query parameter that is a whole number, None where it is absent; raises ValidationFailed."""
    told = text(name)
    if told is None:
        return None
    if not (told.isascii() and told.isdigit() and len(told) < 20 and minimum <= int(told) <= maximum):  # noqa: PLR2004
        _raise_invalid(name, f"must be a whole number from {minimum} to {maximum}")
    return int(told)


def limit() -> int:
    """Answer how many rows this request asks for."""
    return integer("limit", minimum=1, maximum=LIMIT_MAX) or LIMIT_DEFAULT


def after() -> int | None:
    """Answer the ``seq`` beyond which this request asks for log lines."""
    return integer("after", minimum=0, maximum=_SEQ_MAX)


def _join_words(words: Sequence[str]) -> str:
    return ", ".join(words)


def _raise_invalid(name: str, message: str) -> NoReturn:
    raise ValidationFailed(f"{name} {message}", details=[{"parameter": name, "message": message}])
