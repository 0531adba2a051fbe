"""Transliterates Sanskrit both ways, splits it into words and aksharas, weighs syllables and recognises anushtubh."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from worker.context import AgentContext

from .anushtubh import judge_metre
from .sounds import Sound, to_devanagari, to_iast, tokenise
from .syllables import Akshara, aksharas_of, weigh

_LEXICON: Final[dict[str, dict[str, str]]] = orjson.loads((Path(__file__).parent / "lexicon.json").read_bytes())
_SEGMENT_ENDS: Final = frozenset(("\n", "|", "||"))
_SCRIPT: Final = {(True, False): "devanagari", (False, True): "iast", (True, True): "mixed", (False, False): "none"}
_DEVANAGARI: Final = re.compile("[\u0904-\u0939\u0950\u0960\u0961]")
UNREAD_MAX: Final = 50


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{script, iast, devanagari, segments, metre, unread, ...}``; a segment ends with a line or a danda."""
    text = given["text"].replace("\r\n", "\n").replace("\r", "\n")
    sounds = tokenise(text)
    segments = [_describe(segment) for segment in _segments_of(sounds)]
    words = [word for segment in segments for word in segment["words"]]
    known = sum(word["lexicon"] is not None for word in words)
    unread = Counter(sound.iast for sound in sounds if sound.kind == "unread")
    ctx.log("parsed", words=len(words), known_words=known, unread=unread.total())
    return {
        "script": _SCRIPT[bool(_DEVANAGARI.search(text)), any(mark.isalpha() and mark < "\u0900" for mark in text)],
        "iast": to_iast(sounds),
        "devanagari": to_devanagari(sounds),
        "segments": segments,
        "words": len(words),
        "known_words": known,
        "metre": judge_metre([segment["weights"] for segment in segments]),
        "unread": [{"character": mark, "count": count} for mark, count in unread.most_common(UNREAD_MAX)],
        "basis": f"Words are what blanks separate; joined words (sandhi) stay joined. The lexicon has {len(_LEXICON)} "
        "forms and gives one reading of each. G (guru, heavy): a long vowel, anusvara or visarga, or two consonants "
        "after the vowel, also of the next word; else L (laghu, light). An akshara is a vowel with the consonants "
        "before it; a word's last consonants belong to its last akshara.",
    }


def _segments_of(sounds: Iterable[Sound]) -> list[list[list[Sound]]]:
    """Return the words of each segment; a segment without a word is left out."""
    segments: list[list[list[Sound]]] = [[[]]]
    for sound in sounds:
        if sound.is_sound:
            segments[-1][-1].append(sound)
        elif sound.iast in _SEGMENT_ENDS:
            segments.append([[]])
        else:
            segments[-1].append([])
    words = ([word for word in segment if word] for segment in segments)
    return [segment for segment in words if segment]


def _describe(words: Sequence[Sequence[Sound]]) -> dict[str, Any]:
    aksharas = [aksharas_of(word) for word in words]
    weights = weigh([akshara for word in aksharas for akshara in word])
    described, at = [], 0
    for word, parts in zip(words, aksharas, strict=True):
        described.append(_describe_word(word, parts, weights[at : at + len(parts)]))
        at += len(parts)
    return {
        "iast": " ".join(word["iast"] for word in described),
        "devanagari": " ".join(word["devanagari"] for word in described),
        "words": described,
        "weights": "".join(weight for weight in weights if weight),
        "syllables": sum(weight is not None for weight in weights),
    }


def _describe_word(word: Sequence[Sound], aksharas: Sequence[Akshara], weights: Sequence[str | None]) -> dict[str, Any]:
    iast = to_iast(word)
    # A final m is written as anusvara before a consonant.
    entry = _LEXICON.get(iast[:-1] + "m" if iast.endswith("ṃ") else iast)
    return {
        "iast": iast,
        "devanagari": to_devanagari(word),
        "aksharas": [
            {"iast": to_iast(akshara.sounds), "devanagari": to_devanagari(akshara.sounds), "weight": weight}
            for akshara, weight in zip(aksharas, weights, strict=True)
        ],
        "lexicon": entry,
    }
