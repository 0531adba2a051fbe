"""The quiz: the same for the same seed, graded by letter or text, and its scores feed the feedback."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import worker
from shared.catalogue.agent_catalogue import AgentCatalogue
from worker.agent_errors import InvalidInputError

Run = Callable[[str, dict[str, Any]], dict[str, Any]]
BANK = json.loads((Path(worker.__file__).parent / "agents/vedic_quiz_agent/questions.json").read_text())


@pytest.fixture
def quiz(run_agent: Run) -> Callable[..., dict[str, Any]]:
    return lambda **given: run_agent("vedic_quiz_agent", given)


Quiz = Callable[..., dict[str, Any]]


def test_the_bank_has_five_questions_of_each_kind_each_once() -> None:
    kinds = Counter((entry["subject"], entry["difficulty"]) for entry in BANK)
    assert (len(kinds), set(kinds.values())) == (12, {5})
    for name in ("id", "question"):
        assert len({entry[name] for entry in BANK}) == len(BANK)
    assert all(len({entry["correct"], *entry["wrong"]}) == 4 for entry in BANK)


def test_a_seed_gives_one_quiz_and_another_seed_another(quiz: Quiz) -> None:
    assert quiz(seed=1, count=10) == quiz(seed=1, count=10)
    ids = [[entry["id"] for entry in quiz(seed=seed, count=10)["questions"]] for seed in (1, 2)]
    assert ids[0] != ids[1]
    assert quiz()["notes"] == ["The input has no seed: 0 was used, which always gives this quiz."]


def test_the_right_letter_is_none_in_particular() -> None:
    from worker.agents.vedic_quiz_agent.agent import _with_options

    letters = Counter(_with_options(entry, 5)["letter"] for entry in BANK)
    assert all(letters[letter] >= 8 for letter in "ABCD")


def test_the_subject_and_difficulty_are_those_requested_and_solutions_only_on_request(quiz: Quiz) -> None:
    output = quiz(subject="mathematics", difficulty="hard", count=3, seed=0)
    assert {(entry["subject"], entry["difficulty"]) for entry in output["questions"]} == {("mathematics", "hard")}
    assert not {"letter", "explanation", "correct"} & set(output["questions"][0])
    assert "letter" in quiz(with_solutions=True)["questions"][0]


def test_a_bank_with_too_few_questions_is_told(quiz: Quiz) -> None:
    output = quiz(subject="vedas", difficulty="easy", count=50, seed=0)
    assert len(output["questions"]) == output["available"] == 5
    assert output["notes"] == ["The bank has 5 questions of this kind, and 50 were requested."]


def test_answers_are_graded_by_letter_or_text_and_give_scores_by_subject(quiz: Quiz) -> None:
    made = quiz(count=8, seed=3, with_solutions=True)["questions"]
    text_of = {entry["id"]: {option["letter"]: option["text"] for option in entry["options"]} for entry in made}
    answers = [{"id": entry["id"], "answer": entry["letter"].lower()} for entry in made[:3]]
    answers.append({"id": made[3]["id"], "answer": f" {text_of[made[3]['id']][made[3]['letter']].upper()} "})
    answers.append({"id": made[4]["id"], "answer": "A" if made[4]["letter"] != "A" else "B"})
    answers.append({"id": made[5]["id"], "answer": "perhaps"})
    output = quiz(count=8, seed=3, answers=answers, date="2026-01-05", student="Asha")
    grading = output["grading"]
    assert (grading["correct"], grading["of"], grading["percent"], grading["unanswered"]) == (4, 8, 50, 2)
    assert [result["is_option"] for result in grading["results"]] == [True] * 5 + [False] * 3
    assert sum(score["score"] for score in output["scores"]) == 4
    assert {score["subject"]: score["max"] for score in output["scores"]} == Counter(e["subject"] for e in made)
    assert {(score["student"], score["date"]) for score in output["scores"]} == {("Asha", "2026-01-05")}


def test_the_scores_feed_the_feedback_also_without_answers(quiz: Quiz, run_agent: Run) -> None:
    assert "answer a quiz" in run_agent("gurukul_feedback", quiz())["summary"]
    earlier = [{"subject": "vedas", "date": "2026-01-05", "score": 90}]
    assert run_agent("gurukul_feedback", quiz(scores=earlier))["feedback"][0]["level"] == "strong"


@pytest.mark.parametrize(
    ("answers", "date", "fault"),
    [
        ([{"id": "ved-99", "answer": "A"}], "2026-01-05", "'ved-99' is not in this quiz of seed 0; send subject"),
        ([{"id": "FIRST", "answer": "A"}] * 2, "2026-01-05", "answered twice"),
        ([], "2026-02-30", "/date: '2026-02-30' is not a day"),
    ],
)
def test_answers_that_do_not_belong_to_the_quiz_are_refused(
    quiz: Quiz, answers: list[dict[str, str]], date: str, fault: str
) -> None:
    first = quiz()["questions"][0]["id"]
    answers = [answer | {"id": answer["id"].replace("FIRST", first)} for answer in answers]
    with pytest.raises(InvalidInputError, match=fault):
        quiz(answers=answers, date=date)


@pytest.mark.parametrize("given", [{"answers": []}, {"subject": "veda"}, {"count": 0}, {"seed": -1}, {"count": 51}])
def test_the_schema_refuses_misspelt_and_missing_fields(catalogue: AgentCatalogue, given: dict[str, Any]) -> None:
    assert catalogue.find_input_faults("vedic_quiz_agent", given)
