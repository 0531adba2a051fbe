"""The state file of a map: what it remembers, what it refuses, and a line that was torn."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bucket_client import StateFileError
from bucket_client.map_state import FileState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "map.state"


INPUTS = [b'{"n":%d}' % number for number in range(6)]


def opened(path: Path, target: bytes = b"basket") -> FileState:
    return FileState(path, target)


def read(state: FileState, inputs: list[bytes] = INPUTS) -> list[bool]:
    """Read all inputs; return of each whether the caller was done with it."""
    return [state.read_input(index, encoded) for index, encoded in enumerate(inputs)]


def write(path: Path, submitted: list[int], returned: list[int]) -> str:
    """Make a file that knows these runs and returns; return its token."""
    state = opened(path)
    read(state)
    for index in submitted:
        state.record_submitted({index: f"id-{index}"})
    for index in returned:
        state.record_returned(index)
    state.close()
    return state.token


def test_what_was_recorded_is_known_after_a_restart(path: Path) -> None:
    token = write(path, [0, 1, 2], [0, 2])
    state = opened(path)
    assert state.token == token
    assert read(state) == [True, False, True, False, False, False]
    assert (state.submitted_id(1), state.submitted_id(3)) == ("id-1", None)
    state.end_inputs(6)
    state.close()


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_last_line_is_cut_off_and_the_file_goes_on_growing(path: Path, cut: int) -> None:
    write(path, [0, 1], [])
    path.write_bytes(path.read_bytes()[:-cut])
    state = opened(path)
    read(state)
    assert (state.submitted_id(0), state.submitted_id(1)) == ("id-0", None)
    state.record_submitted({1: "id-1b"})
    state.close()
    again = opened(path)
    assert again.submitted_id(1) == "id-1b"
    again.close()


@pytest.mark.parametrize("damage", [b"{damaged\n", b'{"submitted":[[1]]}\n', b'{"returned":7}\n'])
def test_a_damaged_line_in_the_middle_is_refused_and_nothing_is_cut(path: Path, damage: bytes) -> None:
    write(path, [0], [0])
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = lines[0] + damage + lines[2]
    path.write_bytes(damaged)
    with pytest.raises(StateFileError, match="line 2"):
        opened(path)
    assert path.read_bytes() == damaged


def test_another_basket_or_other_options_are_refused_once_a_run_was_made(path: Path) -> None:
    opened(path, b"misspelt").close()
    write(path, [0], [])
    with pytest.raises(StateFileError, match="another map"):
        opened(path, b"other")
    state = opened(path)
    assert state.submitted_id(0) == "id-0"
    state.close()


@pytest.mark.parametrize(
    "inputs",
    [
        [b"{}", *INPUTS[1:]],  # one that was returned
        [INPUTS[1], INPUTS[0], *INPUTS[2:]],  # the same in another order
        [*INPUTS[:3], b"{}", *INPUTS[4:]],  # one that is under way
    ],
)
def test_other_inputs_are_refused(path: Path, inputs: list[bytes]) -> None:
    write(path, [0, 1, 2, 3], [0, 1])
    state = opened(path)
    with pytest.raises(StateFileError, match="inputs are others"):
        read(state, inputs)
    state.close()


@pytest.mark.parametrize(("submitted", "returned"), [([0, 1, 2, 3], [0]), ([0, 1, 2, 3], [0, 1, 2, 3])])
def test_fewer_inputs_are_refused_and_more_go_on(path: Path, submitted: list[int], returned: list[int]) -> None:
    write(path, submitted, returned)
    state = opened(path)
    read(state, INPUTS[:3])
    with pytest.raises(StateFileError, match="inputs are others"):
        state.end_inputs(3)
    state.close()
    state = opened(path)
    assert read(state, [*INPUTS, b"[]"])[-1] is False
    state.end_inputs(7)
    state.close()


@pytest.mark.parametrize("text", ["a letter\nin two lines\n", "one line without an end", "{}"])
def test_a_file_that_is_somebody_elses_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    letter = tmp_path / "letter"
    letter.write_text(text)
    with pytest.raises(StateFileError, match="no state file"):
        opened(letter)
    assert letter.read_text() == text


def test_a_header_that_was_torn_is_written_anew(path: Path) -> None:
    write(path, [], [])
    path.write_bytes(path.read_bytes()[:20])
    token = write(path, [0], [])
    assert write(path, [], []) == token


def test_a_file_that_another_map_uses_is_refused_until_that_is_closed(path: Path) -> None:
    first = opened(path)
    with pytest.raises(StateFileError, match="another map uses"):
        opened(path)
    child = os.fork()
    if child == 0:  # it holds a copy of the descriptor
        signal.pause()
    first.close()
    try:
        opened(path).close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_memory_holds_only_what_is_under_way(path: Path) -> None:
    state = opened(path)
    for index in range(1000):
        state.read_input(index, b"{}")
        state.record_submitted({index: f"id-{index}"})
        state.record_returned(index)
    assert (state._returned_beyond, state._under_way, state._digests) == (set(), {}, {})
    state.close()
