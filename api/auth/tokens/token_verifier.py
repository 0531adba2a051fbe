"""Verifies tokens (JWT, RFC 7519) of an outside issuer; a token stands in no log line and no reply.

The steps go from cheap to dear: size, header, key, signature and claims. What RFC 8725 advises is held here: the
algorithm comes from the settings and the key, and the header's ``typ`` must be that of an access token.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import jwt

from api.auth.tokens.signing_key_source import SigningKeySource, open_source
from api.auth.tokens.signing_keys import SigningKeys
from api.auth.tokens.token_claims import REQUIRED_CLAIMS, ClaimMapping, TokenTimes, check_times
from shared.domain.access.caller import Caller
from shared.errors import SettingsError, Unauthenticated, Unavailable
from shared.settings import Settings

TOKEN_MAX_CHARS: Final = 8_192
CACHED_MAX: Final = 10_000
_TYPES: Final = frozenset({"jwt", "at+jwt"})
_IN_PARTS: Final = "this is neither a key of Bucket, which begins with bkt_, nor a token (JWT)"
# PyJWT reads the local clock, so the times are checked by api.auth.tokens.token_claims.
_OPTIONS: Final[Any] = {
    "require": list(REQUIRED_CLAIMS),
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "enforce_minimum_key_length": True,
}


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    times: TokenTimes
    keys: SigningKeys


class JwtVerifier:
    """Verifies the tokens of one issuer; a verified one is cached, by its hash, until it or the keys change."""

    def __init__(self, source: SigningKeySource, settings: Settings) -> None:
        self.source = source
        self._issuer, self._audience = settings.jwt_issuer, settings.jwt_audience
        self._algorithms = frozenset(settings.jwt_algorithms)
        self._mapping = ClaimMapping(settings.jwt_role_claim, settings.jwt_integrator_claim)
        self._lock = threading.Lock()
        self._cached: OrderedDict[bytes, _Verified] = OrderedDict()

    def verify(self, token: str, now: datetime) -> Caller:
        """Return who calls with ``token``; ``now`` is the store's time.

        Raises Unauthenticated, Forbidden (valid, but without a role or an integrator), or Unavailable if no key was
        ever read.
        """
        if len(token) > TOKEN_MAX_CHARS:
            raise Unauthenticated(f"the token is longer than {TOKEN_MAX_CHARS} characters")
        now_s = now.timestamp()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        cached = self._cached.get(digest)
        if cached is not None and cached.keys is self.source.keys and cached.times.contains(now_s):
            return cached.caller
        key_id, algorithm = self._read_header(token)
        keys, key = self._find_key(key_id, algorithm)
        claims = self._decode(token, key, algorithm)
        times = check_times(claims, now_s)
        caller = self._mapping.caller(claims, times.expires_at)
        self._cache(digest, _Verified(caller, times, keys))
        return caller

    def _read_header(self, token: str) -> tuple[str | None, str]:
        """Return the key id and the algorithm that the header of ``token`` names."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError):  # a lone surrogate is a ValueError
            raise Unauthenticated(f"{_IN_PARTS} whose header can be read") from None
        if "crit" in header or "b64" in header:
            raise Unauthenticated("the token has critical extensions (crit), and Bucket knows none")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
            raise Unauthenticated("the token's typ is neither JWT nor at+jwt, so it is no access token")
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise Unauthenticated("the token's algorithm is not one of BUCKET_JWT_ALGORITHMS")
        return header.get("kid"), algorithm

    def _find_key(self, key_id: str | None, algorithm: str) -> tuple[SigningKeys, jwt.PyJWK]:
        keys = self.source.keys
        key = None if keys is None else keys.find(key_id, algorithm)
        if keys is not None and key is None and keys.has_id(key_id):
            raise Unauthenticated("the token's algorithm is not that of the key that it names (kid)")
        if key is None:
            keys = self.source.read_again(keys)
        if keys is None:
            raise Unavailable(
                "no key of the token issuer could be read yet, so no token can be checked; send the same request again",
                retry_after_s=5,
            )
        key = key or keys.find(key_id, algorithm)
        if key is None:
            named = "names no key (kid), and one must be chosen" if key_id is None else "names a key that is not known"
            raise Unauthenticated(f"the token {named}; ask its issuer for a new one")
        return keys, key

    def _decode(self, token: str, key: jwt.PyJWK, algorithm: str) -> Mapping[str, Any]:
        """Return the claims of ``token`` after its signature, issuer and audience were checked."""
        try:
            claims = jwt.decode(
                token, key, algorithms=[algorithm], audience=self._audience, issuer=self._issuer, options=_OPTIONS
            )
        except jwt.InvalidSignatureError:
            raise Unauthenticated("the token's signature is not that of its issuer") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated("the token is of another issuer than BUCKET_JWT_ISSUER") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("the token is for another audience than BUCKET_JWT_AUDIENCE") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthenticated(f"the token lacks the claim {error.claim}") from None
        except (jwt.PyJWTError, ValueError):  # their texts may quote the token
            raise Unauthenticated("the token's claims cannot be read") from None
        if not claims["sub"]:
            raise Unauthenticated("the token lacks the claim sub")
        if "cnf" in claims:
            raise Unauthenticated("the token is bound to a key of its holder (cnf), which Bucket does not check")
        return claims

    def _cache(self, digest: bytes, verified: _Verified) -> None:
        with self._lock:
            self._cached[digest] = verified
            if len(self._cached) > CACHED_MAX:
                self._cached.popitem(last=False)


def open_verifier(settings: Settings) -> JwtVerifier:
    """Return the verifier that the settings describe.

    A file of keys is read at once, and raises SettingsError if it is not valid; an address is fetched later, in the
    background, so the API starts while the issuer is away.
    """
    source = open_source(settings.jwt_jwks, settings.jwt_algorithms)
    if "://" not in settings.jwt_jwks:
        if not Path(settings.jwt_jwks).is_file():
            raise SettingsError(f"BUCKET_JWT_JWKS={settings.jwt_jwks} is no file and no https address")
        source.refresh()
        if source.keys is None:
            raise SettingsError(f"BUCKET_JWT_JWKS={settings.jwt_jwks}: {source.fault}")
    return JwtVerifier(source, settings)
