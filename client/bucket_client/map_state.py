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

    def read_input(self, index: int, encoded: bytes) -> bool:
        """Take note of the next input; return whether the caller was done with its result before this process."""
        del index, encoded
        return False

    def end_inputs(self, count: int) -> None:
        """Take note of the end of the inputs, of which there were ``count``."""

    def submitted_id(self, index: int) -> str | None:
        """Return the id of the run that an earlier process made of this input; None if none is known."""
        del index
        return None

    def record_submitted(self, runs: Mapping[int, str]) -> None:
        """Record the ids of the runs that were made, by the numbers of their inputs."""

    def record_returned(self, index: int) -> None:
        """Record that the caller is done with the result of this input."""

    def close(self) -> None:
        """Release what is held."""


class FileState(MapState):
    """The state of a map in a file that one map at a time uses.

    Other inputs than before are refused with StateFileError: those under way are compared by their digests one by one,
    those that were returned by the exclusive or of all of their digests, once all of them have been read again. In
    memory are the runs under way and the numbers that were returned behind the oldest of them.
    """

    def __init__(self, path: Path, target: bytes) -> None:
        self._path = path
        self._returned_below = 0
        self._returned_beyond: set[int] = set()
        self._under_way: dict[int, tuple[str, str]] = {}
        self._digests: dict[int, str] = {}
        self._unread_count = 0
        self._unread_digest = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._lock()
            self.token = self._read(_digest(target)) or self._begin(_digest(target))
        except BaseException:
            self.close()
            raise

    def read_input(self, index: int, encoded: bytes) -> bool:
        """Take note of the next input; return whether the caller was done with its result before this process.

        Raises StateFileError if it is another input than that of an earlier process.
        """
        digest = _digest(encoded)
        if index < self._returned_below or index in self._returned_beyond:
            self._unread_count -= 1
            self._unread_digest ^= _mixed(index, digest)
            if self._unread_count == 0 and self._unread_digest != 0:
                raise self._other_inputs()
            return True
        if self._under_way.get(index, ("", digest))[1] != digest:
            raise self._other_inputs()
        self._digests[index] = digest
        return False

    def end_inputs(self, count: int) -> None:
        """Take note of the end of the inputs. Raises StateFileError if an earlier process had more than ``count``."""
        if self._unread_count > 0 or any(index >= count for index in self._under_way):
            raise self._other_inputs()

    def submitted_id(self, index: int) -> str | None:
        """Return the id of the run that an earlier process made of this input; None if none is known."""
        return self._under_way.get(index, (None, None))[0]

    def record_submitted(self, runs: Mapping[int, str]) -> None:
        """Record the ids of the runs that were made, by the numbers of their inputs."""
        self._under_way |= {index: (execution_id, self._digests[index]) for index, execution_id in runs.items()}
        lines = [[index, execution_id, self._digests[index]] for index, execution_id in runs.items()]
        self._append({"submitted": lines})

    def record_returned(self, index: int) -> None:
        """Record that the caller is done with the result of this input."""
        digest = self._digests.pop(index)
        self._set_returned(index)
        self._append({"returned": [index, digest]})

    def close(self) -> None:
        """Close the file and leave it to the next map."""
        if self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # closing is not enough: a forked child may hold a copy
            os.close(self._file)
            self._file = -1

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateFileError(f"another map uses {self._path}, in this process or another: let it end") from None

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
                    token = self._check_header(record or {}, target, is_alone=not lines.peek(1))
                    if token is None:
                        end = 0
                        break
                    continue
                try:
                    self._replay(record or {})
                except (TypeError, ValueError) as error:
                    raise StateFileError(f"line {number} of {self._path} is damaged: use another file") from error
        os.ftruncate(self._file, end)
        return token

    def _check_header(self, record: Mapping[str, Any], target: str, *, is_alone: bool) -> str | None:
        """Return the token; None if the header is that of another map which has made no run, and may be replaced."""
        if record.get("map_state") != _FORMAT:
            raise StateFileError(f"{self._path} is no state file of a map")
        if record.get("target") != target:
            if is_alone:
                return None
            raise StateFileError(
                f"{self._path} is that of another map: give the same basket and options, or use another file"
            )
        return str(record["token"])

    def _replay(self, record: Mapping[str, Any]) -> None:
        for index, execution_id, digest in record.get("submitted", ()):
            self._under_way[index] = (execution_id, digest)
        if "returned" in record:
            index, digest = record["returned"]
            self._set_returned(index)
            self._unread_count += 1
            self._unread_digest ^= _mixed(index, digest)

    def _other_inputs(self) -> StateFileError:
        return StateFileError(
            f"the inputs are others than those of {self._path}: give the same in the same order, or use another file"
        )

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


def _mixed(index: int, digest: str) -> int:
    """Return a number for an input in its place: in another place it is another one."""
    return int.from_bytes(hashlib.blake2b(f"{index} {digest}".encode(), digest_size=16).digest())


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the record in a line; None if the line is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
