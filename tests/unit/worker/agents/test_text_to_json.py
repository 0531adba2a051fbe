"""Free text becomes an object, and what was not read is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

Run = Callable[[str, dict[str, Any]], dict[str, Any]]
Read = Callable[..., dict[str, Any]]


@pytest.fixture
def read(run_agent: Run) -> Read:
    return lambda text, **more: run_agent("text_to_json", {"text": text, **more})


def unread(output: dict[str, Any]) -> dict[int, str]:
    return {entry["line"]: entry["reason"] for entry in output["unread"]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12), ("-0.5", -0.5), ("007", "007"), ("+1", "+1"), ("1e5", "1e5"),
        ("12345678901234567", "12345678901234567"),
        ("true", True), ("null", None), ("True", "True"), ('"12"', "12"), ("1,5", "1,5"), ("2026-01-05", "2026-01-05"),
    ],
)  # fmt: skip
def test_a_value_is_only_what_it_is_in_json(read: Read, text: str, value: object) -> None:
    assert read(f"Key: {text}")["data"] == {"Key": value}
    assert read(f"Key: {text}", values="text")["data"] == {"Key": text}


@pytest.mark.parametrize(
    "line", ["Name: Asha", "Name:Asha B", "name = Asha", "Größe = 5", "First name of the child: x"]
)
def test_key_value_lines(read: Read, line: str) -> None:
    assert (len(read(line)["data"]), read(line)["unread"] != []) == ((0, True) if line == "Name:Asha B" else (1, False))


@pytest.mark.parametrize(
    "line",
    [
        "We met at noon. Then: nothing",
        "see http://example.org",
        "10:30 start",
        "This is a long sentence with a: b",
        "a == b",
    ],
)
def test_prose_is_not_taken_for_a_key(read: Read, line: str) -> None:
    output = read(line)
    assert (output["data"], unread(output)) == ({}, {1: "no key, table, list or JSON"})


def test_a_key_on_several_lines_is_a_list_and_that_is_noted(read: Read) -> None:
    output = read("Tag: a\nTag: b\nTag:\n- c\n- d\nOther: 1")
    assert output["data"] == {"Tag": ["a", "b", ["c", "d"]], "Other": 1}
    assert output["notes"] == ["'Tag' is on the lines 1, 2, 3: its values are a list"]


def test_lists_with_and_without_a_key(read: Read) -> None:
    output = read("Items:\n- 1\n* two\n\n1. a\n2) b\nEmpty:\nx")
    assert output["data"] == {"Items": [1, "two"]}
    assert output["lists"] == [{"line": 5, "items": ["a", "b"]}]
    assert unread(output) == {7: "a key or heading without a value", 8: "no key, table, list or JSON"}


@pytest.mark.parametrize(
    "table",
    ["| name | n |\n|---|:-:|\n| a | 1 |\n| b | 2 |", "name\tn\na\t1\nb\t2", "name,n\na,1\nb,2", 'name;n\n"a";1\nb;2'],
)
def test_tables(read: Read, table: str) -> None:
    output = read(f"Before: 1\n{table}\n\nAfter: 2")
    assert output["tables"] == [
        {"line": 2, "columns": ["name", "n"], "rows": [{"name": "a", "n": 1}, {"name": "b", "n": 2}]}
    ]
    assert (output["data"], output["unread"]) == ({"Before": 1, "After": 2}, [])


def test_a_row_of_another_width_is_told(read: Read) -> None:
    output = read("a,b\n1,2\n1,2,3\n4,5")
    assert [row["a"] for row in output["tables"][0]["rows"]] == [1, 4]
    assert unread(output) == {3: "3 cells where the table has 2 columns"}


def test_prose_with_commas_is_no_table(read: Read) -> None:
    assert read("Hello, world\nGoodbye, moon")["tables"] == []


def test_json_alone_after_a_key_and_within_a_line(read: Read) -> None:
    output = read('{"a":\n [1, 2.5]}\nMeta: {"b": {\n "c": null}}\nIt said {"d": 1} and left\n[1] tail')
    assert [entry["value"] for entry in output["json"]] == [{"a": [1, 2.5]}, {"d": 1}, [1]]
    assert output["data"] == {"Meta": {"b": {"c": None}}}
    assert unread(output) == {5: "only the JSON in this line was read", 6: "text beside the JSON of this line"}
    assert output["lines_read"] == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": 1, "a": 2}', "a key twice"),
        ('{"a": 18446744073709551616}', "more than 64 bits"),
        ('{"a": 1e999}', "too large"),
        ('{"a\\u0000": 1}', "a character that cannot be stored"),
        ('["\\ud800"]', "half of a surrogate pair"),
        ("{nothing}", "looks like JSON and is none"),
        ("[" * 40 + "]" * 40, "more than 32 levels"),
        ("[" * 49_000, "more than 32 levels"),
    ],
)
def test_json_that_no_store_can_keep_is_told(read: Read, text: str, reason: str) -> None:
    output = read(text)
    assert (output["json"], len(output["unread"])) == ([], 1)
    assert reason in output["unread"][0]["reason"]


def test_after_many_lines_that_only_look_like_json_no_more_are_tried(read: Read) -> None:
    reasons = unread(read("{x\n" * 200 + "[1]"))
    assert reasons[200].startswith("looks like JSON")
    assert reasons[201].startswith("not tried: 200 lines before it")


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text", ["", "\n" * 50_000, "[\n" * 25_000, "[\n" * 900 + "1," * 24_000,
             "x\n" * 25_000, "a" * 40 + ",b\n" + "1,2\n" * 12_000, "k: 1\n" * 10_000,
             "|" * 50_000, "- " * 25_000, '{"a":[' * 8_000, "=" * 50_000, "a\0b: 1"]
)  # fmt: skip
def test_hostile_texts_end_soon_and_within_the_limit_of_an_output(read: Read, text: str) -> None:
    assert len(orjson.dumps(read(text))) < 4 * 1024 * 1024
