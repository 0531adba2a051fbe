"""Made-up ``Authorization`` headers: keys with small faults, keys that no longer hold, and what is no key at all.

All of them are harmless: they try the authentication of Bucket itself, in this process.
"""

from __future__ import annotations

import base64
import random
import string
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from shared.domain.access.key_format import new_key

_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_CHECKSUM_CHARS: Final = 6
_SCHEMES: Final = (
    "Basic",
    "Token",
    "Digest",
    "ApiKey",
    "Bearer:",
    "Bearer=",
    "Bearer,",
    "Bear",
    "bkt",
    "",
    "\xa0Bearer",
)
_CONTROL: Final = [chr(code) for code in (*range(1, 32), 127, 0x85, 0xA0) if chr(code) not in "\t\n\r"]
_PLACES: Final = ("query", "cookie", "header", "body", "name")

Environ = Mapping[str, str | bytes]


@dataclass(frozen=True, slots=True)
class FuzzedHeader:
    """What a request has of its own: variables of WSGI, and its ``body``; no reply may repeat ``secret``."""

    kind: str
    environ: Environ
    secret: str


def with_checksum(head: str) -> str:
    """Return a key whose checksum is right for the text before it."""
    number, digits = zlib.crc32(head.encode()), []
    for _ in range(_CHECKSUM_CHARS):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return head + "".join(reversed(digits))


def with_other_secret(key: str) -> str:
    """Return a key with the id of ``key``, another secret, and the right checksum."""
    made, made_id = new_key()
    return with_checksum(made[:-_CHECKSUM_CHARS].replace(made_id, key.split("_")[1], 1))


class HeaderFuzzer:
    """Makes headers from a seed; ``valid`` are keys that hold, ``ended`` keys that hold no longer or not from here."""

    def __init__(self, rng: random.Random, valid: Sequence[str], ended: Sequence[str]) -> None:
        self._rng, self._valid, self._ended = rng, valid, ended
        self._kinds: Mapping[str, Callable[[str], str]] = {
            "one character": self._one_character,
            "cut": self._part,
            "longer": lambda key: key + rng.choice(_DIGITS),
            "doubled": lambda key: key + rng.choice(("", ",", ";", ".", " ")) + key,
            "case": lambda key: rng.choice((key.swapcase(), key.upper(), key.lower(), key.title())),
            "checksum": lambda key: key[:-_CHECKSUM_CHARS] + self._letters(_CHECKSUM_CHARS),
            "secret": with_other_secret,
            "id": lambda _: new_key()[0],
            "other id": lambda key: with_checksum(key[:4] + self._letters(12) + key[16:-_CHECKSUM_CHARS]),
            "control": self._control,
            "reversed": lambda key: key[::-1],
            "quoted": lambda key: rng.choice((f'"{key}"', f"'{key}'", f"<{key}>", quote(f"{key} "), f"{key}=")),
            "encoded": lambda key: base64.b64encode(key.encode()).decode(),
            "long": lambda key: key * rng.randint(20, 600),
            "noise": lambda _: "".join(chr(rng.randint(1, 255)) for _ in range(rng.randint(1, 200))),
            "empty": lambda _: rng.choice(("", " ", "  ", "-", "null", "undefined", "*", "true")),
            "prefix": lambda key: rng.choice(("bkt_", "bkt__", "bkt", key[:17])),
        }

    def make(self) -> FuzzedHeader:
        """Return a header that must not be accepted."""
        while self._is_valid(made := self._make()):
            pass
        return made

    def _is_valid(self, made: FuzzedHeader) -> bool:
        """Return whether chance has made a header that holds: a key with spaces around it."""
        scheme, _, key = str(made.environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
        return scheme.lower() == "bearer" and key.strip(" \t") in self._valid

    def _make(self) -> FuzzedHeader:
        chance = self._rng.random()
        key = self._rng.choice(self._valid)
        if chance < 0.1:
            ended = self._rng.choice(self._ended)
            return self._header("ended", f"Bearer {ended}", ended)
        if chance < 0.2:
            return self._scheme(key)
        if chance < 0.3:
            return self._several(key)
        if chance < 0.4:
            return self._elsewhere(key)
        kind = self._rng.choice(list(self._kinds))
        text = self._kinds[kind](key)
        return self._header(kind, f"{self._rng.choice(('Bearer', 'bearer', 'BEARER'))} {text}", text)

    def _header(self, kind: str, text: str, secret: str) -> FuzzedHeader:
        return FuzzedHeader(kind, {"HTTP_AUTHORIZATION": text}, secret)

    def _scheme(self, key: str) -> FuzzedHeader:
        scheme = self._rng.choice(_SCHEMES)
        pair = base64.b64encode(f"{key}:".encode()).decode()
        text = f"{scheme} {self._rng.choice((key, pair))}" if scheme != "" else key
        return self._header(f"scheme {scheme!r}", text, key)

    def _several(self, key: str) -> FuzzedHeader:
        values = [f"Bearer {key}", f"Bearer {new_key()[0]}", key, "Basic YTpi", ""]
        self._rng.shuffle(values)
        count = self._rng.randint(2, 4)
        return self._header("several", self._rng.choice((",", ", ", "; ", " ")).join(["Bearer", *values[:count]]), key)

    def _elsewhere(self, key: str) -> FuzzedHeader:
        name = self._rng.choice(("key", "api_key", "access_token", "token", "authorization", "Authorization"))
        place = self._rng.choice(_PLACES)
        environ: Environ = {
            "query": {"QUERY_STRING": f"{name}={quote(self._rng.choice((key, f'Bearer {key}')))}"},
            "cookie": {"HTTP_COOKIE": f"{name}={key}"},
            "header": {self._rng.choice(("HTTP_X_API_KEY", "HTTP_PROXY_AUTHORIZATION", "HTTP_TOKEN")): f"Bearer {key}"},
            "body": {"body": f'{{"{name}": "Bearer {key}"}}'.encode(), "CONTENT_TYPE": "application/json"},
            "name": {"HTTP_X_AUTHORIZATION": f"Bearer {key}", "REMOTE_USER": key},
        }[place]
        return FuzzedHeader(f"in the {place}", environ, key)

    def _one_character(self, key: str) -> str:
        place = self._rng.randrange(len(key))
        other = self._rng.choice([each for each in f"{_DIGITS}_-. " if each != key[place]])
        return key[:place] + other + key[place + 1 :]

    def _part(self, key: str) -> str:
        begin = self._rng.randint(0, 20)
        return key[begin : self._rng.randint(begin + 1, len(key) - 1)]

    def _control(self, key: str) -> str:
        place = self._rng.choice((0, len(key), self._rng.randrange(len(key))))
        return key[:place] + self._rng.choice(_CONTROL) + key[place:]

    def _letters(self, count: int) -> str:
        return "".join(self._rng.choice(_DIGITS) for _ in range(count))
