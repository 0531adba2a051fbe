"""JSON pointers are written and read as RFC 6901 says."""

from __future__ import annotations

import pytest

from shared.json_pointer import format_pointer, parse_pointer


@pytest.mark.parametrize(
    ("path", "pointer"),
    [([], ""), (["a", 0], "/a/0"), (["a/b~c"], "/a~1b~0c"), (["~1"], "/~01"), ([""], "/")],
)
def test_what_was_written_reads_back(path: list[str | int], pointer: str) -> None:
    assert format_pointer(path) == pointer
    assert parse_pointer(pointer) == [str(part) for part in path]
