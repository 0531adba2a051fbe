"""How many decimals a currency's amounts have (the minor units of ISO 4217)."""

from __future__ import annotations

import re
from typing import Final

CURRENCY_PATTERN: Final = re.compile(r"[A-Z]{3}", re.ASCII)
_WITHOUT_DECIMALS: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_WITH_THREE: Final = "BHD IQD JOD KWD LYD OMR TND"
_WITH_FOUR: Final = "CLF UYW"
_DECIMALS: Final = {
    code: decimals
    for codes, decimals in ((_WITHOUT_DECIMALS, 0), (_WITH_THREE, 3), (_WITH_FOUR, 4))
    for code in codes.split()
}


def decimals_of(currency: str) -> int:
    """Return the decimals of a currency; 2 for all that are not listed, and for ``""``, no currency."""
    return _DECIMALS.get(currency, 2)
