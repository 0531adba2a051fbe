#!/usr/bin/env bash
# ofxparse 0.21: a booking whose date has an offset may get another day, without a word, and only if the offset has a name.
#
# Expected: 20260201000000[+1:CET] is the 1st of February, as the bank and its customer write it: either an aware datetime,
#   or a naive one in the bank's time. And [-5] and [-5:EST] are the same, the name of a zone being optional in OFX.
# What happens: the offset is subtracted, so the datetime is in UTC, but it is naive, and the offset is kept nowhere.
#   Midnight in Europe, when only the day is meant, becomes 23:00 of the day before, here of another month; an evening in
#   America becomes the next day. With [-5] instead of [-5:EST] the offset is not seen and the time stays as it is, so
#   two spellings of one moment are five hours apart. The start and the end of the statement are moved as well.
# Versions: ofxparse 0.21, Python 3.11.7; ofxtools 1.1.1 reads the same values as aware datetimes, both spellings alike.
# Why a user of Bucket may meet it: scripts and agents beside Bucket's own import, which takes the day as it is written,
#   read OFX with this library and take .date.date(). The same booking then has two dates, and is found to be two bookings
#   or falls into the other month.
#
# Output seen:
#   ofxparse 0.21, ofxtools 1.1.1
#   in the file              ofxparse, OFX 1      ofxparse, OFX 2      ofxtools
#   20260105200000           2026-01-05 20:00:00  2026-01-05 20:00:00  2026-01-05 20:00:00+00:00
#   20260105200000[-5]       2026-01-05 20:00:00  2026-01-05 20:00:00  2026-01-06 01:00:00+00:00
#   20260105200000[-5:EST]   2026-01-06 01:00:00  2026-01-06 01:00:00  2026-01-06 01:00:00+00:00
#   20260201000000[+1:CET]   2026-01-31 23:00:00  2026-01-31 23:00:00  2026-01-31 23:00:00+00:00
#   as described: yes
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
    ofxparse==0.21 beautifulsoup4==4.15.0 lxml==6.1.3 six==1.17.0 ofxtools==1.1.1

# Without the warnings that beautifulsoup4 gives about how ofxparse calls it; none is about dates.
"$dir/venv/bin/python" -W ignore - <<'PYTHON'
import io
import re
import sys
from importlib.metadata import version

from ofxparse import OfxParser
from ofxtools.Parser import OFXTree

DATES = ["20260105200000", "20260105200000[-5]", "20260105200000[-5:EST]", "20260201000000[+1:CET]"]
STATUS = "<STATUS><CODE>0</CODE><SEVERITY>INFO</SEVERITY></STATUS>"
HEAD_1 = """OFXHEADER:100
DATA:OFXSGML
VERSION:102
SECURITY:NONE
ENCODING:USASCII
CHARSET:1252
COMPRESSION:NONE
OLDFILEUID:NONE
NEWFILEUID:NONE

"""
HEAD_2 = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<?OFX OFXHEADER="200" VERSION="211" SECURITY="NONE" OLDFILEUID="NONE" NEWFILEUID="NONE"?>
"""
BOOKINGS = "".join(
    f"<STMTTRN><TRNTYPE>DEBIT</TRNTYPE><DTPOSTED>{date}</DTPOSTED><TRNAMT>-1.00</TRNAMT>"
    f"<FITID>{number}</FITID><NAME>PAPER</NAME></STMTTRN>\n"
    for number, date in enumerate(DATES)
)
BODY = (
    f"<OFX>\n<SIGNONMSGSRSV1><SONRS>{STATUS}<DTSERVER>20260202</DTSERVER><LANGUAGE>ENG</LANGUAGE></SONRS>"
    f"</SIGNONMSGSRSV1>\n<BANKMSGSRSV1><STMTTRNRS><TRNUID>1</TRNUID>{STATUS}<STMTRS><CURDEF>EUR</CURDEF>\n"
    "<BANKACCTFROM><BANKID>100000</BANKID><ACCTID>1</ACCTID><ACCTTYPE>CHECKING</ACCTTYPE></BANKACCTFROM>\n"
    f"<BANKTRANLIST><DTSTART>20260101</DTSTART><DTEND>20260202</DTEND>\n{BOOKINGS}</BANKTRANLIST>\n"
    "<LEDGERBAL><BALAMT>10.00</BALAMT><DTASOF>20260202</DTASOF></LEDGERBAL>\n"
    "</STMTRS></STMTTRNRS></BANKMSGSRSV1>\n</OFX>\n"
)
# OFX 1 is SGML, in which a value has no closing tag.
FILES = [(HEAD_1 + re.sub(r"(<(\w+)>[^<\n]+)</\2>", r"\1\n", BODY)).encode(), (HEAD_2 + BODY).encode()]


def with_ofxparse(file):
    return [booking.date for booking in OfxParser.parse(io.BytesIO(file)).account.statement.transactions]


def with_ofxtools(file):
    tree = OFXTree()
    tree.parse(io.BytesIO(file))
    return [booking.dtposted for booking in tree.convert().statements[0].transactions]


print(f"ofxparse {version('ofxparse')}, ofxtools {version('ofxtools')}")
first, second = (with_ofxparse(file) for file in FILES)
other, other_second = (with_ofxtools(file) for file in FILES)
print(f"{'in the file':24} {'ofxparse, OFX 1':20} {'ofxparse, OFX 2':20} ofxtools")
for row in zip(DATES, first, second, other, strict=True):
    print("{:24} {!s:20} {!s:20} {}".format(*row))
same = (
    [str(each) for each in first]
    == ["2026-01-05 20:00:00", "2026-01-05 20:00:00", "2026-01-06 01:00:00", "2026-01-31 23:00:00"]
    and second == first
    and other_second == other  # both files are valid to the other reader
    and other[1] == other[2]
    and all(each.tzinfo for each in other)
)
print("as described:", "yes" if same else "NO, it has changed")
sys.exit(0 if same else 1)
PYTHON
