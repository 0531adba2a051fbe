"""The failure log: one JSON line for each payload that Core did not take; no line is lost or torn.

Appends and rewrites hold ``flock`` on ``<log>.lock``. The log itself cannot be locked: a rewrite replaces it. A resend
holds ``<log>.resend.lock`` while it sends, which no append waits for. The kernel frees both if a process dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bucket_client.connectors.connector_settings import is_header_value
from bucket_client.connectors.durable_file import make_folders, replace_file, sync_folder
from bucket_client.connectors.json_text import decode_json, encode_payload

_OWNER_ONLY = 0o600
"""The permissions of the log: payloads may be private."""


@dataclass(frozen=True, slots=True)
class LoggedSend:
    """One line of the log; ``line`` holds a unique id, so it is the line's identity too."""

    line: bytes
    payload: Any
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class LogContent:
    """What the log holds: the sends, oldest first, and the numbers of the lines that cannot be read."""

    sends: tuple[LoggedSend, ...]
    unreadable: tuple[int, ...]


class FailureLog:
    """The log at ``path``; any number of processes and threads may use it at once."""

    def __init__(self, path: Path) -> None:
        """The file and its folder are made by the first append; a symbolic link is followed, as rewrites need it."""
        self.path = Path(os.path.realpath(path))

    def append(self, body: bytes, idempotency_key: str, details: Mapping[str, Any]) -> None:
        """Add a line and sync it to the disk; ``body`` is the payload as JSON. Raises OSError."""
        entry = {
            "id": uuid.uuid4().hex,
            "failed_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "idempotency_key": idempotency_key,
            **details,
        }
        line = encode_payload(entry)[:-1] + b',"payload":' + body + b"}\n"
        make_folders(self.path.parent)
        with self._locked():
            is_new = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, _OWNER_ONLY)
            try:
                _append_whole(descriptor, line)
            finally:
                os.close(descriptor)
            if is_new:
                sync_folder(self.path.parent)

    def read(self) -> LogContent:
        """Return what the log holds now; nothing if there is no file."""
        sends: dict[bytes, LoggedSend] = {}
        unreadable = []
        for number, line in enumerate(self._lines(), start=1):
            if not line.strip():
                continue
            logged = _parse(line)
            if logged is None:
                unreadable.append(number)
            else:
                sends[line] = logged  # a line that somebody copied is sent once
        return LogContent(tuple(sends.values()), tuple(unreadable))

    def remove(self, sent: Collection[LoggedSend]) -> None:
        """Remove exactly the lines of ``sent``; lines that were appended meanwhile stay."""
        if not sent:
            return
        lines = {logged.line for logged in sent}
        with self._locked():
            left = [line for line in self._read_bytes().split(b"\n") if line not in lines]
            replace_file(self.path, b"\n".join(left), _OWNER_ONLY)

    @contextmanager
    def resending(self) -> Iterator[bool]:
        """Hold the lock of the resend; yield False at once if another resend holds it, or if there is no log."""
        if not self.path.exists():
            yield False
            return
        with _lock(self.path.with_name(f"{self.path.name}.resend.lock"), fcntl.LOCK_EX | fcntl.LOCK_NB) as is_held:
            yield is_held

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with _lock(self.path.with_name(f"{self.path.name}.lock"), fcntl.LOCK_EX):
            yield

    def _lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        with self._locked():  # an append that has not ended is not seen
            return self._read_bytes().split(b"\n")

    def _read_bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""


@contextmanager
def _lock(path: Path, operation: int) -> Iterator[bool]:
    """Hold ``flock`` on a file that is never removed; yield False if LOCK_NB is given and another one holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, _OWNER_ONLY)
    try:
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough: a forked child may hold a copy
    finally:
        os.close(descriptor)


def _append_whole(descriptor: int, line: bytes) -> None:
    """Append a line in one write; undo a write that the disk took only in part. Raises OSError."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line  # the last line was torn when a machine lost power: do not continue it
    written = os.write(descriptor, line)
    if written < len(line):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, "the disk took only a part of the line")
    os.fsync(descriptor)


def _parse(line: bytes) -> LoggedSend | None:
    """Return what a line holds; None if it is damaged."""
    try:
        entry = decode_json(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or "payload" not in entry:
        return None
    key = entry.get("idempotency_key")
    if not isinstance(key, str) or not is_header_value(key):
        return None
    return LoggedSend(line, entry["payload"], key)
