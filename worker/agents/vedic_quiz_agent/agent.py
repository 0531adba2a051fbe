"""Makes a quiz from the questions in ``questions.json``, the same one for the same seed, and grades answers to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from worker.agent_errors import InvalidInputError
from worker.agent_parts.iso_dates import parse_date
from worker.agent_parts.whole_numbers import with_integers
from worker.context import AgentContext

from .grading import grade, scores_of

_BANK: Final[list[dict[str, Any]]] = orjson.loads((Path(__file__).parent / "questions.json").read_bytes())
ANY: Final = "any"
COUNT_DEFAULT: Final = 5
SEED_DEFAULT: Final = 0
LETTERS: Final = "ABCD"


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{questions, seed, scores, notes, ...}``, and ``grading`` if there are ``answers``.

    ``scores`` is what gurukul_feedback takes: the input's, and one for each subject that was graded.
    """
    given = with_integers(given)
    seed, count = given.get("seed", SEED_DEFAULT), given.get("count", COUNT_DEFAULT)
    chosen = [question for question in _shuffled(_BANK, seed) if _is_wanted(question, given)]
    notes = (
        [] if "seed" in given else [f"The input has no seed: {SEED_DEFAULT} was used, which always gives this quiz."]
    )
    if len(chosen) < count:
        notes.append(f"The bank has {len(chosen)} questions of this kind, and {count} were requested.")
    questions = [_with_options(question, seed) for question in chosen[:count]]
    output: dict[str, Any] = {
        "questions": [_shown(question, solved=given.get("with_solutions", False)) for question in questions],
        "seed": seed,
        "available": len(chosen),
        "scores": list(given.get("scores", ())),
        "notes": notes,
        "basis": f"A bank of {len(_BANK)} questions; questions and options are ordered by the seed alone.",
    }
    if "answers" in given:
        _check_answers(given["answers"], questions, seed)
        parse_date(given["date"], "/date")
        output["grading"] = grade(questions, given["answers"])
        output["scores"] += scores_of(output["grading"]["results"], given["date"], given.get("student"))
    ctx.log("made a quiz", questions=len(questions), seed=seed, graded="answers" in given)
    return output


def _is_wanted(question: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return all(given.get(name, ANY) in (ANY, question[name]) for name in ("subject", "difficulty"))


def _shuffled(entries: Sequence[Any], seed: int, salt: str = "") -> list[Any]:
    """Order by a hash, not by ``random``: its order may differ between versions of Python."""

    def rank(entry: Any) -> bytes:
        name = entry["id"] if isinstance(entry, dict) else entry
        return hashlib.sha256(f"{seed}:{salt}:{name}".encode()).digest()

    return sorted(entries, key=rank)


def _with_options(question: Mapping[str, Any], seed: int) -> dict[str, Any]:
    texts = _shuffled([question["correct"], *question["wrong"]], seed, question["id"])
    options = [{"letter": letter, "text": text} for letter, text in zip(LETTERS, texts, strict=True)]
    return {**question, "options": options, "letter": LETTERS[texts.index(question["correct"])]}


def _shown(question: Mapping[str, Any], *, solved: bool) -> dict[str, Any]:
    names = ("id", "subject", "difficulty", "question", "options", *(("letter", "explanation") if solved else ()))
    return {name: question[name] for name in names}


def _check_answers(answers: Sequence[Mapping[str, Any]], questions: Sequence[Mapping[str, Any]], seed: int) -> None:
    ids = {question["id"] for question in questions}
    answered: set[str] = set()
    for number, answer in enumerate(answers):
        if answer["id"] not in ids:
            raise InvalidInputError(
                f"/answers/{number}/id: {answer['id']!r} is not in this quiz of seed {seed}; "
                "send subject, difficulty, count and seed as when the quiz was made"
            )
        if answer["id"] in answered:
            raise InvalidInputError(f"/answers/{number}/id: {answer['id']!r} is answered twice")
        answered.add(answer["id"])
