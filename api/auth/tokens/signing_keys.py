"""Signing keys: the public keys of a token issuer, parsed from its JSON Web Key Set (RFC 7517); no private key is kept.

A key is bound to its algorithms here, when it is read, so the header of a token only selects among them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
import orjson

KEY_SET_MAX_BYTES: Final = 256 * 1024
KEYS_MAX: Final = 100
_RSA_BITS_MIN: Final = 2_048
_RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_ALGORITHMS_OF: Final[Mapping[tuple[str, str | None], tuple[str, ...]]] = {
    ("RSA", None): _RSA_ALGORITHMS,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
_PUBLIC_MEMBERS: Final = frozenset({"kty", "n", "e", "crv", "x", "y"})


class KeySetNotRead(Exception):
    """A key set could not be read; the text says why."""


class KeySetNotValid(ValueError):
    """A document is no key set, or has no key that can be used."""


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The usable keys of a key set, by key id and algorithm; ``unusable`` says what is wrong with each other key."""

    by_id: Mapping[tuple[str | None, str], jwt.PyJWK]
    unusable: tuple[str, ...] = ()

    def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key for a token; without a key id, the only key of the algorithm."""
        if key_id is not None:
            return self.by_id.get((key_id, algorithm))
        of_algorithm = [key for (_, name), key in self.by_id.items() if name == algorithm]
        return of_algorithm[0] if len(of_algorithm) == 1 else None

    def has_id(self, key_id: str | None) -> bool:
        """Return whether there is a key of this id, for whatever algorithm."""
        return key_id is not None and any(known == key_id for known, _ in self.by_id)


def parse_key_set(raw: bytes, algorithms: Collection[str]) -> SigningKeys:
    """Return the keys of a key set that can be used with ``algorithms``; raises KeySetNotValid if there is none."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise KeySetNotValid("it is not JSON") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise KeySetNotValid("it is no JSON Web Key Set: an object whose member keys is a list")
    if len(keys) > KEYS_MAX:
        raise KeySetNotValid(f"it has more than {KEYS_MAX} keys")
    by_id: dict[tuple[str | None, str], jwt.PyJWK] = {}
    unusable = []
    for number, key in enumerate(keys, 1):
        try:
            _add_key(by_id, key, algorithms)
        except KeySetNotValid as fault:
            unusable.append(f"key {number}: {fault}")
    if not by_id:
        raise KeySetNotValid("it has no key that can be used" + "".join(f"; {fault}" for fault in unusable[:3]))
    return SigningKeys(by_id, tuple(unusable))


def _add_key(by_id: dict[tuple[str | None, str], jwt.PyJWK], key: Any, algorithms: Collection[str]) -> None:
    if not isinstance(key, dict):
        raise KeySetNotValid("it is no object")
    key_id, own_algorithm = key.get("kid"), key.get("alg")
    if key_id is not None and not isinstance(key_id, str):
        raise KeySetNotValid("its kid is no text")
    operations = key.get("key_ops")
    if key.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
        raise KeySetNotValid("it is not for signatures")
    kind, curve = key.get("kty"), key.get("crv")
    possible = _ALGORITHMS_OF.get((str(kind), None if curve is None else str(curve)), ())
    if not possible:
        raise KeySetNotValid("its type is not RSA, EC or Ed25519")
    chosen = [name for name in possible if name in algorithms and own_algorithm in (None, name)]
    if not chosen:
        raise KeySetNotValid("its algorithm is not among BUCKET_JWT_ALGORITHMS")
    public = {name: value for name, value in key.items() if name in _PUBLIC_MEMBERS}
    try:
        bound = {(key_id, name): jwt.PyJWK(public, name) for name in chosen}
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):  # their texts may quote the key
        raise KeySetNotValid(f"it is no valid {kind} key") from None
    if kind == "RSA" and bound[key_id, chosen[0]].key.key_size < _RSA_BITS_MIN:
        raise KeySetNotValid(f"it has less than {_RSA_BITS_MIN} bits")
    if bound.keys() & by_id.keys():
        raise KeySetNotValid("an earlier key has the same kid")
    by_id.update(bound)
