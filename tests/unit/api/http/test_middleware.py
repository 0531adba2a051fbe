"""Middleware: what every request gets, on any route."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flask
import pytest
import structlog
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from api.http import middleware, problems
from shared.settings import Settings
from shared.telemetry.request_metrics import render_exposition
from tests.waiting import wait_until

ORIGIN = "https://app.example"


def client_of(settings: Settings) -> FlaskClient:
    app = flask.Flask(__name__, static_folder=None)
    middleware.register_middleware(app, settings)
    problems.register_error_handlers(app)
    app.add_url_rule("/thing", "thing", lambda: {"number": float("nan"), "big": 2**70}, methods=["GET", "POST"])
    app.add_url_rule("/execution-logs/<i>", "poll", lambda **_: flask.g.request_id)
    app.add_url_rule("/api/v1/execution-logs/<i>", "poll1", lambda **_: "")
    app.add_url_rule("/folder/", "folder", lambda: "x")
    app.add_url_rule("/context", "context", structlog.contextvars.get_contextvars)
    app.add_url_rule("/bad", "bad", lambda: 1 / 0)
    return app.test_client()


@pytest.fixture
def client() -> FlaskClient:
    return client_of(Settings())


@pytest.mark.parametrize("request_id", ["a", "A.b_c:d-1", "x" * 128])
def test_a_request_id_is_echoed(client: FlaskClient, request_id: str) -> None:
    response = client.get("/execution-logs/1", headers={"X-Request-ID": request_id})
    assert response.headers["X-Request-ID"] == request_id == response.text


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a\tb", "é", '"'])
def test_a_request_id_of_another_form_is_replaced(client: FlaskClient, request_id: str) -> None:
    generated = client.get("/thing", headers={"X-Request-ID": request_id}).headers["X-Request-ID"]
    assert re.fullmatch(r"req-[0-9a-f]{16}", generated)


def test_an_error_bears_the_requests_id_and_so_does_every_log_line_of_it(client: FlaskClient) -> None:
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        response = client.get("/bad", headers={"X-Request-ID": "r-1"})
    assert response.json["request_id"] == response.headers["X-Request-ID"] == "r-1"
    assert [(line["event"], line["request_id"]) for line in lines] == [("request.failed", "r-1"), ("request", "r-1")]
    assert isinstance(lines[0]["exc_info"], ZeroDivisionError)
    assert client.get("/nowhere", headers={"X-Request-ID": "r-2"}).json["request_id"] == "r-2"


def test_nothing_of_one_request_is_bound_in_the_next_or_after(client: FlaskClient) -> None:
    structlog.contextvars.bind_contextvars(left="over")
    assert client.get("/context", headers={"X-Request-ID": "r-3"}).json == {"request_id": "r-3"}
    assert structlog.contextvars.get_contextvars() == {}


def test_a_reply_never_fails_because_of_its_content(client: FlaskClient) -> None:
    response = client.get("/thing")
    assert response.json == {"number": None, "big": 2**70}
    assert response.mimetype == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/thing/", "/folder", "/nowhere/", "/execution-logs/1/", "/execution-logs//1"])
def test_a_slash_too_many_or_too_few_is_404_and_never_a_redirect(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json["error_code"]) == (404, "not_found")


def test_without_origins_there_is_no_cors(client: FlaskClient) -> None:
    response = client.options("/thing", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"})
    assert response.status_code == 200
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
    assert "Vary" not in response.headers


def test_a_listed_origin_may_read_and_is_named_in_the_reply() -> None:
    client = client_of(Settings(cors_origins=(ORIGIN, "https://other.example")))
    for path in ("/thing", "/nowhere"):
        response = client.get(path, headers={"Origin": ORIGIN})
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Origin" in response.headers["Vary"]
        exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
        assert exposed == [
            "ETag",
            "Location",
            "Retry-After",
            "Idempotency-Replayed",
            "Preference-Applied",
            "X-Request-ID",
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
            "RateLimit",
            "RateLimit-Policy",
        ]


@pytest.mark.parametrize("origin", [None, "null", ORIGIN + ".evil", "http://app.example", ORIGIN + "/"])
def test_another_origin_gets_no_cors_header_except_vary(origin: str | None) -> None:
    client = client_of(Settings(cors_origins=(ORIGIN,)))
    headers = {} if origin is None else {"Origin": origin}
    for response in (
        client.get("/thing", headers=headers),
        client.options("/thing", headers=headers | {"Access-Control-Request-Method": "POST"}),
    ):
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
        assert response.headers["Vary"] == "Origin"


def test_a_preflight_gets_the_methods_of_the_route() -> None:
    client = client_of(Settings(cors_origins=(ORIGIN,)))
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    response = client.options("/thing", headers=headers)
    assert (response.status_code, response.data) == (204, b"")
    assert set(response.headers["Access-Control-Allow-Methods"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert "Idempotency-Key" in response.headers["Access-Control-Allow-Headers"]
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert client.options("/nowhere", headers=headers).status_code == 404


def access_lines(client: FlaskClient, path: str) -> list[Any]:
    with capture_logs() as lines:
        client.get(path)
    return [(line["log_level"], line["route"], line["status"]) for line in lines if line["event"] == "request"]


def test_requests_are_logged_by_route_and_polls_only_at_debug_level(client: FlaskClient) -> None:
    assert access_lines(client, "/thing") == [("info", "/thing", 200)]
    assert access_lines(client, "/nowhere?secret=1") == [("info", "none", 404)]
    assert access_lines(client, "/execution-logs/1") == []
    assert access_lines(client, "/api/v1/execution-logs/1") == []
    debugging = client_of(Settings(log_level="DEBUG"))
    assert access_lines(debugging, "/execution-logs/1") == [("debug", "/execution-logs/<i>", 200)]


def test_requests_are_counted_by_route_and_never_by_path(client: FlaskClient) -> None:
    client.get("/execution-logs/once-only")
    client.get("/nowhere/once-only")
    text = render_exposition().decode()
    assert 'endpoint="/execution-logs/<i>"' in text
    assert 'endpoint="none"' in text
    assert "once-only" not in text


class Looks:
    """A background thread that counts its looks; ``gate`` lets it look."""

    def __init__(self, activity: middleware.RequestActivity) -> None:
        self.activity = activity
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()
        self.is_over = False

    def run(self) -> None:
        while not self.is_over:
            self.gate.wait()
            self.count += 1
            self.activity.pause(0.001)

    def rests(self) -> bool:
        return bool(self.activity._rests)


@contextmanager
def looking(looks: Looks) -> Iterator[None]:
    thread = threading.Thread(target=looks.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        looks.is_over = True
        looks.gate.set()
        looks.activity.count_requests(lambda *_: None)({}, None)
        thread.join(10)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    monkeypatch.setattr(middleware, "REST_AFTER_S", 0.01)
    monkeypatch.setattr(middleware, "REST_MAX_S", 60.0)
    return Looks(middleware.RequestActivity())


def serve(looks: Looks, work: Callable[[], Any]) -> Any:
    return looks.activity.count_requests(lambda *_: work())({}, None)


def test_the_first_request_after_a_rest_is_served_after_a_new_look(looks: Looks) -> None:
    with looking(looks):
        for _ in range(20):
            wait_until(looks.rests, what="the thread rests")
            before = looks.count
            assert serve(looks, lambda: looks.count) > before


def test_the_threads_do_not_rest_while_a_request_is_held(looks: Looks) -> None:
    def hold() -> None:
        begun_at = looks.count
        wait_until(lambda: looks.count > begun_at + 100, what="it goes on looking")
        assert not looks.rests()

    with looking(looks):
        serve(looks, hold)


def test_a_look_that_hangs_holds_up_only_the_first_requests(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    with looking(looks):
        wait_until(looks.rests, what="the thread rests")
        looks.gate.clear()
        monkeypatch.setattr(middleware, "LOOK_MAX_S", 0.01)
        serve(looks, lambda: None)
        monkeypatch.setattr(middleware, "LOOK_MAX_S", 60.0)
        serve(looks, lambda: None)  # would last a minute


def test_a_rest_ends_by_itself(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "REST_MAX_S", 0.01)
    with looking(looks):
        wait_until(looks.rests, what="the thread rests")
        before = looks.count
        wait_until(lambda: looks.count > before, what="it looks without a request")


def test_the_end_ends_a_rest_and_none_begins_after_it(looks: Looks) -> None:
    with looking(looks):
        wait_until(looks.rests, what="the thread rests")
        looks.activity.end()
        before = looks.count
        wait_until(lambda: looks.count > before + 20, what="its pauses are short ones")


def test_a_thread_that_waits_for_a_store_does_not_rest(looks: Looks) -> None:
    wait_until(lambda: not looks.activity.pause(0.02, may_rest=False), what="the pause is a short one")
    assert not looks.rests()
