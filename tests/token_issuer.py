"""An issuer of tokens for tests: real keys of each kind, real signatures, and its key set behind a real HTTP server.

with TokenIssuer() as issuer:
    token = issuer.token("RS256", at_s=now_s, role="reader")
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from tests.provider_stub import ProviderStub, Received, Reply

ISSUER: Final = "https://login.example.com/realms/main"
AUDIENCE: Final = "bucket"
KINDS: Final = ("RS256", "ES256", "EdDSA")
_PATH: Final = "/jwks"


def new_private_key(algorithm: str) -> Any:
    """Return a new private key for ``algorithm``."""
    if algorithm.startswith("RS"):
        return rsa.generate_private_key(65_537, 2_048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


# To make an RSA key takes up to a second.
_FIRST_KEYS: Final[dict[str, Any]] = {algorithm: new_private_key(algorithm) for algorithm in KINDS}


def public_jwk(private_key: Any, key_id: str | None, algorithm: str) -> dict[str, Any]:
    """Return the public part of a key as a member of a key set."""
    jwk = get_default_algorithms()[algorithm].to_jwk(private_key.public_key(), as_dict=True)
    return {**jwk, "use": "sig", "alg": algorithm, **({} if key_id is None else {"kid": key_id})}


class TokenIssuer:
    """An issuer whose key ids are its algorithms, until ``rotate`` adds others."""

    def __init__(self) -> None:
        self.private_keys: dict[str, tuple[str, Any]] = {name: (name, key) for name, key in _FIRST_KEYS.items()}
        self.server = ProviderStub()
        self.server.reply(_PATH, self._reply)

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    @property
    def url(self) -> str:
        """The address of its key set."""
        return f"{self.server.url}{_PATH}"

    @property
    def fetches(self) -> int:
        """How often its key set was fetched."""
        return self.server.count(_PATH)

    def key_set(self) -> dict[str, Any]:
        """Return its key set."""
        return {"keys": [public_jwk(key, name, algorithm) for name, (algorithm, key) in self.private_keys.items()]}

    def write(self, path: Path) -> Path:
        """Write its key set to a file."""
        path.write_text(json.dumps(self.key_set()), encoding="utf-8")
        return path

    def rotate(self, old: str, new: str) -> None:
        """Replace a key by a new one of the same algorithm."""
        algorithm, _ = self.private_keys.pop(old)
        self.private_keys[new] = (algorithm, new_private_key(algorithm))

    def token(self, key_id: str, at_s: float, headers: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """Return a token that was issued at ``at_s`` and is right in all but ``claims``; None leaves a claim out."""
        algorithm, key = self.private_keys[key_id]
        return sign(key, algorithm, claims_at(at_s, **claims), {"kid": key_id, **(headers or {})})

    def _reply(self, _received: Received) -> Reply:
        return Reply(body=self.key_set())


def claims_at(at_s: float, **claims: Any) -> dict[str, Any]:
    """Return the claims of a good token, with ``claims`` instead of its own; None leaves one out."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": int(at_s), "exp": int(at_s) + 600}
    merged = {**good, "role": "reader", "integrator": "acme", **claims}
    return {name: value for name, value in merged.items() if value is not None}


def sign(key: Any, algorithm: str, claims: Any, headers: Mapping[str, Any]) -> str:
    """Return a token as PyJWT signs it; claims that PyJWT would refuse to sign are signed too."""
    payload = json.dumps(claims).encode()
    return jwt.PyJWS().encode(payload, key, algorithm, {"typ": "JWT", **headers})


def unsigned(header: Any, claims: Any, signature: bytes = b"") -> str:
    """Return a token with any header and signature."""
    return ".".join(map(_base64url, (json.dumps(header).encode(), json.dumps(claims).encode(), signature)))


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
