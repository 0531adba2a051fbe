"""After a run with keys, tokens, marked fields and errors, no secret stands in anything that was written or replied."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

import pytest

from shared.domain.access.caller import Role
from shared.domain.access.key_format import new_key
from tests.api_client import AGENTS
from tests.stack import Stack
from tests.token_issuer import TokenIssuer
from tests.trust.party import key_service, make_credential
from tests.trust.recorded_calls import RecordedCalls
from tests.trust.secret_run import PEPPER, SETTINGS, SecretRun
from tests.trust.secret_scan import SecretScan
from tests.trust.secret_tokens import token_settings

SEED = 3
PLANTED = "planted-0123456789abcdefghijklmnopqrstuvwxyz"
SHOWN = "shown-by-the-product-9876543210"


@pytest.fixture(scope="module")
def issuer() -> Iterator[TokenIssuer]:
    with TokenIssuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], issuer: TokenIssuer) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), **SETTINGS, **token_settings(issuer))


@pytest.fixture
def scan(stack: Stack) -> Callable[[SecretScan], SecretScan]:
    def search(scan: SecretScan) -> SecretScan:
        scan.search_files(stack.root)
        scan.search_mongo(stack.mongodb_url)
        scan.search_redis(stack.redis_url)
        return scan

    return search


def test_no_secret_is_written_anywhere(
    stack: Stack, issuer: TokenIssuer, scan: Callable[[SecretScan], SecretScan]
) -> None:
    secrets = SecretScan()
    run = SecretRun(stack, secrets, issuer, SEED)
    run.play()
    scan(secrets)
    assert not secrets.found, "\n".join(secrets.found[:20])
    assert {"file", "mongodb", "redis", "reply", "command"} <= secrets.scanned.keys()
    assert {200, 201, 202, 400, 401, 403, 404, 409, 415, 429} <= run.calls.statuses
    assert {"key.create", "execution.submit", "execution.retry", "auth.failed", "auth.denied"} <= run.calls.actions
    assert "execution.read_payload" in run.calls.actions
    assert "request" in stack.logs("api"), "the API has logged nothing, so its log was not tested"


def test_the_scan_looks_wherever_the_product_writes_and_replies(
    stack: Stack, scan: Callable[[SecretScan], SecretScan]
) -> None:
    secrets = SecretScan()
    with key_service(stack, key_pepper=PEPPER) as keys:
        calls = RecordedCalls(stack, secrets, make_credential(keys, Role.ADMIN, "planted").key or "")
    secrets.add("shown", SHOWN)
    calls.call("POST", "/keys", {"role": "reader", "integrator": "planted", "name": SHOWN})
    calls.call("POST", "/create-basket", {"name": SHOWN, "agents": ["teller"]})
    run = calls.call("POST", "/run-basket", {"basket_name": SHOWN, "input_data": {}})
    calls.call("GET", f"/executions/{run['execution_id']}?wait=15&until=done")
    calls.call("GET", f"/baskets/{SHOWN}")
    calls.read_everything()
    calls.search()
    scan(secrets)
    for place in (
        "reply GET /keys", "reply GET /audit", "reply GET /metrics", "command bucketd audit export", "file api.log",
        "mongodb bucket.audit", "mongodb bucket.executions", "redis",
    ):  # fmt: skip
        assert any(f" in {place}" in each for each in secrets.found), f"it does not look at {place}"


@pytest.mark.parametrize("place", ["log", "mongodb", "redis", "cut", "base64"])
def test_the_scan_finds_a_secret(stack: Stack, place: str, scan: Callable[[SecretScan], SecretScan]) -> None:
    secrets = SecretScan()
    secrets.add("planted", PLANTED)
    log = stack.root / "planted.log"
    if place == "log":
        log.write_text(f"Authorization: Bearer {PLANTED}\n")
    elif place == "cut":
        log.write_text(f"Authorization: Bearer {PLANTED[:20]}\n")
    elif place == "base64":
        log.write_bytes(base64.b64encode(f"someone:{PLANTED}:".encode()))
    elif place == "mongodb":
        stack.mongo()["planted"].insert_one({"deep": [{"within": f"x{PLANTED}"}]})
    else:
        stack.redis().hset("planted", "field", PLANTED)
    assert scan(secrets).found
    log.unlink(missing_ok=True)
    stack.mongo()["planted"].drop()
    stack.redis().delete("planted")


def test_the_scan_finds_each_kind_of_secret_and_each_part_of_a_token(issuer: TokenIssuer) -> None:
    key, token, pin = new_key()[0], issuer.token("ES256", 1_796_000_000), "pin-00112233445566778899"
    secrets = SecretScan()
    secrets.add_key("a key", key)
    secrets.add_token("a token", token)
    secrets.add("a marked field", pin)
    _, claims, signature = token.split(".")
    for name, text in {
        "a key": key, "a token": token, "the claims of a token": claims, "the signature of a token": signature,
        "a marked field": pin,
    }.items():  # fmt: skip
        secrets.found.clear()
        secrets.search("text", f"before {text} after".encode())
        assert any(each.startswith(f"{name} in text") for each in secrets.found), name
    secrets.found.clear()
    secrets.search("text", b"a text without any of them")
    assert not secrets.found
