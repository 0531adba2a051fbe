"""The state file of a map: what was submitted and what was handed over, so that a killed map goes on where it stood.

It is a file of JSON lines that only grows: a header, then a line for each batch that was submitted and for each result
that the caller is done with. A line that was torn when the process was killed is cut off: what it said is found again
by the idempotency keys, which are made of the header's token and the number of the input.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bucket_client.errors import StateFileError

_FORMAT: Final = 1
_HEADER_BEGINS: Final = b'{"map_state":'


class MapState:
    """What a map remembers of its inputs, by their numbers from 0. This one has no file, and ends with its process."""

    token: str
    """Begins the idempotency key of each run of this map."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(8)

    def is_returned(self, index: int) -> bool:
        """Return whether the caller is done with the result of this input, in this process or one before."""
        del index
        return False

    def submitted_id(self, index: int, encoded: bytes) -> str | None:
        """Return the id of the run that an earlier process made of this input; None if none is known."""
        del index, encoded
        return None

    def record_submitted(self, runs: Mapping[int, tuple[str, bytes]]) -> None:
        """Record the runs that were made, by the numbers of their inputs, with the inputs."""

    def record_returned(self, index: int) -> None:
        """Record that the caller is done with the result of this input."""

    def close(self) -> None:
        """Release what is held."""


class FileState(MapState):
    """The state of a map in a file that one process at a time uses.

    In memory are the runs that are under way, and the numbers that were returned beyond the first gap: both are bounded
    by the map's concurrency.
    """

    def __init__(self, path: Path, target: str) -> None:
        self._path = path
        self._returned_below = 0
        self._returned_beyond: set[int] = set()
        self._under_way: dict[int, tuple[str, str]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._lock()
            self.token = self._read(target) or self._begin(target)
        except BaseException:
            os.close(self._file)
            raise

    def is_returned(self, index: int) -> bool:
        """Return whether the caller is done with the result of this input."""
        return index < self._returned_below or index in self._returned_beyond

    def submitted_id(self, index: int, encoded: bytes) -> str | None:
        """Return the id of the run that was made of this input. Raises StateFileError if it was made of another."""
        execution_id, digest = self._under_way.get(index, (None, None))
        if execution_id is not None and digest != _digest(encoded):
            raise StateFileError(
                f"input {index} is another than that in {self._path}: "
                "give the same inputs in the same order, or another state file"
            )
        return execution_id

    def record_submitted(self, runs: Mapping[int, tuple[str, bytes]]) -> None:
        """Record the runs that were made, by the numbers of their inputs, with the inputs."""
        lines = [(index, execution_id, _digest(encoded)) for index, (execution_id, encoded) in runs.items()]
        self._under_way |= {index: (execution_id, digest) for index, execution_id, digest in lines}
        self._append({"submitted": lines})

    def record_returned(self, index: int) -> None:
        """Record that the caller is done with the result of this input."""
        self._set_returned(index)
        self._append({"returned": index})

    def close(self) -> None:
        """Close the file and leave it to the next process."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateFileError(f"another process uses {self._path}: wait for its end") from None

    def _read(self, target: str) -> str | None:
        """Read the file; return its token, or None if it has no header yet. A torn last line is cut off."""
        token: str | None = None
        end = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                record = _parse(line)
                if record is None and (token is not None or _HEADER_BEGINS.startswith(line[: len(_HEADER_BEGINS)])):
                    if lines.read(1):
                        raise StateFileError(f"line {number} of {self._path} is damaged: use another state file")
                    break
                end += len(line)
                if token is None:
                    token = self._check_header(record or {}, target)
                else:
                    self._replay(record or {})
        os.ftruncate(self._file, end)
        return token

    def _check_header(self, record: Mapping[str, Any], target: str) -> str:
        if record.get("map_state") != _FORMAT:
            raise StateFileError(f"{self._path} is no state file of a map")
        if record.get("target") != target:
            raise StateFileError(
                f"{self._path} is that of {record.get('target')}, not of {target}: use another state file"
            )
        return str(record["token"])

    def _replay(self, record: Mapping[str, Any]) -> None:
        for index, execution_id, digest in record.get("submitted", ()):
            self._under_way[index] = (execution_id, digest)
        if "returned" in record:
            self._set_returned(record["returned"])

    def _set_returned(self, index: int) -> None:
        self._under_way.pop(index, None)
        self._returned_beyond.add(index)
        while self._returned_below in self._returned_beyond:
            self._returned_beyond.remove(self._returned_below)
            self._returned_below += 1

    def _begin(self, target: str) -> str:
        token = secrets.token_hex(8)
        self._append({"map_state": _FORMAT, "target": target, "token": token})
        os.fsync(self._file)  # the keys of all submits begin with this token
        return token

    def _append(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        while line:
            line = line[os.write(self._file, line) :]


def _digest(encoded: bytes) -> str:
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the record in a line; None if the line is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
