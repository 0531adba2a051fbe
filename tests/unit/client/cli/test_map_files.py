"""The files of a map: inputs with their lines, and results that are written once and repaired after a kill."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import click
import pytest

from bucket_client.calls import encode
from bucket_client.cli.map_files import InputLine, LineSet, ResultFile, count_inputs, read_inputs
from bucket_client.errors import Invalid


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def inputs_of(path: Path) -> list[tuple[int, dict[str, Any] | str]]:
    return [(given.line, given.fault or dict(given)) for given in read_inputs(path)]


def test_json_lines_have_their_numbers_and_blank_ones_are_skipped(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", b'\xef\xbb\xbf{"a": 1}\n\n{"a":\r\n  \n[2]\n{"a": "\xff"}\n{"a": 3}')
    assert inputs_of(path) == [
        (1, {"a": 1}),
        (3, "column 6: Expecting value"),
        (5, 'must be a JSON object, as in {"a": 1}, not an array'),
        (6, "is not UTF-8 at byte 7"),
        (7, {"a": 3}),
    ]
    assert count_inputs(path) == 5


def test_a_csv_has_keys_in_its_first_row_and_json_in_its_cells(tmp_path: Path) -> None:
    content = (
        '\ufeffid,n,note\n007,1.5,"two\nlines"\n\n"[1, {""a"": null}]",true,\n'
        "12345678901234567890123,NaN,1e999\nonly,two\nä,漢,{\n"
    )
    path = written(tmp_path / "in.csv", content)
    assert inputs_of(path) == [
        (2, {"id": "007", "n": 1.5, "note": "two\nlines"}),
        (5, {"id": [1, {"a": None}], "n": True, "note": ""}),
        (6, {"id": "12345678901234567890123", "n": "NaN", "note": "1e999"}),
        (7, "has 2 cells, and the first row has 3"),
        (8, {"id": "ä", "n": "漢", "note": "{"}),
    ]
    assert count_inputs(path) == 5


def test_a_faulty_record_of_a_csv_does_not_stop_the_others(tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", b'a\n"x"y\n"\xff"\n1\n')
    assert inputs_of(path) == [(2, "',' expected after '\"'"), (3, "is not UTF-8"), (4, {"a": 1})]


@pytest.mark.parametrize("content", ["", "\n", "a,,b\n", "a,a\n"])
def test_a_csv_whose_first_row_names_no_keys_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(click.ClickException, match="the first row"):
        count_inputs(written(tmp_path / "in.csv", content))


def test_a_faulty_line_is_refused_by_the_client_before_any_request() -> None:
    """So it has a number among the inputs like any other, whatever becomes of the file later."""
    assert encode(InputLine(1, {"a": 1})) == b'{"a":1}'
    with pytest.raises(Invalid):
        encode(InputLine(1, {}, "is no JSON"))


def test_a_set_of_lines_is_small() -> None:
    lines = LineSet()
    for line in range(1, 1_000_000, 2):
        lines.add(line)
    lines.add(1)
    assert len(lines) == 500_000
    assert 999_999 in lines
    assert not any(line in lines for line in (0, 2, 999_998, 5_000_000))
    assert len(lines._bits) < 200_000


def record(line: int, **more: Any) -> dict[str, Any]:
    default = {"line": line, "execution_id": f"1_{line}", "status": "completed", "result": {"n": "a\nb"}, "error": None}
    return default | more


def add_all(path: Path, *records: dict[str, Any]) -> ResultFile:
    path.touch()
    results = ResultFile(path).open_and_repair()
    for each in records:
        results.add(each)
    results.close()
    return results


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_each_line_is_written_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    refused = record(3, execution_id=None, status="refused", result=None, error={"message": 'say "no", please'})
    add_all(path, record(1), refused)
    again = add_all(path, record(1, result="another"), record(2), refused)
    assert (len(again.lines), again.not_completed) == (3, 1)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file)) if name.endswith("csv") else [json.loads(line) for line in file]
    assert [int(row["line"]) for row in rows] == [1, 3, 2]
    if name.endswith("csv"):
        rows = [row | {key: json.loads(row[key] or "null") for key in ("result", "error")} for row in rows]
    assert rows[0]["result"] == {"n": "a\nb"}
    assert rows[1]["error"] == {"message": 'say "no", please'}
    assert list(rows[0]) == ["line", "execution_id", "status", "result", "error"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_torn_last_line_is_cut_off_at_whatever_byte_it_was_torn(tmp_path: Path, name: str) -> None:
    whole = tmp_path / f"whole-{name}"
    add_all(whole, record(1), record(2))
    content = whole.read_bytes()
    for length in range(len(content)):
        path = written(tmp_path / name, content[:length])
        add_all(path, record(1), record(2))
        assert path.read_bytes() == content, length


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
@pytest.mark.parametrize(
    "content", ["a letter to a friend", "a letter\n", '{"line":1}\n', "1,2,3\n", '{"a": 1}\n{"line":1,"exec']
)
def test_a_file_that_no_map_has_written_is_not_touched(tmp_path: Path, name: str, content: str) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(click.ClickException, match="was not written by this command"):
        ResultFile(path).open_and_repair()
    assert path.read_text() == content
