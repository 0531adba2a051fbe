"""Wait preference of a long poll: by the query, or by the Prefer header of RFC 7240."""

from __future__ import annotations

import flask
import pytest

from api.http.wait_preference import WaitPreference, parse_prefer_header, parse_wait_preference
from shared.errors import ValidationFailed

app = flask.Flask(__name__)


def parse(query: str = "", prefer: str | None = None) -> WaitPreference:
    environ = {} if prefer is None else {"HTTP_PREFER": prefer}
    with app.test_request_context(query_string=query, environ_overrides=environ):
        return parse_wait_preference()


@pytest.mark.parametrize(
    ("query", "seconds"),
    [("wait=10", 10), ("wait=0", 0), ("wait=0.25", 0.25), ("wait=30", 30), ("wait=31", 30), ("wait=" + "9" * 400, 30),
     ("wait=1e3", 30), ("wait=2.5E-1", 0.25), ("wait=1e%2B300", 30), ("wait=1e-300", 1e-300),
     ("wait=007", 7), ("wait=30.0001", 30), ("", 0), ("page=3", 0)],
)  # fmt: skip
def test_the_query_says_seconds_and_over_30_counts_as_30(query: str, seconds: float) -> None:
    assert parse(query) == WaitPreference(seconds)


@pytest.mark.parametrize(
    "wait",
    ["", "-1", "+1", "1e", "1e1000", "nan", "inf", "ten", "1,5", " 1", "1s", ".5", "5.", "٣", "1" * 401, "0x10", "1;2"],
)
def test_a_malformed_wait_is_refused(wait: str) -> None:
    with (
        app.test_request_context(query_string={"wait": wait}, headers={"Prefer": "wait=5"}),
        pytest.raises(ValidationFailed) as refused,
    ):
        parse_wait_preference()
    assert refused.value.details[0]["parameter"] == "wait"


def test_until_is_done_or_refused() -> None:
    assert parse("wait=5&until=done") == WaitPreference(5, until_done=True)
    assert parse("until=done", "wait=5") == WaitPreference(5, until_done=True, is_from_prefer=True)
    for until in ("", "Done", "change", "completed"):
        with pytest.raises(ValidationFailed) as refused:
            parse(f"until={until}")
        assert refused.value.details[0]["parameter"] == "until"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=10", 10),
        ("Wait=10", 10),
        ("WAIT = 10", 10),
        ('wait="10"', 10),
        ("wait=010", 10),
        ("wait=31", 30),
        ("wait=" + "9" * 8_000, 30),
        ("respond-async, wait=10", 10),
        ("wait=10, respond-async", 10),
        ('foo="a, wait=3", wait=10', 10),
        ('foo; bar="x;y", wait=10', 10),
        ("wait=10; foo=bar", 10),
        ("wait=10;foo", 10),
        ("wait=10, wait=20", 10),
        (",,wait=10,,", 10),
        ("\twait=10\t", 10),
        ('return="minimal"; a=b, handling=lenient,wait=10', 10),
    ],
)
def test_a_preference_is_read_as_rfc_7240_writes_it(header: str, seconds: float) -> None:
    preference = parse(prefer=header)
    assert preference == WaitPreference(seconds, is_from_prefer=True)
    with app.test_request_context():
        assert (
            preference.mark_applied(flask.Response(), is_granted=True).headers["Preference-Applied"]
            == f"wait={seconds}"
        )
        assert "Preference-Applied" not in preference.mark_applied(flask.Response(), is_granted=False).headers


@pytest.mark.parametrize(
    "header",
    ["", "wait", "wait=", 'wait=""', "wait=-1", "wait=1.5", "wait=ten", "wait=1e3", "wait=٣", '"wait=10"', "wait=0",
     "await=10", "wait 10", "wait=10 20", 'wait="10', "wait==10", ";wait=10", "foo;wait=10", "\xff\xfe", '"' * 999,
     "x" * 8_000, ";;;;" * 2_000, "a=" * 4_000, '\\"' * 4_000, "wait=x, wait=10"],
)  # fmt: skip
def test_a_malformed_preference_is_ignored(header: str) -> None:
    assert parse(prefer=header) == WaitPreference()


def test_the_query_wins_over_the_header_and_is_no_preference() -> None:
    assert parse("wait=0", "wait=10") == WaitPreference()
    assert parse("wait=3", "wait=10") == WaitPreference(3)
    assert parse("fields=status", "wait=10") == WaitPreference(10, is_from_prefer=True)
    with app.test_request_context(query_string="wait=3", headers={"Prefer": "wait=10"}):
        assert parse_prefer_header() == WaitPreference(10, is_from_prefer=True), "a submit ignores the query"
