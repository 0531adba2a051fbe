"""Recognises the anushtubh (shloka) by the weights of its syllables: four quarters of eight.

The rule of the handbooks: in each quarter the fifth syllable is light and the sixth heavy; the seventh is heavy in the
odd quarters and light in the even ones (pathya). The odd quarters may have one of four other cadences (vipula).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

QUARTER: Final = 8
VERSE: Final = 4 * QUARTER
_EVEN: Final = "LGL"
_PATHYA: Final = "LGG"
_VIPULAS: Final = {"LLL": "na", "GLL": "bha", "GGG": "ma", "GLG": "ra"}


def judge_metre(segments: Sequence[str]) -> dict[str, Any]:
    """Return ``{name, form, verses, reason}``; ``name`` is null with the reason if it is not anushtubh.

    A segment must hold one, two or four whole quarters, so that no quarter runs over its end.
    """
    weights = "".join(segments)
    if not weights or len(weights) % VERSE or any(len(segment) % QUARTER for segment in segments):
        counts = ", ".join(str(len(segment)) for segment in segments[:8]) or "none"
        return _verdict(f"it needs verses of 32 syllables in segments of 8, 16 or 32; the segments have {counts}")
    vipulas = set()
    for number in range(len(weights) // QUARTER):
        quarter = weights[number * QUARTER : (number + 1) * QUARTER]
        cadence, is_even = quarter[4:7], number % 2 == 1
        if is_even and cadence != _EVEN:
            return _verdict(f"quarter {number + 1} has {cadence} as syllables 5 to 7 where an even one has {_EVEN}")
        if not is_even and cadence in _VIPULAS:
            vipulas.add(_VIPULAS[cadence])
        elif not is_even and cadence != _PATHYA:
            return _verdict(f"quarter {number + 1} has {cadence} as syllables 5 to 7, neither pathya nor vipula")
    form = f"vipula ({', '.join(sorted(vipulas))})" if vipulas else "pathya"
    return {"name": "anushtubh", "form": form, "verses": len(weights) // VERSE, "reason": None}


def _verdict(reason: str) -> dict[str, Any]:
    return {"name": None, "form": None, "verses": 0, "reason": reason}
