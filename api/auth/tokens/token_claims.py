"""The claims of a verified token: checks its times by the store's clock, and maps it to a caller."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from shared.domain.access.caller import Caller, Role
from shared.errors import Forbidden, Unauthenticated
from shared.ids import INTEGRATOR_PATTERN

SKEW_MAX_S: Final = 60
"""By how much the issuer's clock may differ from the store's."""
LIFE_MAX_S: Final = 3_600
REQUIRED_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat")
PAYLOADS_CLAIM: Final = "payloads"
SUBJECT_MAX_CHARS: Final = 128
_DIGEST_CHARS: Final = 16
_MOMENT_MAX_S: Final = 253_402_300_799  # the end of the year 9999, the last that a datetime has
_ROLES: Final = ", ".join(Role)


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """From when to when a token is valid, in seconds since 1970; the skew is in it."""

    valid_from_s: float
    valid_until_s: float
    expires_at: datetime

    def contains(self, now_s: float) -> bool:
        """Return whether the token is valid at ``now_s``."""
        return self.valid_from_s <= now_s < self.valid_until_s


def check_times(claims: Mapping[str, Any], now_s: float) -> TokenTimes:
    """Return the times of a token that is valid now; raises Unauthenticated, which says what is wrong."""
    issued_at_s, expires_at_s = _moment(claims, "iat"), _moment(claims, "exp")
    not_before_s = _moment(claims, "nbf") if "nbf" in claims else issued_at_s
    if not 0 < expires_at_s - issued_at_s <= LIFE_MAX_S:
        raise Unauthenticated(
            f"the token must be valid for at most {LIFE_MAX_S} s (exp less iat); the issuer makes it for another time"
        )
    times = TokenTimes(
        max(issued_at_s, not_before_s) - SKEW_MAX_S,
        expires_at_s + SKEW_MAX_S,
        datetime.fromtimestamp(expires_at_s, UTC),
    )
    if now_s >= times.valid_until_s:
        raise Unauthenticated("the token has expired; ask its issuer for a new one")
    if now_s < times.valid_from_s:
        raise Unauthenticated(
            f"the token is not valid yet (iat or nbf); the issuer's clock may be ahead by at most {SKEW_MAX_S} s"
        )
    return times


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MOMENT_MAX_S:
        raise Unauthenticated(f"the token's claim {name} is no number of seconds since 1970")
    return value


@dataclass(frozen=True, slots=True)
class ClaimMapping:
    """Which claims name the role and the integrator of a token: a name, or the path to a nested one, with dots."""

    role: str
    integrator: str

    def caller(self, claims: Mapping[str, Any], expires_at: datetime) -> Caller:
        """Return who calls with a verified token; raises Forbidden, with what is missing."""
        role = self._role(claims)
        return Caller(
            subject=f"token:{subject_text(claims['sub'])}",
            role=role,
            integrator=self._integrator(claims),
            payloads=_payloads(claims),
            expires_at=expires_at,
            sees_all=role is Role.ADMIN,
        )

    def _role(self, claims: Mapping[str, Any]) -> Role:
        roles = {Role(text) for text in _texts(_find(claims, self.role)) if text in set(Role)}
        if not roles:
            raise Forbidden(f"the token is valid, but its claim {self.role} names no role of Bucket: {_ROLES}")
        if len(roles) > 1:  # which one is meant is not for Bucket to guess
            raise Forbidden(
                f"the token is valid, but its claim {self.role} names {len(roles)} roles of Bucket, not one"
            )
        return roles.pop()

    def _integrator(self, claims: Mapping[str, Any]) -> str:
        texts = _texts(_find(claims, self.integrator))
        if len(texts) != 1 or not INTEGRATOR_PATTERN.fullmatch(texts[0]):
            raise Forbidden(
                f"the token is valid, but its claim {self.integrator} does not name one integrator: 1 to 63 letters, "
                "digits or any of _ . -"
            )
        return texts[0]


def _payloads(claims: Mapping[str, Any]) -> bool:
    payloads = claims.get(PAYLOADS_CLAIM, False)
    if not isinstance(payloads, bool):
        raise Forbidden(f"the token is valid, but its claim {PAYLOADS_CLAIM} is neither true nor false")
    return payloads


def _find(claims: Mapping[str, Any], name: str) -> Any:
    if name in claims:  # names of claims may have dots: an issuer's own are often URLs
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def subject_text(subject: str) -> str:
    """Return a subject for people and logs: printable, and if it is cut, it ends in a hash, so that it stays unique."""
    text = subject if subject.isprintable() else subject.encode("unicode_escape").decode("ascii")
    if len(text) <= SUBJECT_MAX_CHARS:
        return text
    digest = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]
    return f"{text[: SUBJECT_MAX_CHARS - _DIGEST_CHARS - 1]}…{digest}"
