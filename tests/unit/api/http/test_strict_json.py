"""The strict JSON parser: it reads as the json module does, and refuses a value with a reason and its place."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.strict_json import DEPTH_MAX, canonical_json, depth_of, parse, to_printable
from shared.errors import InvalidJson

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_values_within_the_limits_are_read_as_the_json_module_reads_them(value: Any, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    if depth_of(text.encode()) <= DEPTH_MAX:
        assert parse(text.encode()) == json.loads(text)


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\u0dD8 19eE-+.truefalsnN').map(str.encode))
def test_no_bytes_raise_anything_but_invalid_json(raw: bytes) -> None:
    with contextlib.suppress(InvalidJson):
        canonical_json(parse(raw))


@given(st.integers(0, 31), st.sampled_from(['"]]"', '"[["', r'"\"[["', r'"\\"', r'"\\\"[{"', "1"]))
def test_depth_counts_brackets_but_not_those_in_strings(more: int, leaf: str) -> None:
    raw = ("[" * more + '{"[{": ' + leaf + "}" + "]" * more).encode()
    assert depth_of(raw) == more + 1
    assert parse(raw) is not None


@pytest.mark.parametrize(
    ("raw", "depth"), [(rb'["\\", [[1]], "]"]', 3), (rb'["\\\"", [[1]], "["]', 3), (rb'["\\\"[[[["]', 1), (b"1", 0)]
)
def test_depth_sees_where_a_string_ends(raw: bytes, depth: int) -> None:
    assert depth_of(raw) == depth


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_the_32nd_level_is_taken_and_the_33rd_refused(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    for depth, accepted in ((32, True), (33, False)):
        raw = (opening * (depth - 1) + opening[0] + closing * depth).encode()
        assert depth_of(raw) == depth
        if accepted:
            parse(raw)
        else:
            with pytest.raises(InvalidJson, match="deeper than 32"):
                parse(raw)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert len(parse(b"[" + b",".join([b"[]"] * 100) + b"]")) == 100


@pytest.mark.parametrize(
    ("raw", "pointer", "word"),
    [
        (b'{"a": [1, NaN]}', "/a/1", "NaN"),
        (b'{"a": Infinity}', "/a", "infinities"),
        (b'{"a": -Infinity}', "/a", "infinities"),
        (b'{"a": 1e999}', "/a", "too large"),
        (b'{"a": -1e999}', "/a", "too large"),
        (b'{"a/b": 9223372036854775808}', "/a~1b", "64 bits"),
        (b'{"a": -9223372036854775809}', "/a", "64 bits"),
        (b'{"a": ' + b"1" * 5000 + b"}", "/a", "64 bits"),
        (b'{"a": {"b": 1, "b": 2}}', "/a/b", "twice"),
        (b'{"a": "x\\ud800"}', "/a", "surrogate"),
        (b'{"\\udfff": 1}', "/\\udfff", "surrogate"),
        (b'{"a\\u0000": 1}', "/a\\x00", "NUL"),
    ],
)
def test_a_value_that_a_store_cannot_take_is_refused_with_its_pointer(raw: bytes, pointer: str, word: str) -> None:
    with pytest.raises(InvalidJson, match=word) as refused:
        parse(raw)
    assert refused.value.details[0]["pointer"] == pointer
    assert refused.value.error_code == "invalid_json"


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a": "\xff"}', "UTF-8: see byte 7"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "UTF-8"),
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b'{"a": NaN, "b"}', "line 1"),
        (b"{'a': 1}", "line 1"),
        (b"{} {}", "Extra data"),
        (b'{"a": 01}', "line 1"),
        (b'{"a": "\x00"}', "control character"),
    ],
)
def test_malformed_json_is_refused_with_the_place_of_its_fault(raw: bytes, word: str) -> None:
    with pytest.raises(InvalidJson, match=word):
        parse(raw)


@pytest.mark.parametrize("raw", [b'{"a": 9223372036854775807}', b'{"a": -9223372036854775808}', b'{"a": 1e308}'])
def test_the_last_number_within_the_limits_is_taken(raw: bytes) -> None:
    assert parse(raw) == json.loads(raw)


def test_nul_in_a_value_and_a_whole_pair_of_surrogates_are_text() -> None:
    assert parse(b'{"a": "\\u0000", "b": "\\ud83d\\ude00"}') == {"a": "\0", "b": "\U0001f600"}


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 2**20,
        b'{"a":' * 200_000,
        b'{"a": ' + b"1" * 2**20 + b"}",
        b'{"a": 1.' + b"1" * 2**20 + b"}",
        b'{"a": 1e' + b"9" * 2**20 + b"}",
        b"{" + b",".join([b'"k":1'] * 170_000) + b"}",
        b"{" + b",".join(b'"%x":1' % at for at in range(90_000)) + b"}",
        b'{"a": "' + b'\\"' * 2**19 + b'"}',
        b'"' + b"\\" * (2**20 - 1),
        b'["' + b'\\"[' * 340_000,
        b'{"a": [' + b"NaN," * 250_000 + b"1]}",
        b'{"a": "' + b"\\ud800" * 170_000 + b'"}',
        b"[" + b"[]," * 340_000 + b"1]",
        b"[" + b"1," * 500_000 + b"1]",
    ],
    ids=lambda raw: f"{raw[:12]!r}",
)
def test_a_hostile_mebibyte_is_read_or_refused_and_never_breaks_the_parser(raw: bytes) -> None:
    begun = time.perf_counter()
    outcome, shown_faults = "read", 0
    try:
        parse(raw)
    except InvalidJson as wrong:
        outcome, shown_faults = wrong.message[:80], len(wrong.details)
    assert shown_faults <= 20
    print(f"{raw[:12]!r}: {1000 * (time.perf_counter() - begun):.0f} ms, {outcome}")  # noqa: T201  for information, not an assertion


def test_equal_json_has_one_canonical_form() -> None:
    forms = [b'{"a": 1, "b": [1e16]}', b'{ "b":[10000000000000000.0],"a":1.0 }']
    assert len({canonical_json(parse(form)) for form in forms}) == 1
    assert canonical_json(parse(b'{"a": -0.0}')) == canonical_json(parse(b'{"a": 0}'))
    for other in (b'{"a": true}', b'{"a": "1"}', b'{"a": 1.5}'):
        assert canonical_json(parse(other)) != canonical_json(parse(b'{"a": 1}'))


def test_a_name_in_a_message_is_short_and_prints() -> None:
    assert to_printable("a" * 65) == "a" * 63 + "…"
    assert to_printable("a\nb\ud800") == r"a\nb\ud800"
