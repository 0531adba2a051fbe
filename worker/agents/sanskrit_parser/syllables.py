"""Aksharas of words, and whether their syllables are light or heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .sounds import Sound

HEAVY: Final = "G"
LIGHT: Final = "L"
_SHORT: Final = frozenset(("a", "i", "u", "ṛ", "ḷ"))
_HEAVY_MARKS: Final = frozenset(("ṃ", "ḥ"))
_CONJUNCT: Final = 2


@dataclass(frozen=True, slots=True)
class Akshara:
    """A vowel with the consonants before it and the marks after it; a word's last consonants go to its last akshara."""

    sounds: tuple[Sound, ...]

    @property
    def vowel(self) -> str | None:
        """The name of its vowel; None if a word has no vowel at all."""
        return next((sound.iast for sound in self.sounds if sound.kind == "vowel"), None)

    def consonants_before(self) -> int:
        """Return how many consonants stand before the vowel."""
        return self._consonants()[0]

    def consonants_after(self) -> int:
        """Return how many consonants stand after the vowel."""
        return self._consonants()[1]

    def _consonants(self) -> tuple[int, int]:
        kinds = [sound.kind for sound in self.sounds]
        at = kinds.index("vowel") if "vowel" in kinds else len(kinds)
        return kinds[:at].count("consonant"), kinds[at:].count("consonant")


def aksharas_of(word: Sequence[Sound]) -> list[Akshara]:
    """Split one word."""
    groups: list[list[Sound]] = [[]]
    has_vowel = False
    for sound in word:
        if has_vowel and sound.kind != "mark":
            groups.append([])
            has_vowel = False
        groups[-1].append(sound)
        has_vowel |= sound.kind == "vowel"
    # What follows the last vowel opened a group without a vowel for each consonant.
    while len(groups) > 1 and not any(sound.kind == "vowel" for sound in groups[-1]):
        groups[-2:] = [groups[-2] + groups[-1]]
    return [Akshara(tuple(group)) for group in groups if group]


def weigh(aksharas: Sequence[Akshara]) -> list[str | None]:
    """Return ``G`` or ``L`` for each akshara of a segment, across its words; None for one without a vowel."""
    return [
        None if akshara.vowel is None else HEAVY if _is_heavy(akshara, aksharas[at + 1 : at + 2]) else LIGHT
        for at, akshara in enumerate(aksharas)
    ]


def _is_heavy(akshara: Akshara, following: Sequence[Akshara]) -> bool:
    if akshara.vowel not in _SHORT or any(sound.iast in _HEAVY_MARKS for sound in akshara.sounds):
        return True
    consonants = akshara.consonants_after()
    if not following:
        return consonants > 0
    return consonants + following[0].consonants_before() >= _CONJUNCT
