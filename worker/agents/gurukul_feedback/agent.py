"""Puts scores into words: level, trend and outliers of each student and subject; it uses only its input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, Final

from worker.agent_parts.score_series import (
    OUTLIER_POINTS_MIN,
    RECENT,
    ScoreSeries,
    direction_of,
    find_outliers,
    group_scores,
    recent_median,
)
from worker.context import AgentContext

LEVELS: Final = ((85, "strong"), (70, "good"), (50, "fair"), (0, "low"))
_ADVICE: Final = {
    "strong": "Go on to harder material, and explain what you know to others.",
    "good": "Look at what was missed each time, and repeat that first.",
    "fair": "Repeat the basics in short, regular sessions before something new begins.",
    "low": "Go back a step, and ask a teacher for help with the basics.",
}
_DIRECTIONS: Final = {
    "rising": "The scores are rising.",
    "falling": "The scores are falling: find out what has changed.",
    "flat": "The scores are all the same.",
    "unclear": "There is no clear trend.",
}
_THRESHOLD: Final = 3.5
_DIFFERENCE_MIN: Final = 5
DAYS_NAMED_MAX: Final = 3

Key = tuple[str | None, str | None]


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{"feedback": [one for each student and subject], summary, based_on}``.

    ``trends`` and ``anomalies`` of earlier steps are used if they are given, else computed from ``scores``.
    """
    directions = {_key(trend): trend["direction"] for trend in given.get("trends", ())}
    anomalies = _anomalies_by_series(given["anomalies"]) if "anomalies" in given else None
    feedback = [_feedback(series, directions, anomalies) for series in group_scores(given["scores"])]
    feedback.sort(key=lambda entry: entry["recent"])
    ctx.log("wrote the feedback", scores=len(given["scores"]), series=len(feedback))
    return {
        "feedback": feedback,
        "summary": _summarise(feedback),
        "based_on": {
            "scores": len(given["scores"]),
            "trends": "input" if "trends" in given else "scores",
            "anomalies": "input" if "anomalies" in given else "scores",
        },
    }


def _key(entry: Mapping[str, Any]) -> Key:
    return entry.get("student"), entry.get("subject")


def _anomalies_by_series(anomalies: Iterable[Mapping[str, Any]]) -> dict[Key, list[tuple[str, str]]]:
    found: dict[Key, list[tuple[str, str]]] = {}
    for anomaly in anomalies:
        found.setdefault(_key(anomaly), []).append((anomaly["date"], anomaly["kind"]))
    return found


def _feedback(
    series: ScoreSeries, directions: Mapping[Key, str], anomalies: Mapping[Key, list[tuple[str, str]]] | None
) -> dict[str, Any]:
    key = (series.student, series.subject)
    direction = directions.get(key) or direction_of(series.trend(), series.percents)
    outliers = _outliers_of(series) if anomalies is None else anomalies.get(key, [])
    recent = recent_median(series)
    level = next(word for minimum, word in LEVELS if recent >= minimum)
    return {
        **series.names(),
        "count": len(series.scores),
        "recent": round(recent, 2),
        "median": round(median(series.percents), 2),
        "level": level,
        "direction": direction,
        "text": " ".join(_sentences(series, level, direction, recent, outliers)),
    }


def _outliers_of(series: ScoreSeries) -> list[tuple[str, str]]:
    return [
        (score.day.isoformat(), "high" if deviations > 0 else "low")
        for score, _, deviations, _ in find_outliers(series, _THRESHOLD, _DIFFERENCE_MIN)
    ]


def _sentences(
    series: ScoreSeries, level: str, direction: str, recent: float, outliers: list[tuple[str, str]]
) -> Iterable[str]:
    count = len(series.scores)
    topic = f"{series.subject}: " if series.subject else ""
    if count == 1:
        yield f"{topic}{recent:.4g} % in the only score so far, which is {level}."
    else:
        yield f"{topic}{recent:.4g} % in the last {min(count, RECENT)} scores (their median), which is {level}."
    if count < OUTLIER_POINTS_MIN and direction == "unclear":
        yield "There are too few scores yet to see a trend."
    else:
        yield _DIRECTIONS[direction]
    low_days = [day for day, kind in outliers if kind == "low"]
    if low_days:
        more = len(low_days) - DAYS_NAMED_MAX
        days = ", ".join(low_days[:DAYS_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
        yield f"Far below the usual: {days}; look at what was different."
    yield _ADVICE[level]


def _summarise(feedback: list[dict[str, Any]]) -> str:
    if not feedback:
        return "There are no scores yet: answer a quiz or add scores to get feedback."
    counts = {word: sum(entry["level"] == word for entry in feedback) for _, word in LEVELS}
    parts = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    lowest = feedback[0]
    name = " in ".join(filter(None, (lowest["student"], lowest["subject"]))) or "the only series without a name"
    return f"{len(feedback)} series of scores: {parts}. The lowest is {name}, with {lowest['recent']:g} %."
