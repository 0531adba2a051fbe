"""What is no statement, or means harm, is refused in words; nothing raises another error, whatever the text."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from worker.agent_errors import InvalidInputError
from worker.agents.statement_import.agent import FORMATS

Import = Callable[..., dict[str, Any]]
STATEMENTS = Path(__file__).parent / "statements"
ROOT = Path(__file__).parents[5]
NESTED_ENTITIES = (
    '<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><Document><BkToCstmrStmt>&b;</BkToCstmrStmt></Document>'
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" \n\t", "the text is empty"),
        ("Dear customer,\nplease find", "no header line was found"),
        ("Name;Age\nA;1\n", "no header line was found"),
        ("<html><body>sign in</body></html>", "no bank statement"),
        ('<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.001.001.03"><CstmrCdtTrfInitn/></Document>', "pain.001"),
        ("<Document><unclosed></Document>", "cannot be read"),
        (NESTED_ENTITIES, "document type or entities"),
        ('<!DOCTYPE d SYSTEM "file:///etc/hostname"><Document/>', "document type or entities"),
        ("<Document>&undeclared;</Document>", "cannot be read"),
        ("<a>" * 100, "nested deeper than 64"),
        ("<a>" + "<b/>" * 200_001, "more than 200,000 elements"),
        ('<?OFX OFXHEADER="200"?><!DOCTYPE OFX [<!ENTITY a "b">]><OFX/>', "document type or entities"),
        ("<OFX><SIGNONMSGSRSV1></SIGNONMSGSRSV1></OFX>", "the OFX has no statement"),
        (":20:A\n:25:B\n", "the MT940 has no statement"),
        ('{"a": 1}', "no list of transactions"),
        ('[{"a": 1}]', "has a date"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"date": "2026-01-01", "amount": NaN}]', "NaN"),
        ("[1, 2", "cannot be read"),
        ("Date,Amount\n" + "\n" * 100_001, "at most 100,000"),
    ],
)
def test_what_is_no_statement_is_refused_with_what_was_seen(text: str, reason: str, import_text: Import) -> None:
    with pytest.raises(InvalidInputError, match=reason) as raised:
        import_text(text)
    assert len(str(raised.value)) < 1000


def test_a_refusal_of_auto_says_what_was_tried(import_text: Import) -> None:
    with pytest.raises(InvalidInputError, match=r"looked like csv .of csv, ofx, mt940, camt053, json"):
        import_text("hello")


def test_a_number_of_a_billion_digits_is_not_written_out(import_text: Import) -> None:
    text = (
        '[{"date":"2026-01-01","amount":1e999999999},{"date":1e999999,"amount":1},{"date":"2026-01-01","amount":0.1}]'
    )
    output = import_text(text)
    assert [each["amount"] for each in output["transactions"]] == [0.1]
    assert output["unread_count"] == 2


def test_an_mt940_booking_that_cannot_be_read_is_in_no_log(
    import_text: Import, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        output = import_text(":20:A\n:25:B\n:61:261305C1,00NTRFsecret\n:61:2601059C1,00NTRFsecret\n")
    assert output["unread_count"] == 2
    assert "secret" not in caplog.text


def test_a_text_that_is_the_name_of_a_file_does_not_open_it(import_text: Import) -> None:
    with pytest.raises(InvalidInputError):
        import_text(str(STATEMENTS / "german.sta"), format="mt940")


FRAGMENTS = """
Date;Amount|Datum,Betrag|01/02/2026;|2026-01-05,|-1.234,56|"|;|,|(|:61:|2601050105D|5,00NTRF|:86:105?20|{4:|<OFX>
<STMTTRN>|</STMTTRN>|<TRNAMT>|<DTPOSTED>20260105|<|</|<Document>|<BkToCstmrStmt><Stmt><Ntry>|</Ntry>|&#0;|&amp;|"amount":
<Amt Ccy="EUR">1</Amt>|[{"date":|1e400|{|}|]|null|{"transactions":[|"\\ud800"|\x00|\ud7ff|\u00b2|\u0663
"""
PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["\n", ":20:A\n:60F:C260101EUR1,00\n", "\n:62F:", *FRAGMENTS.strip().replace("\n", "|").split("|")]
    ),
)


@drawn(st.lists(PIECES, min_size=1, max_size=12).map("".join).filter(bool), st.sampled_from(["auto", *FORMATS]))
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_text_raises_anything_but_invalid_input(import_text: Import, text: str, statement_format: str) -> None:
    with contextlib.suppress(InvalidInputError):
        import_text(text, format=statement_format)


@drawn(st.sampled_from(sorted(path.name for path in STATEMENTS.iterdir())), st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_damage_to_a_statement_raises_anything_but_invalid_input(
    import_text: Import, name: str, data: st.DataObject
) -> None:
    text = (STATEMENTS / name).read_bytes().decode()
    at, until = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    damaged = data.draw(st.sampled_from([text[:at], text[:at] + text[until:], text[:at] + "\ufffd" + text[at + 1 :]]))
    with contextlib.suppress(InvalidInputError):
        import_text(damaged or "x")


def test_the_parsers_of_mt940_and_xml_are_loaded_only_when_they_are_needed() -> None:
    program = (
        "import worker.agents.statement_import.agent, sys; print('mt940' in sys.modules, 'xml.etree' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.split() == ["False", "False"]
