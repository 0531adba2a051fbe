"""Trends, outliers and feedback of scores: values that were computed by hand, and inputs that have no answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

from shared.catalogue.agent_catalogue import AgentCatalogue
from worker.agent_errors import InvalidInputError
from worker.agent_parts.robust_statistics import ALL_PAIRS, HALF_PAIRS, spread_of, trend_of

Run = Callable[[str, dict[str, Any]], dict[str, Any]]
AGENTS = ["gurukul_trend", "gurukul_anomaly", "gurukul_feedback"]
MONDAY = date(2026, 1, 5)


def weekly(*scores: float, **more: Any) -> list[dict[str, Any]]:
    days = [(MONDAY + timedelta(weeks=number)).isoformat() for number in range(len(scores))]
    return [{"date": day, "score": score, **more} for day, score in zip(days, scores, strict=True)]


def test_the_slope_is_the_median_of_the_slopes_of_all_pairs() -> None:
    # The slopes are 1, 1, 1 of the first three; 17/3, 8, 14 with the last: the median of all six is (1 + 17/3) / 2.
    trend = trend_of([(0, 0), (1, 1), (2, 2), (3, 17)])
    assert trend.slope == pytest.approx((1 + 17 / 3) / 2)
    assert trend.method == ALL_PAIRS


def test_the_confidence_is_that_of_mann_and_kendall() -> None:
    # S = 6 of 6 pairs, variance 4 * 3 * 13 / 18 = 8.667, z = 5 / 2.944 = 1.698, two-sided p = 0.0895.
    assert trend_of([(0, 1), (1, 2), (2, 3), (3, 4)]).confidence == pytest.approx(0.9105, abs=1e-4)


def test_a_long_series_is_compared_by_the_pairs_half_of_it_apart() -> None:
    trend = trend_of([(float(x), 2.0 * x) for x in range(201)])
    assert (trend.method, trend.slope) == (HALF_PAIRS, 2.0)
    # 100 pairs rise of 100: z = 99 / 10.
    assert trend.confidence == pytest.approx(1)


@pytest.mark.parametrize("points", [[], [(0, 1)], [(0, 1), (1, 2), (2, 3)], [(5, 1), (5, 2), (5, 3), (5, 4)]])
def test_a_series_without_a_trend_has_no_slope(points: list[tuple[float, float]]) -> None:
    trend = trend_of(points)
    assert (trend.slope, trend.confidence) == (None, None)


def test_the_spread_is_the_median_deviation_or_else_the_mean_one() -> None:
    assert spread_of([1, 2, 3, 4, 100]).spread == pytest.approx(1.482602)  # deviations 2 1 0 1 97
    half_equal = spread_of([5, 5, 5, 10])
    assert half_equal.spread == pytest.approx(1.25 * 1.253314)
    assert half_equal.method == "mean absolute deviation"
    assert spread_of([5, 5]).deviations_of(5) is None


def test_a_trend_has_its_direction_average_and_slope(run_agent: Run) -> None:
    (trend,) = run_agent("gurukul_trend", {"scores": weekly(50, 57, 64, 71, max=100)[::-1], "window": 2})["trends"]
    assert (trend["direction"], trend["slope_per_30_days"], trend["confidence"]) == ("rising", 30, 0.911)
    assert [entry["average"] for entry in trend["moving_average"]] == [50, 53.5, 60.5, 67.5]
    assert (trend["first_date"], trend["last_date"], trend["latest"]) == ("2026-01-05", "2026-01-26", 71)


@pytest.mark.parametrize(
    ("scores", "direction"),
    [((70, 70, 70, 70), "flat"), ((90, 80, 70, 60), "falling"), ((70, 50, 80, 60), "unclear"), ((1, 2, 3), "unclear")],
)
def test_a_direction_is_told_only_if_it_is_sure(run_agent: Run, scores: tuple[float, ...], direction: str) -> None:
    (trend,) = run_agent("gurukul_trend", {"scores": weekly(*scores)})["trends"]
    assert trend["direction"] == direction


def test_series_are_apart_by_student_and_subject_and_percentages_by_max(run_agent: Run) -> None:
    scores = [*weekly(5, max=10, student="B"), *weekly(9, max=10, student="A"), *weekly(30, subject="x")]
    trends = run_agent("gurukul_trend", {"scores": scores})["trends"]
    assert [(t["student"], t["subject"], t["latest"]) for t in trends] == [
        (None, "x", 30), ("A", None, 90), ("B", None, 50)
    ]  # fmt: skip


def test_an_outlier_is_told_with_its_reason(run_agent: Run) -> None:
    output = run_agent("gurukul_anomaly", {"scores": weekly(80, 82, 30, 81, 79)})
    (anomaly,) = output["anomalies"]
    # The median is 80, the deviations are 0 2 50 1 1 with the median 1: 50 / 1.4826.
    assert (anomaly["number"], anomaly["median"], anomaly["modified_z"], anomaly["kind"]) == (2, 80, -33.72, "low")
    assert "50 percentage points below the median of 80 %" in anomaly["reason"]


def test_a_point_of_difference_among_equal_scores_is_no_outlier(run_agent: Run) -> None:
    scores = weekly(80, 80, 80, 80, 80, 80, 81)
    assert run_agent("gurukul_anomaly", {"scores": scores})["anomalies"] == []
    assert len(run_agent("gurukul_anomaly", {"scores": scores, "min_difference": 0})["anomalies"]) == 1


def test_a_short_series_is_not_judged_and_that_is_told(run_agent: Run) -> None:
    output = run_agent("gurukul_anomaly", {"scores": weekly(80, 80, 10, 80, subject="x")})
    assert (output["anomalies"], output["judged"]) == ([], 0)
    assert [(entry["subject"], entry["count"]) for entry in output["not_judged"]] == [("x", 4)]


@pytest.mark.parametrize(("score", "level"), [(85, "strong"), (84.9, "good"), (70, "good"), (50, "fair"), (0, "low")])
def test_the_level_is_that_of_the_recent_scores(run_agent: Run, score: float, level: str) -> None:
    (feedback,) = run_agent("gurukul_feedback", {"scores": weekly(10, 99, score, score)})["feedback"]
    assert (feedback["level"], feedback["recent"]) == (level, score)


def test_feedback_uses_the_trends_and_anomalies_that_it_is_given(run_agent: Run) -> None:
    given: dict[str, Any] = {"scores": weekly(80, 80, 80, 80, 80, student="A")}
    alone = run_agent("gurukul_feedback", given)
    assert alone["based_on"] == {"scores": 5, "trends": "scores", "anomalies": "scores"}
    given["trends"] = [{"student": "A", "subject": None, "direction": "falling"}]
    given["anomalies"] = [{"student": "A", "subject": None, "date": "2026-01-12", "kind": "low"}]
    output = run_agent("gurukul_feedback", given)
    assert output["based_on"] == {"scores": 5, "trends": "input", "anomalies": "input"}
    assert "falling: find out" in output["feedback"][0]["text"]
    assert "Far below the usual: 2026-01-12" in output["feedback"][0]["text"]


def test_a_report_carries_trends_and_anomalies_to_the_feedback(run_agent: Run) -> None:
    scores = weekly(50, 55, 60, 65, 70, 75)
    trends = run_agent("gurukul_trend", {"scores": scores})
    anomalies = run_agent("gurukul_anomaly", trends | {"scores": scores})
    assert anomalies["trends"] == [{"student": None, "subject": None, "direction": "rising"}]
    feedback = run_agent("gurukul_feedback", anomalies | {"scores": scores})
    assert feedback["based_on"] == {"scores": 6, "trends": "input", "anomalies": "input"}


@pytest.mark.parametrize("name", AGENTS)
def test_no_scores_one_score_and_equal_scores_have_results(run_agent: Run, name: str) -> None:
    for scores in ([], weekly(0), weekly(*[0] * 9), [{"date": "2026-01-05", "score": 5, "max": 5}] * 9):
        run_agent(name, {"scores": scores})


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("students", [1, 50])
def test_ten_thousand_scores_are_judged(run_agent: Run, name: str, students: int) -> None:
    chance = random.Random(7)
    scores = [
        {"student": str(n % students), "date": (MONDAY + timedelta(n)).isoformat(), "score": chance.randint(0, 100)}
        for n in range(10_000)
    ]
    run_agent(name, {"scores": scores})


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize(
    ("scores", "fault"),
    [
        ([{"date": "2026-02-30", "score": 1}], "/scores/0/date: '2026-02-30' is not a day"),
        ([{"date": "2026-02-03", "score": 101}], "/scores/0: the score 101 is above its max, which is 100 because"),
        ([{"date": "2026-02-03", "score": 1, "student": str(n)} for n in range(2_001)], "2,001 pairs"),
    ],
)
def test_scores_that_cannot_be_are_refused(run_agent: Run, name: str, scores: list[Any], fault: str) -> None:
    with pytest.raises(InvalidInputError, match=fault):
        run_agent(name, {"scores": scores})


@pytest.mark.parametrize(
    "score", [{"score": 1}, {"date": "2026-01-05", "score": 1, "max": 0}, {"date": "5.1.2026", "score": 1}]
)
def test_the_schema_refuses_what_is_no_score(catalogue: AgentCatalogue, score: dict[str, Any]) -> None:
    assert all(catalogue.find_input_faults(name, {"scores": [score]}) for name in AGENTS)
