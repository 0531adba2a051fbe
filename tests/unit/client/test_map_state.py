"""The state file of a map: what it remembers, what it refuses, and a line that was torn."""

from __future__ import annotations

from pathlib import Path

import pytest

from bucket_client import StateFileError
from bucket_client.map_state import FileState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "map.state"


def reopened(state: FileState, path: Path) -> FileState:
    state.close()
    return FileState(path, "basket")


def test_what_was_recorded_is_known_after_a_restart(path: Path) -> None:
    first = FileState(path, "basket")
    first.record_submitted({0: ("id-0", b"{}"), 1: ("id-1", b"[]"), 2: ("id-2", b"1")})
    first.record_returned(0)
    first.record_returned(2)
    second = reopened(first, path)
    assert second.token == first.token
    assert [second.is_returned(index) for index in range(4)] == [True, False, True, False]
    assert second.submitted_id(1, b"[]") == "id-1"
    assert second.submitted_id(3, b"") is None
    second.close()


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_last_line_is_cut_off_and_the_file_goes_on_growing(path: Path, cut: int) -> None:
    first = FileState(path, "basket")
    first.record_submitted({0: ("id-0", b"{}")})
    first.record_submitted({1: ("id-1", b"{}")})
    first.close()
    path.write_bytes(path.read_bytes()[:-cut])
    second = FileState(path, "basket")
    assert (second.submitted_id(0, b"{}"), second.submitted_id(1, b"{}")) == ("id-0", None)
    second.record_submitted({1: ("id-1b", b"{}")})
    third = reopened(second, path)
    assert third.submitted_id(1, b"{}") == "id-1b"
    third.close()


def test_a_damaged_line_in_the_middle_is_refused_and_nothing_is_cut(path: Path) -> None:
    first = FileState(path, "basket")
    first.record_submitted({0: ("id-0", b"{}")})
    first.record_returned(0)
    first.close()
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = lines[0] + b"{damaged\n" + lines[2]
    path.write_bytes(damaged)
    with pytest.raises(StateFileError, match="line 2"):
        FileState(path, "basket")
    assert path.read_bytes() == damaged


def test_other_inputs_another_basket_and_a_file_of_another_kind_are_refused(path: Path) -> None:
    first = FileState(path, "basket")
    first.record_submitted({0: ("id-0", b"{}")})
    with pytest.raises(StateFileError, match="input 0 is another"):
        first.submitted_id(0, b'{"a":1}')
    first.close()
    with pytest.raises(StateFileError, match="not of other"):
        FileState(path, "other")
    path.write_text('{"some": "file"}\n')
    with pytest.raises(StateFileError, match="no state file"):
        FileState(path, "basket")


@pytest.mark.parametrize("text", ["a letter\nin two lines\n", "one line without an end", "{}"])
def test_a_file_that_is_somebody_elses_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    letter = tmp_path / "letter"
    letter.write_text(text)
    with pytest.raises(StateFileError, match="no state file"):
        FileState(letter, "basket")
    assert letter.read_text() == text


def test_a_header_that_was_torn_is_written_anew(path: Path) -> None:
    FileState(path, "basket").close()
    path.write_bytes(path.read_bytes()[:20])
    state = FileState(path, "basket")
    assert reopened(state, path).token == state.token


def test_a_file_that_another_map_uses_is_refused(path: Path) -> None:
    first = FileState(path, "basket")
    with pytest.raises(StateFileError, match="another process"):
        FileState(path, "basket")
    first.close()


def test_memory_holds_only_what_is_under_way(path: Path) -> None:
    state = FileState(path, "basket")
    for index in range(1000):
        state.record_submitted({index: (f"id-{index}", b"{}")})
        state.record_returned(index)
    assert (state._returned_beyond, state._under_way) == (set(), {})
    state.close()
