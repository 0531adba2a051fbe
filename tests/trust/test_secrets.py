"""After a run with keys, failed log-ins and errors, no secret stands in anything that was written."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from tests.api_client import AGENTS
from tests.stack import Stack
from tests.trust.secret_run import SETTINGS, SecretRun
from tests.trust.secret_scan import SecretScan

SEED = 3
PLANTED = "planted-0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), **SETTINGS)


@pytest.fixture
def scan(stack: Stack) -> Callable[[SecretScan], SecretScan]:
    def search(scan: SecretScan) -> SecretScan:
        scan.search_files(stack.root)
        scan.search_mongo(stack.mongodb_url)
        scan.search_redis(stack.redis_url)
        return scan

    return search


def test_no_secret_is_written_anywhere(stack: Stack, scan: Callable[[SecretScan], SecretScan]) -> None:
    secrets = SecretScan()
    SecretRun(stack, secrets, SEED).play()
    scan(secrets)
    assert not secrets.found, "\n".join(secrets.found[:20])
    assert {"file", "mongodb", "redis", "reply", "command"} <= secrets.scanned.keys()
    assert "request" in stack.logs("api"), "the API has logged nothing, so its log was not tested"


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
