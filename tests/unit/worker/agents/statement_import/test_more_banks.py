"""Statements in whose layouts an amount was once wrong, turned, or left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Import = Callable[..., dict[str, Any]]
OFX = (
    "OFXHEADER:100\n\n<OFX><STMTRS><CURDEF>EUR<ACCTID>1<BANKTRANLIST>{}</BANKTRANLIST></STMTRS></OFX>",
    "<STMTTRN><DTPOSTED>20260203<TRNAMT>{}<FITID>{}<NAME>A</STMTTRN>",
)
CAMT = (
    "<Document><BkToCstmrStmt><Stmt>{}</Stmt></BkToCstmrStmt></Document>",
    (
        '<Ntry><Amt Ccy="EUR">{}</Amt><CdtDbtInd>DBIT</CdtDbtInd><Sts>BOOK</Sts><BookgDt><Dt>2026-02-03</Dt></BookgDt>'
        "<AcctSvcrRef>{}</AcctSvcrRef>{}</Ntry>"
    ),
    '<TxDtls><Refs><AcctSvcrRef>{}</AcctSvcrRef></Refs><Amt Ccy="EUR">10.00</Amt></TxDtls>',
)
LAYOUTS = {
    "dashes for cents": (
        "Datum;Text;Betrag\n01.02.2026;A;5'000.-\n02.02.2026;B;CHF 12.\u2013\n03.02.2026;C;-7,--\n",
        [5000, 12, -7],
    ),
    "an amount in the currency of the purchase": (
        "Date,Description,Transaction Amount,Transaction Currency,Billing Amount\n2026-02-03,A,-100.00,USD,-92.00\n",
        [-92],
    ),
    "as many purchases as payments of a card": (
        "Date,Description,Card Member,Amount\n01/13/2026,PAYMENT,A B,-45.00\n01/14/2026,SHOP,A B,45.00\n",
        [45, -45],
    ),
    "a card whose credits alone are marked": (
        "Date,Details,Amount\n03 Feb 2026,SHOP,12.50\n04 Feb 2026,PAYMENT,100.00 CR\n05 Feb 2026,SHOP,7.00\n",
        [-12.5, 100, -7],
    ),
    "a column Value": ("Date, Type, Description, Value, Balance\n03/02/2026,POS,SHOP,-12.50,987.50\n", [-12.5]),
    "reais": ("Data;Hist\u00f3rico;Cr\u00e9dito (R$);D\u00e9bito (R$)\n02/02/26;A;;-1.234,56\n", [-1234.56]),
    "zloty": (
        "Data operacji;Data waluty;Kwota;Waluta;Opis transakcji\n2026-02-03;2026-02-02;-12.50;PLN;A\n",
        [-12.5],
    ),
    "three places in OFX": (OFX[0].format(OFX[1].format("-12.500", "7")), [-12.5]),
    "a placeholder for an id in OFX": (OFX[0].format(OFX[1].format("-5.00", "0") * 2), [-5, -5]),
    "a placeholder for an id in CAMT": (CAMT[0].format(CAMT[1].format("10.00", "NOTPROVIDED", "") * 2), [-10, -10]),
    "a batch whose parts have its reference": (
        CAMT[0].format(CAMT[1].format("20.00", "R1", f"<NtryDtls>{CAMT[2].format('R1') * 2}</NtryDtls>")),
        [-10, -10],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_amount_is_there_and_right(name: str, import_text: Import) -> None:
    text, amounts = LAYOUTS[name]
    output = import_text(text)
    assert [each["amount"] for each in output["transactions"]] == amounts
    assert output["unread"] == []


def test_a_second_table_is_told_line_by_line_and_never_read_by_the_first_ones_header(import_text: Import) -> None:
    narrow = "Date,Description,Amount\n2026-02-03,A,-1.00\n"
    wide = "Date,Description,Paid out,Paid in\n2026-02-04,B,2.00,\n"
    balanced = "Date,Description,Amount,Balance\n2026-02-05,C,-3.00,9.00\n"
    for text, amounts, unread in (
        (narrow + "\n" + wide, [-2], [1, 2]),
        (wide + "\n" + narrow, [-2], [4, 5]),
        (balanced + wide, [-3], [3, 4]),
    ):
        output = import_text(text)
        assert [each["amount"] for each in output["transactions"]] == amounts
        assert [each["line"] for each in output["unread"]] == unread
        assert "of another table" in output["unread"][0]["reason"]


def test_lines_whose_type_does_not_say_their_direction_are_noted(import_text: Import) -> None:
    output = import_text("Date,Type,Amount\n2026-02-03,Withdrawal,100.00\n2026-02-04,Card payment,12.50\n")
    assert any("1 positive amounts have none and are read as money in" in note for note in output["notes"])
