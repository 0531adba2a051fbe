"""Which tokens are accepted, what they make of their caller, and what each refusal says; signatures are real."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.auth.tokens.signing_keys import KeySetNotValid, parse_key_set
from api.auth.tokens.token_verifier import JwtVerifier, open_verifier
from shared.domain.access.caller import Role
from shared.errors import BucketError, Forbidden, SettingsError, Unauthenticated
from shared.settings import Settings
from tests.token_issuer import (
    AUDIENCE,
    ISSUER,
    KINDS,
    TokenIssuer,
    claims_at,
    new_private_key,
    public_jwk,
    sign,
    unsigned,
)

# Far from the local clock: the store's time is what counts.
NOW: Final = datetime(2040, 5, 6, 7, 8, 9, tzinfo=UTC)
NOW_S: Final = NOW.timestamp()
STRANGER: Final = {algorithm: new_private_key(algorithm) for algorithm in KINDS}


@pytest.fixture(scope="module")
def issuer() -> TokenIssuer:
    return TokenIssuer()


def make_verifier(issuer: TokenIssuer, directory: Path, **settings: Any) -> JwtVerifier:
    path = issuer.write(directory / "jwks.json")
    return open_verifier(Settings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_jwks=str(path), **settings))


@pytest.fixture
def verifier(issuer: TokenIssuer, tmp_path: Path) -> JwtVerifier:
    return make_verifier(issuer, tmp_path)


def refusal(verifier: JwtVerifier, token: str, kind: type[BucketError] = Unauthenticated, now: datetime = NOW) -> str:
    """Return what the refusal of ``token`` says; it never quotes the token."""
    with pytest.raises(kind) as caught:
        verifier.verify(token, now)
    assert all(part not in caught.value.message for part in token.split(".") if len(part) > 8)
    return caught.value.message


@pytest.mark.parametrize("algorithm", KINDS)
def test_a_good_token_names_its_caller(verifier: JwtVerifier, issuer: TokenIssuer, algorithm: str) -> None:
    token = issuer.token(algorithm, NOW_S, role="operator", aud=["other", AUDIENCE])
    for _ in range(2):  # the second time it comes from the cache
        caller = verifier.verify(token, NOW)
        assert (caller.subject, caller.role, caller.integrator) == ("token:ada", Role.OPERATOR, "acme")
        assert (caller.scope, caller.key_id, caller.payloads) == ("acme", None, False)
        assert caller.expires_at == NOW + timedelta(seconds=600)


def test_an_admin_sees_all_and_a_reader_payloads_if_its_token_says_so(
    verifier: JwtVerifier, issuer: TokenIssuer
) -> None:
    assert verifier.verify(issuer.token("ES256", NOW_S, role="admin"), NOW).scope is None
    assert verifier.verify(issuer.token("ES256", NOW_S, payloads=True), NOW).sees_payloads
    assert not verifier.verify(issuer.token("ES256", NOW_S, payloads=False), NOW).sees_payloads


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"iss": ISSUER + "/"}, "of another issuer"),
        ({"iss": [ISSUER]}, "of another issuer|cannot be read"),
        ({"aud": "buckets"}, "for another audience"),
        ({"aud": []}, "lacks the claim aud"),
        ({"exp": NOW_S + 3_601}, "at most 3600 s"),
        ({"exp": NOW_S}, "at most 3600 s"),
        ({"iat": NOW_S - 700, "exp": NOW_S - 60}, "has expired"),
        ({"iat": NOW_S + 61}, "is not valid yet"),
        ({"iat": NOW_S + 61, "nbf": NOW_S}, "is not valid yet"),
        ({"nbf": NOW_S + 61}, "is not valid yet"),
        ({"exp": str(NOW_S)}, "exp is no number"),
        ({"exp": True}, "exp is no number"),
        ({"exp": 1e300}, "exp is no number"),
        ({"iat": float("nan")}, "iat is no number"),
        ({"nbf": "soon"}, "nbf is no number"),
        ({"sub": ""}, "lacks the claim sub"),
        ({"sub": 7}, "cannot be read"),
        ({"cnf": {"jkt": "x"}}, "bound to a key of its holder"),
        *(({name: None}, f"lacks the claim {name}") for name in ("iss", "sub", "aud", "exp", "iat")),
    ],
)
def test_a_signed_token_with_other_claims_is_refused_and_the_refusal_says_why(
    verifier: JwtVerifier, issuer: TokenIssuer, claims: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(Unauthenticated, match=words):
        verifier.verify(issuer.token("ES256", NOW_S, **claims), NOW)


def test_clocks_may_differ_by_a_minute_and_no_more(verifier: JwtVerifier, issuer: TokenIssuer) -> None:
    token = issuer.token("ES256", NOW_S, exp=NOW_S + 600)
    assert verifier.verify(token, NOW - timedelta(seconds=60))
    assert verifier.verify(token, NOW + timedelta(seconds=659))
    assert "is not valid yet" in refusal(verifier, token, now=NOW - timedelta(seconds=61))
    # Though it is in the cache.
    assert "has expired" in refusal(verifier, token, now=NOW + timedelta(seconds=660))


def with_secret(issuer: TokenIssuer, header: Mapping[str, Any]) -> str:
    """Return a token whose HMAC has the public key of the issuer as its secret."""
    public = issuer.private_keys["RS256"][1].public_key()
    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signing_input = unsigned(header, claims_at(NOW_S)).rpartition(".")[0]
    mac = hmac.new(secret, signing_input.encode(), hashlib.sha256).digest()
    return unsigned(header, claims_at(NOW_S), mac)


def test_the_algorithm_comes_from_the_settings_and_the_key_never_from_the_header(
    verifier: JwtVerifier, issuer: TokenIssuer, tmp_path: Path
) -> None:
    words = "algorithm is not one of BUCKET_JWT_ALGORITHMS"
    for algorithm in ("none", "None", "", "HS256", "RS512", None, ["RS256"], 7):
        header = {"typ": "JWT", "alg": algorithm, "kid": "RS256"}
        assert words in refusal(verifier, unsigned(header, claims_at(NOW_S)))
        assert words in refusal(verifier, with_secret(issuer, header))
    # Allowed, and the signature is right, but the key is of another algorithm.
    for algorithm, other in (("RS256", "ES256"), ("ES256", "EdDSA"), ("EdDSA", "RS256")):
        token = sign(STRANGER[algorithm], algorithm, claims_at(NOW_S), {"kid": other})
        assert "not that of the key" in refusal(verifier, token)
    rsa_key = issuer.private_keys["RS256"][1]
    both = make_verifier(issuer, tmp_path, jwt_algorithms=("RS256", "PS256"))
    assert "not that of the key" in refusal(both, sign(rsa_key, "PS256", claims_at(NOW_S), {"kid": "RS256"}))


def test_a_signature_of_another_key_or_of_other_content_is_refused(verifier: JwtVerifier, issuer: TokenIssuer) -> None:
    for algorithm in KINDS:
        assert "signature" in refusal(
            verifier, sign(STRANGER[algorithm], algorithm, claims_at(NOW_S), {"kid": algorithm})
        )
        head, _, signature = issuer.token(algorithm, NOW_S).split(".")
        body = unsigned({}, claims_at(NOW_S, role="admin")).split(".")[1]
        assert "signature" in refusal(verifier, f"{head}.{body}.{signature}")
        assert "signature" in refusal(verifier, f"{head}.{body}.")
        assert "names a key that is not known" in refusal(
            verifier, issuer.token(algorithm, NOW_S, headers={"kid": "another"})
        )


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"crit": ["exp"], "exp": 1}, "critical extensions|header can be read"),
        ({"crit": ["b64"], "b64": True}, "critical extensions"),
        ({"crit": []}, "critical extensions|header can be read"),
        ({"typ": "logout+jwt"}, "no access token"),
        ({"typ": 7}, "no access token"),
        ({"kid": 7}, "header can be read"),
    ],
)
def test_a_header_that_asks_for_more_is_refused(verifier: JwtVerifier, headers: Mapping[str, Any], words: str) -> None:
    token = unsigned({"typ": "JWT", "alg": "ES256", "kid": "ES256", **headers}, claims_at(NOW_S), b"0" * 64)
    with pytest.raises(Unauthenticated, match=words):
        verifier.verify(token, NOW)


def test_an_access_token_may_say_that_it_is_one(verifier: JwtVerifier, issuer: TokenIssuer) -> None:
    for kind in ("at+jwt", "application/at+JWT", "jwt"):
        assert verifier.verify(issuer.token("ES256", NOW_S, headers={"typ": kind}), NOW)


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", "a.b.c", "a.b.c.d.e", "x" * 8_192, "\x00\xff.\x80.\u20ac", "\ud800.a.b",
        unsigned([], {}), unsigned("RS256", {}), unsigned({"alg": "ES256", "kid": "ES256"}, []),
    ],
)  # fmt: skip
def test_what_is_no_token_is_refused(verifier: JwtVerifier, text: str) -> None:
    refusal(verifier, text)


def test_a_token_that_is_too_long_is_refused_before_it_is_read(verifier: JwtVerifier, issuer: TokenIssuer) -> None:
    assert "longer than 8192" in refusal(verifier, issuer.token("ES256", NOW_S, note="x" * 8_192))


def test_signed_claims_that_are_no_object_or_nest_deeply_are_refused(
    verifier: JwtVerifier, issuer: TokenIssuer
) -> None:
    nested: list[Any] = []
    for _ in range(900):
        nested = [nested]
    key = issuer.private_keys["ES256"][1]
    for claims in ([], "sub", None, nested):
        assert "cannot be read" in refusal(verifier, sign(key, "ES256", claims, {"kid": "ES256"}))


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"role": None}, "role names no role"),
        ({"role": "root"}, "role names no role of Bucket: reader, integrator"),
        ({"role": ["root"]}, "role names no role"),
        ({"role": {"reader": True}}, "role names no role"),
        ({"role": ["reader", "admin"]}, "role names 2 roles"),
        ({"integrator": None}, "integrator does not name one"),
        ({"integrator": "a b"}, "integrator does not name one"),
        ({"integrator": ["acme", "globex"]}, "integrator does not name one"),
        ({"integrator": "acme\n"}, "integrator does not name one"),
        ({"role": "admin", "integrator": None}, "integrator does not name one"),
        ({"payloads": "yes"}, "payloads is neither true nor false"),
    ],
)
def test_a_valid_token_without_a_role_or_an_integrator_is_forbidden(
    verifier: JwtVerifier, issuer: TokenIssuer, claims: Mapping[str, Any], words: str
) -> None:
    assert words in refusal(verifier, issuer.token("ES256", NOW_S, **claims), Forbidden)


def test_claims_may_be_nested_or_have_dots_and_roles_of_others_do_not_count(
    issuer: TokenIssuer, tmp_path: Path
) -> None:
    verifier = make_verifier(
        issuer, tmp_path, jwt_role_claim="realm_access.roles", jwt_integrator_claim="https://a.example/integrator"
    )
    roles = {"realm_access": {"roles": ["offline_access", "author", "author"]}}
    token = issuer.token("RS256", NOW_S, **roles, **{"https://a.example/integrator": ["globex"]})
    caller = verifier.verify(token, NOW)
    assert (caller.role, caller.integrator) == (Role.AUTHOR, "globex")
    for wrong in ([], "author", None):
        token = issuer.token("RS256", NOW_S, realm_access=wrong, **{"https://a.example/integrator": "globex"})
        refusal(verifier, token, Forbidden)


def test_a_subject_is_printable_and_stays_unique_if_it_is_long(verifier: JwtVerifier, issuer: TokenIssuer) -> None:
    def subject(text: str) -> str:
        return verifier.verify(issuer.token("EdDSA", NOW_S, sub=text), NOW).subject

    assert subject("a\nb\x00") == "token:a\\nb\\x00"
    first, second = subject("a" * 500 + "1"), subject("a" * 500 + "2")
    assert first != second
    assert len(first) == len("token:") + 128


def test_a_token_without_a_key_id_is_taken_if_one_key_alone_can_be_meant(issuer: TokenIssuer, tmp_path: Path) -> None:
    algorithm, key = issuer.private_keys["ES256"]
    path = tmp_path / "one.json"
    settings = Settings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_jwks=str(path))
    path.write_text(json.dumps({"keys": [public_jwk(key, None, algorithm)]}), encoding="utf-8")
    token = sign(key, algorithm, claims_at(NOW_S), {})
    assert open_verifier(settings).verify(token, NOW)
    several = [public_jwk(key, None, algorithm), public_jwk(STRANGER[algorithm], "b", algorithm)]
    path.write_text(json.dumps({"keys": several}), encoding="utf-8")
    assert "names no key" in refusal(open_verifier(settings), token)


def test_keys_that_cannot_be_used_are_left_out_and_named(issuer: TokenIssuer) -> None:
    weak = public_jwk(rsa.generate_private_key(65_537, 1_024), "weak", "RS256")  # noqa: S505 -- it is to be refused
    good = public_jwk(STRANGER["ES256"], "good", "ES256")
    others: list[Any] = [
        7, {}, {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}, weak, {**good, "use": "enc"}, {**good, "kid": 1},
        {**good, "x": "AA"}, {**good, "alg": "HS256"}, {**good, "kty": ["EC"], "crv": {}}, good,
    ]  # fmt: skip
    keys = parse_key_set(json.dumps({"keys": [good, *others]}).encode(), KINDS)
    assert set(keys.by_id) == {("good", "ES256")}
    assert len(keys.unusable) == len(others)
    assert "key 5: it has less than 2048 bits" in keys.unusable
    assert "key 6: it is not for signatures" in keys.unusable
    assert "key 11: an earlier key has the same kid" in keys.unusable


def test_a_private_key_in_the_set_is_read_as_its_public_part(issuer: TokenIssuer, tmp_path: Path) -> None:
    jwk = public_jwk(STRANGER["ES256"], "p", "ES256")
    private = {**jwk, "d": "A" * 43}
    path = tmp_path / "private.json"
    path.write_text(json.dumps({"keys": [private]}), encoding="utf-8")
    verifier = open_verifier(Settings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_jwks=str(path)))
    assert verifier.verify(sign(STRANGER["ES256"], "ES256", claims_at(NOW_S), {"kid": "p"}), NOW)


@pytest.mark.parametrize(
    "raw",
    [b"", b"<html>", b"[]", b'{"keys": {}}', b'{"keys": []}', b"[" * 5_000, b'{"keys": [' + b"{}," * 100 + b"{}]}"],
)
def test_what_is_no_key_set_is_not_taken_and_as_a_file_stops_the_start(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises(KeySetNotValid):
        parse_key_set(raw, KINDS)
    path = tmp_path / "jwks.json"
    path.write_bytes(raw)
    with pytest.raises(SettingsError, match="BUCKET_JWT_JWKS="):
        open_verifier(Settings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_jwks=str(path)))
    with pytest.raises(SettingsError, match="is no file"):
        open_verifier(Settings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_jwks=str(tmp_path)))
