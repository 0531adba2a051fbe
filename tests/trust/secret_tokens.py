"""Uses tokens of an issuer in every way, right and wrong ones, so that the scan can look for them afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from tests.token_issuer import AUDIENCE, ISSUER, KINDS, TokenIssuer, claims_at, new_private_key, sign, unsigned
from tests.trust.recorded_calls import WRONG_PATHS, RecordedCalls
from tests.trust.secret_scan import SecretScan

_ANY: Final = "ES256"


def token_settings(issuer: TokenIssuer) -> dict[str, str]:
    """Return the settings of a stack that takes the tokens of ``issuer``."""
    return {"BUCKET_JWT_ISSUER": ISSUER, "BUCKET_JWT_AUDIENCE": AUDIENCE, "BUCKET_JWT_JWKS": issuer.url}


def use_tokens(calls: RecordedCalls, scan: SecretScan, issuer: TokenIssuer) -> None:
    """Run and poll with tokens that hold, and be refused with others, also where no token belongs."""
    now = time.time()
    accepted = [issuer.token(kind, now, role="operator", jti=f"valid {kind}") for kind in KINDS]
    for number, token in enumerate(accepted):
        scan.add_token(f"a token of {KINDS[number]}", token)
        authorization = f"Bearer {token}"
        assert calls.call("GET", "/me", Authorization=authorization)["role"] == "operator"
        run = {"agent_name": "teller", "input_data": {"say": ["hello"]}}
        made = calls.call("POST", "/run-agent", run, Authorization=authorization)
        calls.call("GET", f"/executions/{made['execution_id']}?wait=10&until=done", Authorization=authorization)
        calls.call("GET", f"/executions/{made['execution_id']}/result", Authorization=authorization)
        calls.call("GET", "/keys", Authorization=authorization)
        calls.call("POST", "/create-basket", {"name": 7}, Authorization=authorization)
    for name, token in _refused(issuer, now):
        scan.add_token(name, token)
        for method, path in (("GET", "/me"), ("POST", "/run-basket"), ("GET", "/nowhere")):
            calls.call(method, path, Authorization=f"Bearer {token}")
    for token in accepted:
        for path in WRONG_PATHS:
            calls.call("GET", f"{path}/{token}")
            calls.call("DELETE", f"{path}/{token}")
        calls.call("GET", f"/me?access_token={token}", Authorization="")
        calls.call("GET", "/me", Authorization="", **{"X-Api-Key": token})
        calls.call("GET", "/me", Authorization=token, Cookie=f"token={token}")
        calls.call("GET", "/me", Authorization=f"Basic {token}")


def _refused(issuer: TokenIssuer, now: float) -> Iterator[tuple[str, str]]:
    """Yield tokens that do not hold, each with a name."""
    yield "an expired token", issuer.token(_ANY, now - 7_200)
    yield "a token of another audience", issuer.token(_ANY, now, aud="other")
    yield "a token without a role", issuer.token(_ANY, now, role=None)
    yield "a token with an unknown key", issuer.token(_ANY, now, {"kid": "unknown"})
    yield "a token signed by another", sign(new_private_key(_ANY), _ANY, claims_at(now, role="admin"), {"kid": _ANY})
    yield "a token with a changed claim", _changed(issuer, now)
    yield "a token without algorithm", unsigned({"alg": "none", "kid": _ANY}, claims_at(now), b"no signature at all")
    yield "a token that is too long", issuer.token(_ANY, now, more="x" * 9_000)


def _changed(issuer: TokenIssuer, now: float) -> str:
    head, _, signature = issuer.token(_ANY, now).split(".")
    return f"{head}.{issuer.token(_ANY, now, role='admin').split('.')[1]}.{signature}"
