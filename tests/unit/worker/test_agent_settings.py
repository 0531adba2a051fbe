"""The value of a setting reaches its agent, and no log line, progress message or text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from worker.agent_settings import AgentSettings, hide_settings
from worker.context import AgentContext

SECRET = "k3y\"/+\n'"


class Recorder:
    """A Reporter that keeps what it gets."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    def line(self, *line: Any) -> None:
        self.received.append(line)

    def progress(self, *step: Any) -> None:
        self.received.append(step)


def test_a_value_is_hidden_however_it_is_written() -> None:
    settings = AgentSettings({"KEY": SECRET, "SHORT": "a"})
    for text in (SECRET, repr(SECRET), json.dumps(SECRET), f"https://rates.example/?key={quote(SECRET, safe='')}"):
        hidden = hide_settings(f"asked with {text}", settings)
        assert "<KEY>" in hidden
        assert "k3y" not in hidden
        assert hidden.startswith("asked")  # a value of one letter is no secret


def test_the_longer_of_two_values_is_hidden_whole() -> None:
    assert hide_settings("abcdef", {"A": "abcd", "B": "abcdef"}) == "<B>"


def context(recorder: Recorder, **settings: str) -> AgentContext:
    unused = Any
    return AgentContext(
        execution_id="1763700000_89ce24ad1b2c3d4e",
        step="step",
        attempt=1,
        idempotency_key="key",
        request_id="req-1",
        deadline=datetime(2026, 1, 1, tzinfo=UTC),
        ledger=unused,  # type: ignore[arg-type]
        reporter=recorder,
        checkpoints=unused,  # type: ignore[arg-type]
        settings=AgentSettings(settings),
    )


def test_what_is_hidden_leaves_json() -> None:
    recorder = Recorder()
    context(recorder, FLAG="true", PORT="8080", NAME='"ok":').log("x", ok=True, flag="true", port=8080, ports=[18080.5])
    [(_, _, data_json)] = recorder.received
    assert json.loads(data_json) == {"ok": True, "flag": "<FLAG>", "port": "<PORT>", "ports": ["1<PORT>.5"]}


def test_what_an_agent_reports_does_not_show_its_settings() -> None:
    recorder = Recorder()
    ctx = context(recorder, KEY=SECRET)
    assert ctx.settings["KEY"] == SECRET
    ctx.log(f"asked with {SECRET}", key=SECRET, settings=ctx.settings, nested={"keys": [SECRET]})
    ctx.progress(0.5, f"with {SECRET}")
    shown = f"{recorder.received} {ctx}"
    assert "asked with <KEY>" in shown
    assert "k3y" not in shown
