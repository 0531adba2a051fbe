"""Grades the answers to a quiz, and makes a score for each subject."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def grade(questions: Sequence[Mapping[str, Any]], answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``{correct, of, percent, unanswered, results}``; a question without an answer counts as wrong.

    An answer is an option's letter or its text, in capitals or not.
    """
    answer_by_id = {answer["id"]: answer["answer"] for answer in answers}
    results = [_grade_one(question, answer_by_id.get(question["id"])) for question in questions]
    correct = sum(result["is_correct"] for result in results)
    return {
        "correct": correct,
        "of": len(results),
        "percent": round(100 * correct / len(results), 1) if results else None,
        "unanswered": sum(result["answer"] is None for result in results),
        "results": results,
    }


def _grade_one(question: Mapping[str, Any], answer: str | None) -> dict[str, Any]:
    said = (answer or "").strip().casefold()
    return {
        "id": question["id"],
        "subject": question["subject"],
        "answer": answer,
        "is_option": said in {text.casefold() for option in question["options"] for text in option.values()},
        "is_correct": said in (question["letter"].casefold(), question["correct"].casefold()),
        "letter": question["letter"],
        "correct_answer": question["correct"],
        "explanation": question["explanation"],
    }


def scores_of(results: Iterable[Mapping[str, Any]], day: str, student: str | None) -> list[dict[str, Any]]:
    """Return one score for each subject: how many of its questions were answered rightly."""
    right: dict[str, list[bool]] = {}
    for result in results:
        right.setdefault(result["subject"], []).append(result["is_correct"])
    named = {"student": student} if student is not None else {}
    return [
        {**named, "subject": subject, "date": day, "score": sum(marks), "max": len(marks)}
        for subject, marks in sorted(right.items())
    ]
