"""Vehicle identification numbers (ISO 3779): their form and, as North America requires it, their check digit."""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = re.compile(r"[A-HJ-NPR-Z0-9]{17}", re.ASCII)
_VALUES: Final = {str(digit): digit for digit in range(10)} | dict(
    zip("ABCDEFGHJKLMNPRSTUVWXYZ", map(int, "12345678123457923456789"), strict=True)
)
_WEIGHTS: Final = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_CHECK_POSITION: Final = 8


def check_digit_of(number: str) -> str:
    """Return the digit, or X for ten, that place nine of a well-formed number must have (49 CFR 565)."""
    rest = sum(_VALUES[mark] * weight for mark, weight in zip(number, _WEIGHTS, strict=True)) % 11
    return "0123456789X"[rest]


def find_number_faults(vin: str) -> list[str]:
    """Return a warning if the number has a wrong form or check digit, else an empty list."""
    number = vin.strip().upper()
    if not _NUMBER.fullmatch(number):
        return [f"the VIN {number!r} is not 17 letters and digits without I, O and Q; it may be older than 1981"]
    expected = check_digit_of(number)
    found = number[_CHECK_POSITION]
    if found == expected:
        return []
    reason = "a digit may be wrong; vehicles that were not made for North America need not have one"
    return [f"the check digit of the VIN is {found!r} and should be {expected!r}: {reason}"]
