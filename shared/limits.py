"""Rate limits and quotas as settings: their values, and what is wrong with a text that should be some."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from shared.ids import INTEGRATOR_PATTERN
from shared.suggestions import LOOSE_SIMILARITY_MIN, closest_matches

EVERY_INTEGRATOR: Final = "*"
_RATE_MAX: Final = 1_000_000
_QUOTA_MAX: Final = 10**18  # MongoDB takes no number beyond 64 bits


class LimitClass(StrEnum):
    """The classes of routes; each key has one bucket for each class."""

    SUBMIT = "submit"
    POLL = "poll"
    LIST = "list"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A token bucket: requests a second on average, and how many may come at once."""

    per_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class Quota:
    """What an integrator may have; None is no limit.

    ``queued`` are runs that wait, ``running`` all runs that are not done, ``runs_per_day`` runs accepted since midnight
    (UTC), and ``stored_bytes`` an estimate of what its runs take in MongoDB.
    """

    queued: int | None = None
    running: int | None = None
    runs_per_day: int | None = None
    stored_bytes: int | None = None


RateLimits = Mapping[LimitClass, RateLimit]
Quotas = Mapping[str, Quota]

DEFAULT_RATE_LIMITS: Final[RateLimits] = MappingProxyType(
    {
        LimitClass.SUBMIT: RateLimit(per_s=1_000, burst=5_000),
        LimitClass.POLL: RateLimit(per_s=5_000, burst=20_000),
        LimitClass.LIST: RateLimit(per_s=1_000, burst=5_000),
        LimitClass.ADMIN: RateLimit(per_s=200, burst=1_000),
    }
)
"""A loop that runs away in many threads meets these, and no integrator that works: docs/limits.md has the reasons."""


def parse_rate_limits(text: str) -> RateLimits:
    """Return the limits that a JSON text sets; a class that it leaves out keeps its default, ``null`` has no limit.

    Raises ValueError, which says where the fault is, and the name that was probably meant.
    """
    given = _parse_object(text, "it")
    _check_names(given, LimitClass, "the class")
    limits = {name: limit for name, limit in DEFAULT_RATE_LIMITS.items() if name not in given}
    for name, value in given.items():
        if value is not None:
            limits[LimitClass(name)] = _rate_limit(name, value)
    return MappingProxyType(limits)


def parse_quotas(text: str) -> Quotas:
    """Return the quotas by integrator, ``*`` for every other one; raises ValueError, as for limits."""
    quotas: dict[str, Quota] = {}
    known = [field.name for field in fields(Quota)]
    for integrator, value in _parse_object(text, "it").items():
        if integrator != EVERY_INTEGRATOR and not INTEGRATOR_PATTERN.fullmatch(integrator):
            raise ValueError(
                f"{integrator[:64]!r} is no name of an integrator: 1 to 63 letters, digits or any of _ . -, which "
                f"begin with a letter or digit, or {EVERY_INTEGRATOR} for every other integrator"
            )
        place = f"the integrator {integrator}"
        _check_names(_checked_object(value, place), known, f"{place}: the quota")
        for name, number in value.items():
            if number is not None and (type(number) is not int or not 0 <= number <= _QUOTA_MAX):
                raise ValueError(f"{place}: {name} must be a whole number from 0 to {_QUOTA_MAX}, or null")
        quotas[integrator] = Quota(**value)
    return MappingProxyType(quotas)


def quota_of(quotas: Quotas, integrator: str) -> Quota | None:
    """Return the quota of an integrator; None if it has none."""
    own = quotas.get(integrator)
    return quotas.get(EVERY_INTEGRATOR) if own is None else own


def _rate_limit(name: str, value: Any) -> RateLimit:
    place = f"the class {name}"
    _check_names(_checked_object(value, place), ("per_s", "burst"), f"{place}: the key")
    per_s = value.get("per_s")
    if not isinstance(per_s, int | float) or isinstance(per_s, bool) or not 0 < per_s <= _RATE_MAX:
        raise ValueError(f"{place}: per_s must be a number above 0, at most {_RATE_MAX}")
    burst = value.get("burst", math.ceil(per_s))
    if type(burst) is not int or not 1 <= burst <= _RATE_MAX:
        raise ValueError(f"{place}: burst must be a whole number from 1 to {_RATE_MAX}")
    return RateLimit(float(per_s), burst)


def _parse_object(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_refuse_doubled_names)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is neither a JSON object nor the path of a file with one: {error}") from error
    return _checked_object(value, place)


def _refuse_doubled_names(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) != len(members):
        counts = Counter(name for name, _ in members)
        raise ValueError(f"the name {counts.most_common(1)[0][0][:64]!r} stands twice in one object")
    return value


def _checked_object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place} must be a JSON object")  # noqa: TRY004 -- a fault of the text, as any other
    return value


def _check_names(given: Mapping[str, Any], known: Any, what: str) -> None:
    names = [str(name) for name in known]
    for name in given:
        if name not in names:
            meant = next(iter(closest_matches(name, names, similarity_min=LOOSE_SIMILARITY_MIN)), None)
            hint = f"; did you mean {meant}?" if meant else ""
            raise ValueError(f"{what} {name[:64]!r} is not known{hint} (there are {', '.join(names)})")
