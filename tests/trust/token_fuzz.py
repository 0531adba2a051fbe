"""Made-up tokens: each is signed and right but for one thing, or is no token; all of them are harmless."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.token_issuer import AUDIENCE, ISSUER, KINDS, TokenIssuer, claims_at, new_private_key, sign, unsigned
from tests.trust.header_fuzz import FuzzedHeader

_BASE64URL: Final = string.ascii_letters + string.digits + "-_"
_MISSING: Final = ("iss", "aud", "sub", "iat", "exp", "role", "integrator")
_WRONG: Final[tuple[Mapping[str, Any], ...]] = (
    {"iss": f"{ISSUER}/"}, {"iss": ISSUER.upper()}, {"iss": "https://login.example.org"}, {"iss": [ISSUER]},
    {"iss": ""},
    {"aud": AUDIENCE.upper()}, {"aud": f"{AUDIENCE}s"}, {"aud": []}, {"aud": ["other", "another"]}, {"aud": ""},
    {"sub": ""}, {"sub": 7}, {"exp": "soon"}, {"exp": -1}, {"exp": True}, {"iat": "before"},
    {"iat": None}, {"nbf": "x"},
    {"role": "king"}, {"role": ["reader", "admin"]}, {"role": {}}, {"role": "Admin"}, {"integrator": "a b"},
    {"integrator": ["a", "b"]}, {"integrator": "x" * 64}, {"payloads": "yes"}, {"cnf": {"jkt": "some"}},
)  # fmt: skip
_HEADERS: Final[tuple[Mapping[str, Any], ...]] = (
    {"typ": "secevent+jwt"}, {"typ": 7}, {"crit": ["exp"]}, {"kid": "unknown"}, {"kid": ""},
)  # fmt: skip


class TokenFuzzer:
    """Makes tokens of ``issuer`` from a seed; ``at_s`` is the store's time."""

    def __init__(self, rng: random.Random, issuer: TokenIssuer, at_s: float) -> None:
        self._rng, self._issuer, self._at_s = rng, issuer, at_s
        self._strange_keys = {kind: new_private_key(kind) for kind in KINDS}
        self._kinds: Mapping[str, Callable[[str], str]] = {
            "algorithm": self._algorithm,
            "claim": lambda kind: self._token(kind, **rng.choice(_WRONG)),
            "missing claim": lambda kind: self._token(kind, **{rng.choice(_MISSING): None}),
            "time": self._time,
            "header": lambda kind: issuer.token(kind, at_s, rng.choice(_HEADERS)),
            "key": lambda kind: sign(self._strange_keys[kind], kind, claims_at(at_s, role="admin"), {"kid": kind}),
            "key of another": self._key_of_another,
            "signature": self._signature,
            "payload": self._payload,
            "parts": self._parts,
            "noise": lambda _: ".".join(self._letters(rng.randint(0, 80)) for _ in range(rng.randint(1, 5))),
            "long": lambda kind: self._token(kind, more="x" * rng.randint(8_000, 30_000)),
        }

    def valid(self) -> str:
        """Return a token that holds."""
        return self._token(self._rng.choice(KINDS))

    def make(self) -> FuzzedHeader:
        """Return a header with a token that must not be accepted."""
        name = self._rng.choice(list(self._kinds))
        token = self._kinds[name](self._rng.choice(KINDS))
        return FuzzedHeader(f"token: {name}", {"HTTP_AUTHORIZATION": f"Bearer {token}"}, token)

    def _token(self, kind: str, **claims: Any) -> str:
        return self._issuer.token(kind, self._at_s, **claims)

    def _algorithm(self, kind: str) -> str:
        """Return a token whose header names another algorithm than its key has."""
        name = self._rng.choice(("none", "None", "HS256", "HS512", "RS512", "ES384", "", None, 7, kind.lower()))
        signature = self._rng.randbytes(self._rng.choice((0, 32, 64, 256)))
        return unsigned({"typ": "JWT", "kid": kind, "alg": name}, claims_at(self._at_s, role="admin"), signature)

    def _time(self, kind: str) -> str:
        now = int(self._at_s)
        times = self._rng.choice(
            (
                {"iat": now - 900, "exp": now - 120},
                {"iat": now, "exp": now + 7_200},
                {"iat": now + 7_200, "exp": now + 7_300},
                {"nbf": now + 7_200},
                {"iat": now, "exp": now},
                {"iat": now + 100, "exp": now},
                {"iat": 0},
            )
        )
        return self._token(kind, **times)

    def _key_of_another(self, kind: str) -> str:
        """Return a token that names the key of another algorithm than it was signed with."""
        other = self._rng.choice([each for each in KINDS if each != kind])
        return self._issuer.token(kind, self._at_s, {"kid": other})

    def _signature(self, kind: str) -> str:
        head, payload, signature = self._token(kind).split(".")
        other = self._token(kind, sub="other").split(".")[2]
        place = self._rng.randrange(len(signature) - 4)  # the last character has bits that mean nothing
        changed = self._other_letter(signature, place)
        return f"{head}.{payload}.{self._rng.choice((changed, signature[:place], '', other))}"

    def _payload(self, kind: str) -> str:
        """Return a token whose payload, or a character of it, was changed after it was signed."""
        head, payload, signature = self._token(kind).split(".")
        other = self._token(kind, role="admin").split(".")[1]
        changed = self._other_letter(payload, self._rng.randrange(len(payload) - 4))
        return f"{head}.{self._rng.choice((changed, other))}.{signature}"

    def _parts(self, kind: str) -> str:
        token = self._token(kind)
        parts = token.split(".")
        cut = [parts[:2], parts[1:], [*parts, parts[0]], parts[::-1], ["", *parts[1:]], [parts[0], "", parts[2]]]
        return self._rng.choice([*(".".join(each) for each in cut), f"{token}.{token}", token[: len(token) // 2]])

    def _other_letter(self, text: str, place: int) -> str:
        other = self._rng.choice([each for each in _BASE64URL if each != text[place]])
        return text[:place] + other + text[place + 1 :]

    def _letters(self, count: int) -> str:
        return "".join(self._rng.choice(_BASE64URL) for _ in range(count))
