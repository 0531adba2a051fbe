"""Output of the command line: nothing of a server reaches a terminal raw, and tables fit."""

from __future__ import annotations

import json

import pytest

from bucket_client.cli.output import Column, Output, json_text, safe

DANGEROUS = "\x1b[31m\x9b2J\x07\r\n\x7f\u202e\u2028\ud800"


def test_control_characters_are_printed_as_escapes() -> None:
    assert safe("a\x1b[31mb\nc\x9b\u202e") == r"a\x1b[31mb\nc\x9b\u202e"
    assert safe("plain ä 漢 [bold] 😀") == "plain ä 漢 [bold] 😀"


def test_json_is_safe_to_print_and_the_same_to_a_program() -> None:
    text = json_text({DANGEROUS: DANGEROUS + "ä"})
    assert text.isprintable()
    assert json.loads(text) == {DANGEROUS: DANGEROUS + "ä"}


COLUMNS = [Column("id"), Column("status"), Column("basket", dropped_at=1), Column("took", dropped_at=2)]
ROW = ("1763700000_89ce24ad1b2c3d4e", "completed", "finance_daily_check", "12 s")


def test_a_table_in_a_pipe_is_whole_and_without_control_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    wide = ("x" * 500, "[red]completed", "a\x1b[0m", "漢字")
    Output().table([Column("id"), Column("status", style_of={"[red]completed": "green"}), *COLUMNS[2:]], [ROW, wide])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    lines = printed.splitlines()
    assert lines[1].split("  ")[0] == ROW[0]
    assert lines[2].split() == ["x" * 500, "[red]completed", r"a\x1b[0m", "漢字"]
    assert all(line == line.rstrip() for line in lines)


def test_quiet_and_json_leave_out_the_notes(capsys: pytest.CaptureFixture[str]) -> None:
    Output(quiet=True).note("x")
    Output(as_json=True).note("x")
    Output().note("note")
    assert capsys.readouterr() == ("", "note\n")
