"""When the signing keys of an issuer are read, from a real HTTP server or a file, and what goes on while it is away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.auth.key_set_client import fetch_key_set
from api.auth.signing_key_source import WAITING_MAX, SigningKeySource, open_source
from api.auth.signing_keys import KeySetNotRead, SigningKeys
from tests.provider_stub import Reply
from tests.token_issuer import KINDS, TokenIssuer
from tests.waiting import wait_until

NEVER_S = 3_600.0


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    with TokenIssuer() as issuer:
        yield issuer


def running(issuer: TokenIssuer, *, every_s: float = NEVER_S, again_after_s: float = 0.05) -> SigningKeySource:
    """Return a source that a thread keeps reading from the server of ``issuer``."""
    url = issuer.url
    source = SigningKeySource(lambda: fetch_key_set(url), KINDS, every_s=every_s, again_after_s=again_after_s)
    run(source)
    return source


def run(source: SigningKeySource) -> None:
    def repeat() -> None:
        while True:
            source.refresh()
            source.pause()

    threading.Thread(target=repeat, daemon=True).start()


def ids(keys: SigningKeys | None) -> set[str | None]:
    return set() if keys is None else {key_id for key_id, _ in keys.by_id}


def ask_until_known(source: SigningKeySource, key_id: str) -> None:
    wait_until(lambda: key_id in ids(source.read_again(source.keys)), 10, f"{key_id} is known")


def test_a_rotated_key_is_found_by_the_first_token_that_names_it(issuer: TokenIssuer) -> None:
    source = running(issuer)
    wait_until(lambda: ids(source.keys) == set(KINDS), 10, "the keys were fetched")
    issuer.rotate("ES256", "second")
    ask_until_known(source, "second")
    assert ids(source.keys) == {"RS256", "EdDSA", "second"}, "the old one is no longer known"


def test_unknown_keys_make_one_fetch_in_a_while_however_many_there_are(issuer: TokenIssuer) -> None:
    source = running(issuer, again_after_s=NEVER_S)
    wait_until(lambda: source.keys is not None, 10, "the keys were fetched")
    with ThreadPoolExecutor(20) as callers:
        list(callers.map(source.read_again, [source.keys] * 500))
    assert issuer.fetches == 1, "the fetch at the start was not long enough ago"


def test_callers_of_unknown_keys_share_the_fetch_that_is_under_way_and_few_wait_for_it(issuer: TokenIssuer) -> None:
    release, asked = threading.Event(), threading.Event()

    def read() -> bytes:
        asked.set()
        release.wait(10)
        return fetch_key_set(issuer.url)

    source = SigningKeySource(read, KINDS, every_s=NEVER_S, again_after_s=0.01)
    run(source)
    assert asked.wait(10)
    with ThreadPoolExecutor(WAITING_MAX) as callers:
        waiting = [callers.submit(source.read_again, None) for _ in range(WAITING_MAX)]
        wait_until(lambda: source.waiting == WAITING_MAX, 10, "all of them wait")
        assert source.read_again(None) is None, "one more is not held"
        release.set()
        assert all(future.result() is not None for future in waiting)
    assert issuer.fetches == 1


def test_an_issuer_that_hangs_holds_a_request_for_a_moment_only(issuer: TokenIssuer) -> None:
    release = threading.Event()

    def read() -> bytes:
        release.wait(60)
        raise KeySetNotRead("a test has ended it")

    source = SigningKeySource(read, KINDS, every_s=NEVER_S, again_after_s=0.01)
    run(source)
    assert source.read_again(None) is None
    release.set()


def test_an_issuer_that_is_away_at_the_start_is_found_later(issuer: TokenIssuer) -> None:
    issuer.server.stop()
    source = running(issuer)
    wait_until(lambda: source.fault, 10, "the fetch has failed")
    assert source.keys is None
    issuer.server.start()
    wait_until(lambda: ids(source.keys) == set(KINDS), 10, "the keys were fetched")


def test_the_known_keys_go_on_while_the_issuer_is_away_or_talks_nonsense(issuer: TokenIssuer) -> None:
    source = running(issuer)
    wait_until(lambda: source.keys is not None, 10, "the keys were fetched")
    known = source.keys
    issuer.server.stop()
    wait_until(lambda: source.read_again(known) and source.fault, 10, "a fetch has failed")
    issuer.server.start()
    issuer.server.reply("/jwks", lambda _: Reply(body={"keys": []}))
    wait_until(lambda: source.read_again(known) and "no key" in source.fault, 10, "the set is empty")
    assert source.keys is known


def test_the_same_key_set_again_keeps_the_same_keys(issuer: TokenIssuer) -> None:
    source = running(issuer, every_s=0.01)
    wait_until(lambda: source.keys is not None, 10, "the keys were fetched")
    known = source.keys
    wait_until(lambda: issuer.fetches > 3, 10, "they were fetched again")
    assert source.keys is known, "verified tokens stay in the cache"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/status/500", "answered 500"),
        ("/status/404", "answered 404"),
        ("/redirect/302?to=/json", "is not followed"),
        ("/huge", "more than 262144 bytes"),
        ("/drip", "in time"),
        ("/slow/60", "ReadTimeout"),
        ("/reset", "Error"),
        ("/cut", "Error"),
        ("/garbage", "Error"),
    ],
)
def test_a_fetch_is_bounded_and_its_failure_says_what_happened(issuer: TokenIssuer, path: str, words: str) -> None:
    with pytest.raises(KeySetNotRead, match=words):
        fetch_key_set(issuer.server.url + path, within_s=0.5)
    assert issuer.server.count("/json") == 0


def test_a_file_is_read_again_when_it_has_changed_and_a_broken_one_changes_nothing(
    issuer: TokenIssuer, tmp_path: Path
) -> None:
    path = issuer.write(tmp_path / "jwks.json")
    source = open_source(str(path), KINDS)
    run(source)
    wait_until(lambda: ids(source.keys) == set(KINDS), 10, "the file was read")
    known = source.keys
    path.write_text("{", encoding="utf-8")
    wait_until(lambda: source.fault, 10, "the change was seen")
    assert source.keys is known
    issuer.rotate("EdDSA", "second")
    issuer.write(path)
    wait_until(lambda: "second" in ids(source.keys), 10, "the new file was read")
