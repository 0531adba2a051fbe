"""When the signing keys of an issuer are read, from a real HTTP server or a file, and what goes on while it is away."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from api.auth.tokens.key_set_client import KeySetClient
from api.auth.tokens.signing_key_source import WAITING_MAX, SigningKeySource, open_source
from api.auth.tokens.signing_keys import KeySetNotRead, SigningKeys, parse_key_set
from api.auth.tokens.token_verifier import JwtVerifier
from shared.errors import Unauthenticated
from shared.settings import Settings
from tests.provider_stub import Reply
from tests.tls_proxy import Authority
from tests.token_issuer import AUDIENCE, ISSUER, KINDS, TokenIssuer
from tests.waiting import wait_until

Run = Callable[[SigningKeySource], None]
MakeSource = Callable[..., SigningKeySource]
NEVER_S = 3_600.0


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    with TokenIssuer() as issuer:
        yield issuer


@pytest.fixture
def run() -> Iterator[Run]:
    """Yield a function that keeps reading a source in the background until the test ends."""
    has_ended = threading.Event()

    def repeat(source: SigningKeySource) -> None:
        while not has_ended.is_set():
            source.refresh()
            source.pause()

    yield lambda source: threading.Thread(target=repeat, args=(source,), daemon=True).start()
    has_ended.set()


@pytest.fixture
def running(issuer: TokenIssuer, run: Run) -> MakeSource:
    """Return a function that makes a source which is read from the server of ``issuer``."""

    def make(*, every_s: float = NEVER_S, again_after_s: float = 0.05) -> SigningKeySource:
        source = SigningKeySource(KeySetClient(issuer.url).fetch, KINDS, every_s=every_s, again_after_s=again_after_s)
        run(source)
        return source

    return make


def ids(keys: SigningKeys | None) -> set[str | None]:
    return set() if keys is None else {key_id for key_id, _ in keys.by_id}


def test_a_rotated_key_is_found_by_the_first_token_that_names_it(issuer: TokenIssuer, running: MakeSource) -> None:
    source = running()
    wait_until(lambda: ids(source.keys) == set(KINDS), 10, "the keys were fetched")
    settings = Settings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_jwks=issuer.url)
    verifier, now = JwtVerifier(source, settings), datetime(2040, 1, 1, tzinfo=UTC)
    old = issuer.token("ES256", now.timestamp())
    assert verifier.verify(old, now)
    issuer.rotate("ES256", "second")
    time.sleep(0.05)  # so long ago is the last fetch
    assert verifier.verify(issuer.token("second", now.timestamp()), now)
    with pytest.raises(Unauthenticated, match="names a key that is not known"):
        verifier.verify(old, now)  # though it was verified before


def test_unknown_keys_make_one_fetch_in_a_while_however_many_there_are(
    issuer: TokenIssuer, running: MakeSource
) -> None:
    source = running(again_after_s=NEVER_S)
    wait_until(lambda: source.keys is not None, 10, "the keys were fetched")
    with ThreadPoolExecutor(20) as callers:
        list(callers.map(source.read_again, [source.keys] * 500))
    assert issuer.fetches == 1, "the fetch at the start was not long enough ago"


def test_callers_of_unknown_keys_share_the_fetch_that_is_under_way_and_few_wait_for_it(
    issuer: TokenIssuer, run: Run
) -> None:
    release, asked = threading.Event(), threading.Event()

    def read() -> bytes:
        asked.set()
        release.wait(10)
        return KeySetClient(issuer.url).fetch()

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


def test_an_issuer_that_hangs_holds_a_request_for_a_moment_only(issuer: TokenIssuer, run: Run) -> None:
    release = threading.Event()

    def read() -> bytes:
        release.wait(60)
        raise KeySetNotRead("a test has ended it")

    source = SigningKeySource(read, KINDS, every_s=NEVER_S, again_after_s=0.01)
    run(source)
    assert source.read_again(None) is None
    release.set()


def test_an_issuer_that_is_away_at_the_start_is_found_later(issuer: TokenIssuer, running: MakeSource) -> None:
    issuer.server.stop()
    source = running()
    wait_until(lambda: source.fault, 10, "the fetch has failed")
    assert source.keys is None
    issuer.server.start()
    wait_until(lambda: ids(source.keys) == set(KINDS), 10, "the keys were fetched")


def test_the_known_keys_go_on_while_the_issuer_is_away_or_talks_nonsense(
    issuer: TokenIssuer, running: MakeSource
) -> None:
    source = running()
    wait_until(lambda: source.keys is not None, 10, "the keys were fetched")
    known = source.keys
    issuer.server.stop()
    wait_until(lambda: source.read_again(known) and source.fault, 10, "a fetch has failed")
    issuer.server.start()
    issuer.server.reply("/jwks", lambda _: Reply(body={"keys": []}))
    wait_until(lambda: source.read_again(known) and "no key" in source.fault, 10, "the set is empty")
    assert source.keys is known


def test_the_same_key_set_again_keeps_the_same_keys(issuer: TokenIssuer, running: MakeSource) -> None:
    source = running(every_s=0.01)
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
        KeySetClient(issuer.server.url + path).fetch(within_s=0.5)
    assert issuer.server.count("/json") == 0


def test_a_certificate_must_be_trusted(issuer: TokenIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority.make(tmp_path / "authority")
    with tls_server(authority, json.dumps(issuer.key_set()).encode()) as url:
        with pytest.raises(KeySetNotRead, match="CERTIFICATE_VERIFY_FAILED"):
            KeySetClient(url).fetch()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        assert ids(parse_key_set(KeySetClient(url).fetch(), KINDS)) == set(KINDS)


@contextmanager
def tls_server(authority: Authority, body: bytes) -> Iterator[str]:
    """Serve ``body`` over TLS on a port of localhost; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Print nothing: one client breaks off on purpose."""

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.localhost, authority.localhost_key)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"https://localhost:{server.server_port}/jwks"
        server.shutdown()


def test_a_file_is_read_again_when_it_has_changed_and_a_broken_one_changes_nothing(
    issuer: TokenIssuer, tmp_path: Path, run: Run
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
