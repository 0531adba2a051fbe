"""The sounds of Sanskrit and their signs in Devanagari and in IAST; reads both, writes both."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

VIRAMA: Final = "्"
_JOINERS: Final = dict.fromkeys((0x200C, 0x200D))
"""The zero-width joiner and non-joiner choose among shapes of one sound."""


def _names(text: str) -> list[str]:
    return text.split()


_VOWELS: Final = dict(zip(_names("a ā i ī u ū ṛ ṝ ḷ ḹ e ai o au"), "अआइईउऊऋॠऌॡएऐओऔ", strict=True))
_VOWEL_SIGNS: Final = dict(zip(_names("ā i ī u ū ṛ ṝ ḷ ḹ e ai o au"), "ािीुूृॄॢॣेैोौ", strict=True)) | {"a": ""}
_CONSONANTS: Final = dict(
    zip(
        _names("k kh g gh ṅ c ch j jh ñ ṭ ṭh ḍ ḍh ṇ t th d dh n p ph b bh m y r l ḻ v ś ṣ s h"),
        "कखगघङचछजझञटठडढणतथदधनपफबभमयरलळवशषसह",
        strict=True,
    )
)
_MARKS: Final = {"ṃ": "\u0902", "ḥ": "\u0903", "m̐": "\u0901"}
_AVAGRAHA: Final = {"'": "ऽ"}
_SIGNS: Final = {"|": "।", "||": "॥"} | {str(digit): chr(0x0966 + digit) for digit in range(10)}
_KINDS: Final = {
    name: kind
    for kind, names in (
        ("vowel", _VOWELS),
        ("consonant", _CONSONANTS),
        ("mark", _MARKS),
        ("avagraha", _AVAGRAHA),
        ("sign", _SIGNS),
    )
    for name in names
}
_LETTERS: Final = {
    sign: name for table in (_VOWELS, _CONSONANTS, _MARKS, _AVAGRAHA, _SIGNS) for name, sign in table.items()
}
_NAME_BY_SIGN: Final = {sign: name for name, sign in _VOWEL_SIGNS.items() if sign}
# Other ways to write the same sound: ISO 15919, typographic apostrophes, and vowels that stand alone after a vowel.
_SAME: Final = {"ṁ": "ṃ", "r̥": "ṛ", "r̥̄": "ṝ", "l̥": "ḷ", "\u2019": "'", "ï": "i", "ü": "u", "ē": "e", "ō": "o"}
_BY_TEXT: Final = {unicodedata.normalize("NFC", name): name for name in (*_KINDS, *_SAME)}
_LONGEST: Final = max(map(len, _BY_TEXT))


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound or sign by its IAST name; ``kind`` is vowel, consonant, mark, avagraha, sign, other or unread."""

    kind: str
    iast: str

    @property
    def is_sound(self) -> bool:
        """Whether it is a part of a word."""
        return self.kind in ("vowel", "consonant", "mark", "avagraha")


def tokenise(text: str) -> list[Sound]:
    """Return the sounds of a text in Devanagari, IAST or both; a letter that neither has is of the kind ``unread``."""
    text = unicodedata.normalize("NFC", text.translate(_JOINERS).lower()).replace("ॐ", "ओं")
    sounds: list[Sound] = []
    at = 0
    while at < len(text):
        mark = text[at]
        if mark in _LETTERS:
            sounds.append(_sound(_LETTERS[mark]))
            if sounds[-1].kind == "consonant":
                at = _read_vowel_sign(text, at + 1, sounds) - 1
            at += 1
            continue
        length = next((size for size in range(_LONGEST, 0, -1) if text[at : at + size] in _BY_TEXT), 0)
        if length:
            name = _BY_TEXT[text[at : at + length]]
            sounds.append(_sound(_SAME.get(name, name)))
        else:
            is_letter = unicodedata.category(mark)[0] in "LM"
            sounds.append(Sound("unread" if is_letter else "other", mark))
        at += length or 1
    return sounds


def _sound(name: str) -> Sound:
    return Sound(_KINDS[name], name)


def _read_vowel_sign(text: str, at: int, sounds: list[Sound]) -> int:
    """Add the vowel of the Devanagari consonant before ``at``, which is a if no sign says otherwise."""
    sign = text[at : at + 1]
    if sign == VIRAMA:
        return at + 1
    sounds.append(_sound(_NAME_BY_SIGN.get(sign, "a")))
    return at + (sign in _NAME_BY_SIGN)


def to_iast(sounds: Sequence[Sound]) -> str:
    """Write in IAST; a vowel i or u after a stays apart from ai and au by a diaeresis."""
    parts = []
    before = ""
    for sound in sounds:
        is_hiatus = before == "a" and sound.kind == "vowel" and sound.iast in ("i", "u")
        parts.append({"i": "ï", "u": "ü"}[sound.iast] if is_hiatus else sound.iast)
        before = sound.iast
    return unicodedata.normalize("NFC", "".join(parts))


def to_devanagari(sounds: Iterable[Sound]) -> str:
    """Write in Devanagari; what is no sound of Sanskrit stays as it is."""
    parts: list[str] = []
    after_consonant = False
    for sound in sounds:
        if sound.kind == "vowel":
            parts.append(_VOWEL_SIGNS[sound.iast] if after_consonant else _VOWELS[sound.iast])
        else:
            parts += [VIRAMA] if after_consonant else []
            parts.append(_sign_of(sound))
        after_consonant = sound.kind == "consonant"
    return "".join([*parts, VIRAMA] if after_consonant else parts)


def _sign_of(sound: Sound) -> str:
    for table in (_CONSONANTS, _MARKS, _AVAGRAHA, _SIGNS):
        if sound.kind in ("other", "unread"):
            break
        if sound.iast in table:
            return table[sound.iast]
    return sound.iast
