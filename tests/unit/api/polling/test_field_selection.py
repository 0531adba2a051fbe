"""Sparse fields of a poll: the same log lines from the view in Redis as from MongoDB, and only the selected fields."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import flask
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.hints.poll_hints import PollHints
from api.polling.field_selection import (
    ALWAYS_INCLUDED,
    FIELD_NAMES,
    FULL_SELECTION,
    FieldSelection,
    has_newer_lines,
    parse_field_selection,
)
from shared.domain.access.caller import LOCAL_CALLER
from shared.domain.execution import NEWEST_LOG_LINES, ExecutionRecord, LogEvent, LogPageQuery
from shared.errors import ValidationFailed
from shared.live.render import render
from shared.live.view_trailer import split_trailer
from tests.builders import NOON, accept_decision

app = flask.Flask(__name__)
PAGES = st.builds(LogPageQuery, after=st.none() | st.integers(0, 260), limit=st.integers(1, 260))


def record_of(total: int, dropped: int) -> ExecutionRecord:
    """Return a run with a log of ``total`` lines, of which the first ``dropped`` are gone."""
    events = tuple(LogEvent(NOON, "agent.log", f"line {seq}") for seq in range(dropped + 1, total + 1))
    return replace(accept_decision().initial_record, events=events, lines_total=total)


def parse_poll(record: ExecutionRecord, page: LogPageQuery = NEWEST_LOG_LINES) -> dict[str, Any]:
    """Return a poll as a client would parse it."""
    view, _ = split_trailer(render(record, page) or b"")
    poll: dict[str, Any] = orjson.loads(view + PollHints(500, None).json_suffix)
    return poll


@given(st.integers(0, 250), st.integers(0, 250), PAGES)
def test_a_page_from_the_view_is_the_page_from_mongodb(total: int, dropped: int, page: LogPageQuery) -> None:
    record = record_of(total, min(dropped, total))
    whole = parse_poll(record, page)
    paged = parse_poll(record.with_log_page(page), page)
    assert paged == whole, "a record with only the page renders alike"
    selected = FieldSelection(page).select_from_newest(parse_poll(record))
    in_view = record.lines_total - len(parse_poll(record)["logs"]) + 1
    if selected is None:
        assert in_view > record.first_seq, "the view has every line that is kept"
        assert whole["count"] == 0 or whole["logs"][0]["seq"] < in_view
    else:
        assert orjson.loads(selected) == whole


@given(st.integers(0, 250), st.integers(0, 150), st.integers(1, 40), st.integers(0, 250))
def test_pages_from_any_start_are_the_rest_of_the_log(total: int, dropped: int, limit: int, start: int) -> None:
    record = record_of(total, min(dropped, max(total - 1, 0)))  # the newest is always kept
    sequence_numbers, after, gaps = [], start, []
    while (page := parse_poll(record, LogPageQuery(after, limit)))["count"]:
        sequence_numbers += [line["seq"] for line in page["logs"]]
        gaps.append(page["gap"])
        assert page["gap"] is (after + 1 < page["first_seq"])
        after = page["next_after"]
    assert sequence_numbers == list(range(max(start + 1, record.first_seq), total + 1))
    assert not any(gaps[1:]), "a gap is reported once, on its page"
    assert has_newer_lines(page, LogPageQuery(after)) is False


def test_the_field_names_are_those_of_a_poll() -> None:
    # of runs with a reference or a trace, where retention is set, and of erased runs
    optional = {"reference", "traceparent", "expires_at", "erased_at"}
    assert {*parse_poll(record_of(1, 0), LogPageQuery(0))} == {*FIELD_NAMES} - optional
    assert len(FIELD_NAMES) == len({*FIELD_NAMES})


@pytest.mark.parametrize(
    ("fields", "more"),
    [("status", set()), ("progress", {"progress"}), (" result , outputs ", {"result", "outputs"}), ("rev,rev", set()),
     ("poll_after_ms,waiting_for", {"poll_after_ms", "waiting_for"})],
)  # fmt: skip
def test_a_reply_has_the_selected_fields_and_four_that_are_always_there(fields: str, more: set[str]) -> None:
    with app.test_request_context(query_string={"fields": fields}):
        selected = parse_field_selection(LOCAL_CALLER).select_from_newest(parse_poll(record_of(3, 0)))
    assert selected is not None
    assert {*orjson.loads(selected)} == {*ALWAYS_INCLUDED} | more
    assert tuple(orjson.loads(selected))[:4] == ALWAYS_INCLUDED


def test_a_caller_that_selects_logs_gets_the_gap_too() -> None:
    with app.test_request_context(query_string={"fields": "logs", "after": "2"}):
        selected = parse_field_selection(LOCAL_CALLER).select_from_newest(parse_poll(record_of(20, 10)))
    assert orjson.loads(selected or b"")["gap"] is True


@pytest.mark.parametrize(
    "fields", ["", " ", ",", "status,", "status,,done", "Status", "$where", "status;done", "x" * 9_000]
)
def test_an_unknown_field_is_refused_with_the_known_ones(fields: str) -> None:
    with app.test_request_context(query_string={"fields": fields}), pytest.raises(ValidationFailed) as refused:
        parse_field_selection(LOCAL_CALLER)
    assert refused.value.details[0]["parameter"] == "fields"
    assert "poll_after_ms" in refused.value.message
    assert len(refused.value.message) < 700


def test_unknown_parameters_and_none_are_a_whole_poll() -> None:
    for query in ("", "x=1", "page=2&_=3"):
        with app.test_request_context(query_string=query):
            assert parse_field_selection(LOCAL_CALLER).is_all
    assert FULL_SELECTION.is_all
