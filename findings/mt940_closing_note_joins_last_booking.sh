#!/usr/bin/env bash
# mt-940 5.1: the note of a bank to the whole statement (field 86 after the closing balance) becomes part of the last
# booking's purpose, or the purpose of a booking that has none, or that of another account's booking.
#
# Expected: MT940 has field 86 in two places. After a field 61 it describes that booking; after the balances at the end
#   (62F, 64, 65) it tells the account owner something about the statement as a whole. A reader keeps the two apart.
# What happens: each field 86 is added to the booking that was begun last, wherever it stands. The bank's note follows
#   the purpose of the last booking on a new line, and becomes its whole purpose if it has none. mt940.parse() of a file
#   with two statements, the second without bookings, adds the second account's note to a booking of the first account.
#   The statement's own data does not have the note, there is no warning, and Options.all(), with all the fixes that
#   can be chosen, changes nothing. Only parse_statements() keeps a note from going to another statement; it drops
#   the note of a statement without bookings.
# Versions: mt-940 5.1.1, Python 3.11.7.
# Why a user of Bucket may meet it: bookings are sorted and matched by their purpose, and a bank's note or sum line then
#   sends the last booking of each day astray, and no other. Bucket's own import splits the fields itself and gives the
#   library each booking with the field 86 right after it; an agent of one's own that calls mt940.parse() gets the note.
#
# Output seen:
#   mt-940 5.1.1
#   purpose of the last booking:                 'PAPER\nNEW PRICES FROM 1 APRIL'
#   the same, all options on:                    'PAPER\nNEW PRICES FROM 1 APRIL'
#   purpose of a last booking without one:       'NEW PRICES FROM 1 APRIL'
#   the note in the statement's own data:        no
#   two accounts, note only to the second:       'PAPER\nACCOUNT 2 IS CLOSED'
#   the same with parse_statements():            'PAPER', and of the second statement nothing
#   as described: yes
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check mt-940==5.1.1

"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import mt940

BOOKINGS = """:20:STATEMENT1
:25:10000000/0000000001
:28C:00001/001
:60F:C260105EUR100,00
:61:2601060106C50,00NTRFONE
:86:RENT
:61:2601060106D20,00NTRFTWO
:86:PAPER
:62F:C260106EUR130,00
"""
NOTE = ":64:C260106EUR130,00\n:86:NEW PRICES FROM 1 APRIL\n"
EMPTY = """:20:STATEMENT2
:25:10000000/0000000002
:28C:00001/001
:60F:C260105EUR0,00
:62F:C260106EUR0,00
:86:ACCOUNT 2 IS CLOSED
"""


def last_purpose(bookings):
    return bookings[-1].data["transaction_details"]


print("mt-940", version("mt-940"))
whole = mt940.parse(BOOKINGS + NOTE)
split = list(mt940.parse_statements(BOOKINGS + EMPTY))
seen = {
    "purpose of the last booking:": last_purpose(whole),
    "the same, all options on:": last_purpose(mt940.parse(BOOKINGS + NOTE, options=mt940.Options.all())),
    "purpose of a last booking without one:": last_purpose(mt940.parse(BOOKINGS.replace(":86:PAPER\n", "") + NOTE)),
    "the note in the statement's own data:": "NEW PRICES" in str(whole.data),
    "two accounts, note only to the second:": last_purpose(mt940.parse(BOOKINGS + EMPTY)),
    "the same with parse_statements():": (last_purpose(split[0]), "CLOSED" in str(split[1].data) or len(split[1]) > 0),
}
for title, value in seen.items():
    if isinstance(value, tuple):
        text = f"{value[0]!r}, and of the second statement {'the note' if value[1] else 'nothing'}"
    else:
        text = ("yes" if value else "no") if isinstance(value, bool) else repr(value)
    print(f"{title:44} {text}")

same = list(seen.values()) == [
    "PAPER\nNEW PRICES FROM 1 APRIL",
    "PAPER\nNEW PRICES FROM 1 APRIL",
    "NEW PRICES FROM 1 APRIL",
    False,
    "PAPER\nACCOUNT 2 IS CLOSED",
    ("PAPER", False),
]
print("as described:", "yes" if same else "NO, it has changed")
sys.exit(0 if same else 1)
PYTHON
