"""Tokens of an outside issuer over HTTP, with a real server as issuer: who gets in, and what each refusal says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from shared.bootstrap import Services, bootstrap
from shared.errors import SettingsError
from shared.settings import Settings
from tests.token_issuer import AUDIENCE, ISSUER, TokenIssuer, unsigned
from tests.waiting import wait_until


class Api:
    """The API in this process, with its background threads."""

    def __init__(self, services: Services, issuer: TokenIssuer) -> None:
        self.services, self.issuer = services, issuer
        app, start = create_app(services)
        self.client: FlaskClient = app.test_client()
        self.end = start()

    def token(self, key_id: str = "ES256", **claims: Any) -> str:
        return self.issuer.token(key_id, self.services.clock.now().timestamp(), **claims)

    def call(self, token: str, path: str = "/me", method: str = "GET", **more: Any) -> TestResponse:
        return self.client.open(path, method=method, headers={"Authorization": f"Bearer {token}"}, **more)


@contextmanager
def api_of(settings: Settings, issuer: TokenIssuer) -> Iterator[Api]:
    services = bootstrap(settings, "api")
    with closing(services.redis), closing(services.database):
        api = Api(services, issuer)
        try:
            yield api
        finally:
            api.end()


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    with TokenIssuer() as issuer:
        yield issuer


@pytest.fixture
def settings(issuer: TokenIssuer, redis_url: str, mongodb_url: str) -> Settings:
    return Settings(
        redis_url=redis_url,
        mongodb_url=mongodb_url,
        auth="required",
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_jwks=issuer.url,
    )


@pytest.fixture
def api(settings: Settings, issuer: TokenIssuer) -> Iterator[Api]:
    with api_of(settings, issuer) as api:
        wait_until(lambda: api.call(api.token()).status_code == 200, 10, "tokens are taken")
        yield api


def test_a_token_has_the_rights_of_its_role_within_its_integrator(api: Api) -> None:
    for key_id in ("RS256", "ES256", "EdDSA"):
        me = api.call(api.token(key_id, role="integrator", integrator="globex", sub="ada@example.com")).json
        assert (me["subject"], me["role"], me["integrator"]) == ("token:ada@example.com", "integrator", "globex")
        assert (me["key_id"], me["payloads"]) == (None, True)
    body = {"basket_name": "working_test"}
    assert api.call(api.token(role="integrator"), "/run-basket", "POST", json=body).status_code == 202
    refused = api.call(api.token(role="reader"), "/run-basket", "POST", json=body)
    assert (refused.status_code, refused.json["error_code"]) == (403, "forbidden")
    assert api.call(api.token(role="operator"), "/keys").status_code == 403
    assert api.call(api.token(role="admin"), "/keys").status_code == 200


def test_a_refused_token_is_a_401_with_a_challenge_and_stands_in_no_reply_and_no_log(
    api: Api, capfd: pytest.CaptureFixture[str]
) -> None:
    now_s = api.services.clock.now().timestamp()
    refused = {
        "has expired": api.issuer.token("ES256", now_s - 3_600),
        "another audience": api.token(aud="other"),
        "another issuer": api.token(iss="https://elsewhere.example"),
        "a key that is not known": api.issuer.token("ES256", now_s, headers={"kid": "invented"}),
        "BUCKET_JWT_ALGORITHMS": unsigned({"alg": "none"}, {"sub": "ada"}),
        "neither a key of Bucket": "a.b.c",
    }
    for words, token in refused.items():
        reply = api.call(token)
        assert (reply.status_code, reply.json["error_code"]) == (401, "unauthenticated")
        assert words in reply.json["detail"]
        assert reply.headers["WWW-Authenticate"] == 'Bearer realm="bucket", error="invalid_token"'
        assert token not in reply.get_data(as_text=True)
    written = "".join(capfd.readouterr())
    assert not any(part in written for token in refused.values() for part in token.split(".") if len(part) > 8)


def test_a_valid_token_without_a_role_or_an_integrator_is_a_403_that_names_the_claim(api: Api) -> None:
    for claim in ("role", "integrator"):
        reply = api.call(api.token(**{claim: None}))
        assert (reply.status_code, reply.json["error_code"]) == (403, "forbidden")
        assert f"its claim {claim} " in reply.json["detail"]
        assert "WWW-Authenticate" not in reply.headers


def test_a_token_whose_claims_are_refused_is_an_event_of_nobody_s_integrator(api: Api) -> None:
    """An auditor of the integrator ``public`` has nothing to do with who came with another's token."""
    assert api.call(api.token(role="nobody"), "/run-basket", "POST", json={}).status_code == 403
    reply = api.call(api.token(role="admin"), "/audit?action=auth.denied")
    assert [(each["subject"], each["integrator"]) for each in reply.json["events"]] == [("anonymous", None)]


def test_without_the_issuer_the_api_starts_and_says_that_no_token_can_be_checked_yet(
    settings: Settings, issuer: TokenIssuer
) -> None:
    issuer.server.stop()
    with api_of(settings, issuer) as api:
        reply = api.call(api.token())
        assert (reply.status_code, reply.json["error_code"]) == (503, "unavailable")
        assert "no key of the token issuer" in reply.json["detail"]
        assert api.call("no.token.this").status_code == 401, "that needs no key"
        assert api.client.get("/ready").status_code in {200, 503}


def test_a_file_of_keys_serves_at_once_and_a_wrong_one_stops_the_start(
    settings: Settings, issuer: TokenIssuer, tmp_path: Path
) -> None:
    of_file = replace(settings, jwt_jwks=str(issuer.write(tmp_path / "jwks.json")))
    with api_of(of_file, issuer) as api:
        assert api.call(api.token()).status_code == 200
    with pytest.raises(SettingsError, match="BUCKET_JWT_JWKS="), api_of(replace(of_file, jwt_jwks="/no/file"), issuer):
        pass


def test_without_authentication_no_key_is_fetched(settings: Settings, issuer: TokenIssuer) -> None:
    with api_of(replace(settings, auth="off"), issuer) as api:
        assert api.call("whatever").json["role"] == "admin"
    assert issuer.fetches == 0
