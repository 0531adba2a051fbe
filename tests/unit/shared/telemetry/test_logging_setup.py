"""Log lines: JSON for our lines and the libraries' alike; writing one never breaks the caller."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from shared.domain.access.key_format import new_key
from shared.telemetry.logging_setup import FIELD_MAX_CHARS, configure_logging


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_our_lines_and_the_libraries_have_one_form() -> None:
    stream = io.StringIO()
    configure_logging("api", "INFO", stream=stream)
    structlog.contextvars.bind_contextvars(request_id="r-1")
    structlog.get_logger().info("request", status=200)
    logging.getLogger("celery.worker").warning("lost %s", "it")
    ours, theirs = lines(stream)
    assert ours | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "service": "api",
        "event": "request",
        "status": 200,
        "request_id": "r-1",
    }
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("lost it", "warning", "celery.worker")
    assert theirs["request_id"] == "r-1"
    for line in (ours, theirs):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line["timestamp"])


def test_a_traceback_is_one_field_of_one_line() -> None:
    stream = io.StringIO()
    configure_logging("worker", "INFO", stream=stream)
    try:
        int("why")
    except ValueError as wrong:
        structlog.get_logger().error("failed", exc_info=wrong)
        structlog.get_logger().exception("failed")
        logging.getLogger("x").exception("failed")
    for line in lines(stream):
        assert "ValueError: invalid literal" in line["exception"]
    assert len(lines(stream)) == 3


def test_lines_below_the_level_are_not_written_and_the_last_set_up_wins() -> None:
    stream = io.StringIO()
    log = structlog.get_logger()
    configure_logging("api", "INFO", stream=stream)
    configure_logging("api", "WARNING", stream=stream)
    log.info("no")
    logging.getLogger("x").info("no")
    log.warning("yes")
    logging.getLogger("x").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes", "yes"]


def test_warnings_are_log_lines() -> None:
    stream = io.StringIO()
    configure_logging("api", "INFO", stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", stacklevel=1)
    logging.captureWarnings(capture=False)
    assert "old" in lines(stream)[0]["event"]


class Hostile:
    """Raises an error when it is converted to text."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.mark.parametrize("value", [Hostile(), "\ud800", float("nan"), 2**70, {1: {2}}, b"\xff", [10**6000]])
def test_a_line_is_written_with_any_value(value: object) -> None:
    stream = io.StringIO()
    configure_logging("api", "INFO", stream=stream)
    structlog.get_logger().info("event", value=value)
    logging.getLogger("x").info("a %s", value)
    logging.getLogger("x").info("a %d", "word")
    assert len(lines(stream)) == 3


class Broken(io.StringIO):
    """A stdout whose reader has gone."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_a_broken_stdout_never_breaks_the_caller() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (Broken(), closed):
        configure_logging("api", "INFO", stream=stream)
        structlog.get_logger().info("event")
        logging.getLogger("x").info("event")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_lines_are_for_a_person() -> None:
    stream = Terminal()
    configure_logging("api", "INFO", stream=stream)
    structlog.get_logger().info("request", status=200)
    logging.getLogger("x").info("theirs")
    assert "request" in stream.getvalue()
    assert "theirs" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_a_text_of_ten_megabytes_is_cut_in_the_log() -> None:
    stream = io.StringIO()
    configure_logging("test", "INFO", stream=stream)
    try:
        raise ValueError("x" * 10_000_000)  # noqa: TRY301 - a traceback is what is tested
    except ValueError:
        structlog.get_logger().exception("the agent raised")
    (line,) = stream.getvalue().splitlines()
    assert len(line) < 2 * FIELD_MAX_CHARS
    exception = json.loads(line)["exception"]
    assert exception.startswith("Traceback")
    assert "characters) … xxx" in exception


@pytest.mark.parametrize("library", ["httpx2", "httpcore2", "urllib3", "pymongo", "kombu"])
def test_a_library_that_logs_whole_urls_is_quiet_below_a_warning(library: str) -> None:
    stream = io.StringIO()
    configure_logging("worker", "DEBUG", stream=stream)
    logging.getLogger(library).info("HTTP Request: GET https://rates.example/?key=k3y")
    logging.getLogger(f"{library}.http11").debug("send_request_headers")
    logging.getLogger(library).warning("told")
    assert [line["event"] for line in lines(stream)] == ["told"]


def test_the_secret_of_a_key_is_logged_by_nobody() -> None:
    stream = io.StringIO()
    configure_logging("api", "INFO", stream=stream)
    key, key_id = new_key()
    structlog.get_logger().info("by us", path=f"/keys/{key}")
    logging.getLogger("some.library").warning("GET /keys/%s", key)
    text = stream.getvalue()
    assert text.count(f"bkt_{key_id}_***") == 2
    assert key not in text
