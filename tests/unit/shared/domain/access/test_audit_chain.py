"""The hash chain: each way to tamper with it is found and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.domain.access.audit_chain import GENESIS_HASH, ChainReport, chained_view, link_hash, parse_lines, verify
from shared.domain.access.audit_event import AuditEvent, Outcome, definition_text, event_view

CHANGED_4 = "line 4 was changed: event 4 does not have its hash"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
Lines = list[bytes]


def make(first: int = 1, last: int = 8) -> Lines:
    prev, lines = GENESIS_HASH, []
    for seq in range(1, last + 1):
        after = definition_text({"name": "Zoë", "share": 0.1 + 0.2, "input": {"n": 2**53, "x": [None, True]}})
        event = AuditEvent(NOW, "basket.create", Outcome.OK, "key:x", object=f"basket {seq}", after=after)
        view = event_view(seq, event)
        own = link_hash(prev, view)
        lines.append(json.dumps(chained_view(view, prev, own)).encode())
        prev = own
    return lines[first - 1 :]


def check(lines: Lines, **demands: Any) -> ChainReport:
    return verify(parse_lines(lines), **demands)


def edited(line: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(line), **changes}).encode()


def rehashed(line: bytes, **changes: Any) -> bytes:
    record = {**json.loads(line), **changes}
    prev = record.pop("prev_hash")
    record.pop("hash")
    return json.dumps(chained_view(record, prev, link_hash(prev, record))).encode()


def test_a_sound_chain_has_no_fault_whatever_way_its_lines_are_written() -> None:
    lines = make()
    spaced = [json.dumps(json.loads(line), indent=None, sort_keys=True).encode() + b"\r\n" for line in lines]
    for each in (lines, spaced):
        report = check(each, from_start=True, head=json.loads(lines[-1])["hash"])
        assert (report.faults, report.count, report.end.seq) == ([], 8, 8)


@pytest.mark.parametrize(
    ("tamper", "faults"),
    [
        (lambda c: [*c[:3], *c[4:]], ["event 4 was removed"]),
        (lambda c: [*c[:3], *c[5:]], ["event 4 to 5 was removed"]),
        (lambda c: [*c[:3], edited(c[3], subject="key:y"), *c[4:]], [CHANGED_4]),
        (lambda c: [*c[:3], edited(c[3], note="more"), *c[4:]], [CHANGED_4]),
        (lambda c: [*c[:3], edited(c[3], zz=float("nan")), *c[4:]], [CHANGED_4]),
        (lambda c: [*c[:3], edited(c[3], zz="\ud800"), *c[4:]], [CHANGED_4]),
        (lambda c: [*c[:3], edited(c[3], subject=None, hash=""), *c[4:]], [CHANGED_4]),
        (
            lambda c: [*c[:3], edited(c[3], hash="\ud800"), *c[4:]],
            ["line 4 was changed: it is no event of the audit log"],
        ),
        (
            lambda c: [*c[:7], edited(c[7], seq=10**30)],
            [f"line 8 was changed: event {10**30} does not have its hash", f"event 8 to {10**30 - 1} was removed"],
        ),
        (lambda c: [*c[:3], b"{", *c[4:]], ["line 4 was changed: it is no event of the audit log"]),
        (
            lambda c: [*c[:3], rehashed(c[3], subject="key:y"), *c[4:]],
            ["line 4 or line 5 was changed: event 5 does not follow from the one before it"],
        ),
        (lambda c: [*c[:4], c[3], *c[4:]], ["line 5 was doubled: event 4 came before"]),
        (lambda c: [*c[:2], c[3], c[2], *c[4:]], ["line 4 was moved: event 3 stands after event 4"]),
        (lambda c: [*c[1:4], c[0], *c[4:]], ["line 4 was moved: event 1 stands after event 4"]),
    ],
)  # fmt: skip
def test_what_was_done_to_a_line_is_named(tamper: Callable[[Lines], Lines], faults: list[str]) -> None:
    assert check(tamper(make())).faults == faults


def test_a_later_export_says_what_it_follows() -> None:
    whole, later = make(), make(first=5)
    before = json.loads(whole[3])["hash"]

    report = check(later, after=before)
    assert report.faults == []
    assert report.begin is not None
    assert (report.begin.seq, report.begin.hash) == (4, before)
    assert check(later, from_start=True).faults
    assert check(later, after=GENESIS_HASH).faults


def test_a_missing_end_is_found_by_the_last_hash() -> None:
    lines = make()
    head = json.loads(lines[-1])["hash"]

    assert check(lines[:-1]).faults == []
    [fault] = check(lines[:-1], head=head).faults
    assert "later ones were removed" in fault
    assert check([], head=head).faults


@pytest.mark.parametrize("demands", [{}, {"from_start": True}, {"after": "f" * 64}, {"head": "f" * 64}])
def test_a_chain_without_any_event_is_a_fault_unless_it_may_be_empty(demands: dict[str, Any]) -> None:
    assert check([], **demands).faults == ["it holds no event, so nothing was verified"]
    [changed] = check([b"nonsense"]).faults
    assert "line 1 was changed" in changed


def test_a_chain_that_may_be_empty_still_ends_with_the_hash_that_is_demanded() -> None:
    assert check([], from_start=True, may_be_empty=True).faults == []
    [fault] = check([], head="f" * 64, may_be_empty=True).faults
    assert "later ones were removed" in fault


def test_a_reader_can_compute_a_hash_by_hand() -> None:
    """The rule that docs/audit.md states, for verifiers in other languages."""
    view = event_view(1, AuditEvent(NOW, "key.create", Outcome.OK, "key:é"))
    text = (
        '{"action":"key.create","address":null,"at":"2026-11-21T12:00:00.000Z","integrator":null,"key_id":null,'
        '"object":null,"outcome":"ok","request_id":null,"seq":1,"subject":"key:é"}'
    )
    assert link_hash(GENESIS_HASH, view) == hashlib.sha256(("0" * 64 + "\n" + text).encode()).hexdigest()
