"""The hash chain of the audit log: each event's hash covers the hash before it, so no event changes unnoticed.

The hash of an event is SHA-256 over the hash before it, in hex, a line feed, and the event as canonical JSON: UTF-8,
the members sorted by name, no spaces. Whoever can write all of the log can make a whole new chain; against that, keep
the last hash of an export somewhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

UNREADABLE_ERRORS: Final = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
"""What reading or hashing an event raises if it was changed into something that is none."""
GENESIS_HASH: Final = "0" * 64
"""The hash before the first event."""
FAULTS_MAX: Final = 20
_CHAIN_MEMBERS: Final = ("prev_hash", "hash")


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """The last event of a chain: its number and its hash."""

    seq: int = 0
    hash: str = GENESIS_HASH


@dataclass(slots=True)
class ChainReport:
    """What a verification found: how many events, where they begin and end, and each fault as a sentence."""

    count: int = 0
    begin: ChainEnd | None = None
    """What stood before the first event, as it says itself."""
    end: ChainEnd = field(default_factory=ChainEnd)
    faults: list[str] = field(default_factory=list)


def link_hash(prev_hash: str, view: Mapping[str, Any]) -> str:
    """Return the hash of an event, given its view and the hash of the event before it."""
    text = json.dumps(view, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(f"{prev_hash}\n{text}".encode()).hexdigest()


def chained_view(view: Mapping[str, Any], prev_hash: str, own_hash: str) -> dict[str, Any]:
    """Return an event with its place in the chain, as a line of an export has it."""
    return {**view, "prev_hash": prev_hash, "hash": own_hash}


def parse_lines(lines: Iterable[bytes]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Yield the name of each line of an export, and its event; None if it cannot be read."""
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        yield f"line {number}", value if isinstance(value, dict) else None


def verify(
    records: Iterable[tuple[str, Mapping[str, Any] | None]],
    *,
    after: str | None = None,
    head: str | None = None,
    from_start: bool = False,
    may_be_empty: bool = False,
) -> ChainReport:
    """Return what is wrong with a chain, record by record; each has a name for the report.

    ``after`` is the hash that the chain must follow, ``head`` the one that it must end with; ``from_start`` demands
    that it begins with the first event of all. No record at all is a fault, unless the chain ``may_be_empty``, as that
    of a new store.
    """
    check = _Verification()
    for name, record in records:
        check.add(name, record)
    check.finish(after=GENESIS_HASH if from_start else after, head=head, may_be_empty=may_be_empty)
    return check.report


class _Verification:
    """The state of one verification: what has been seen, and which numbers are missing so far."""

    def __init__(self) -> None:
        self.report = ChainReport()
        self._missing: list[range] = []
        self._unreadable = 0
        self._is_broken = False
        self._last_name = ""

    def add(self, name: str, record: Mapping[str, Any] | None) -> None:
        """Take the next record of the chain."""
        seq = None if record is None else record.get("seq")
        hashes = () if record is None else tuple(record.get(member) for member in _CHAIN_MEMBERS)
        if record is None or type(seq) is not int or seq < 1 or not all(map(_is_hash_text, hashes)):
            self._fault(f"{name} was changed: it is no event of the audit log")
            self._unreadable += 1
            self._is_broken = True
            return
        prev_hash, own_hash = str(hashes[0]), str(hashes[1])
        self.report.count += 1
        if self._is_out_of_order(name, seq):
            return
        is_sound = _has_its_hash(record, prev_hash, own_hash)
        if not is_sound:
            self._fault(f"{name} was changed: event {seq} does not have its hash")
        elif not self._is_broken and prev_hash != self.report.end.hash and self.report.begin is not None:
            self._fault(f"{self._last_name} or {name} was changed: event {seq} does not follow from the one before it")
        if self.report.begin is None:
            self.report.begin = ChainEnd(seq - 1, prev_hash)
        self.report.end, self._last_name, self._is_broken = ChainEnd(seq, own_hash), name, not is_sound

    def _is_out_of_order(self, name: str, seq: int) -> bool:
        """Return whether the record stands where it does not belong; note what is missing before it otherwise."""
        if self.report.begin is None:
            return False
        expected = self.report.end.seq + 1
        if seq > expected:
            self._missing.append(range(expected, seq))
            self._is_broken = True
        if seq >= expected:
            return False
        for index, missing in enumerate(self._missing):
            if seq in missing:
                self._missing[index : index + 1] = [range(missing.start, seq), range(seq + 1, missing.stop)]
                self._fault(f"{name} was moved: event {seq} stands after event {self.report.end.seq}")
                return True
        moved = seq <= self.report.begin.seq
        self._fault(
            f"{name} was moved: event {seq} stands after event {self.report.end.seq}"
            if moved
            else f"{name} was doubled: event {seq} came before"
        )
        return True

    def finish(self, *, after: str | None, head: str | None, may_be_empty: bool) -> None:
        """Compare the ends, and report what never came."""
        report = self.report
        if not report.count and not self._unreadable and not may_be_empty:
            self._fault("it holds no event, so nothing was verified")
            return
        gaps = [missing for missing in self._missing if missing]
        for missing in gaps:
            count = missing.stop - missing.start  # len() knows no numbers as large as a changed line may have
            if count != 1 or not self._unreadable:  # the event of a line that cannot be read was reported
                last = f" to {missing[-1]}" if count > 1 else ""
                self._fault(f"event {missing[0]}{last} was removed")
        if after is not None and report.begin is not None and report.begin.hash != after:
            self._fault(f"the first event, {report.begin.seq + 1}, does not follow the hash {after}: earlier ones lack")
        if head is not None and report.end.hash != head:
            self._fault(f"the last event, {report.end.seq}, does not have the hash {head}: later ones were removed")

    def _fault(self, sentence: str) -> None:
        if len(self.report.faults) < FAULTS_MAX:
            self.report.faults.append(sentence)


def _is_hash_text(value: object) -> bool:
    return isinstance(value, str) and value.isascii()


def _has_its_hash(record: Mapping[str, Any], prev_hash: str, own_hash: str) -> bool:
    """Return whether the hash of an event is its own; one that has none, as with a NaN, was changed."""
    try:
        return link_hash(prev_hash, _without_chain(record)) == own_hash
    except UNREADABLE_ERRORS:
        return False


def _without_chain(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _CHAIN_MEMBERS}
