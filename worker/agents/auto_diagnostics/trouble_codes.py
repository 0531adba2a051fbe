"""Trouble codes (SAE J2012, ISO 15031-6): what a code says by its form alone."""

from __future__ import annotations

import re
from typing import Final

_CODE: Final = re.compile(r"[PBCU][0-3][0-9A-F]{3}", re.ASCII)
_LETTERS: Final = {
    "P": "powertrain (engine and transmission)",
    "B": "body (airbags, comfort)",
    "C": "chassis (brakes, steering)",
    "U": "network between the control units",
}
_AREAS: Final = {
    "0": "fuel, air and auxiliary emission control",
    "1": "fuel and air metering",
    "2": "fuel and air metering, injectors",
    "3": "ignition or misfire",
    "4": "auxiliary emission control",
    "5": "vehicle speed and idle control",
    "6": "control unit and its outputs",
    "7": "transmission",
    "8": "transmission",
    "9": "transmission",
    "A": "hybrid drive",
    "B": "hybrid drive",
    "C": "hybrid drive",
}


def is_trouble_code(code: str) -> bool:
    """Return whether ``code``, in capitals, has the form of a trouble code."""
    return _CODE.fullmatch(code) is not None


def describe_unknown_code(code: str) -> str:
    """Return what the letter, the first digit and, for a generic powertrain code, the second digit mean."""
    generic = _is_generic(code)
    if generic is None:
        origin = f"whose range {code[:2]} is reserved"
    else:
        origin = "that is the same for all makes" if generic else "that the manufacturer defines"
    area = _AREAS.get(code[2], "") if code[:2] == "P0" else ""
    return f"A code of the {_LETTERS[code[0]]} {origin}{area and f'; area: {area}'}. It is not in the table"


def _is_generic(code: str) -> bool | None:
    letter, digit = code[0], code[1]
    if digit in "01":
        return digit == "0"
    if letter == "P":
        # P2 and P34 to P3F are generic, P30 to P33 are the manufacturers'.
        return digit == "2" or code[2] not in "0123"
    if digit == "2":
        return False
    return True if letter == "U" else None
