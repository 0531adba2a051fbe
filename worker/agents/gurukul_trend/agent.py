"""Finds the trend of scores in time for each student and subject, by robust statistics; it uses only its input."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import Any, Final

from worker.agent_parts.robust_statistics import TREND_POINTS_MIN
from worker.agent_parts.score_series import ScoreSeries, direction_of, group_scores
from worker.agent_parts.whole_numbers import with_integers
from worker.context import AgentContext

WINDOW_DEFAULT: Final = 3
SLOPE_DAYS: Final = 30


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{"trends": [one for each student and subject], window, basis}``."""
    given = with_integers(given)
    window = given.get("window", WINDOW_DEFAULT)
    trends = [_trend(series, window) for series in group_scores(given["scores"])]
    ctx.log("found the trends", scores=len(given["scores"]), series=len(trends))
    return {
        "trends": trends,
        "window": window,
        "basis": f"{len(given['scores'])} scores as percentages of their max, in the order of their dates; a direction "
        f"is told from {TREND_POINTS_MIN} scores on and if its confidence is at least 0.9.",
    }


def _trend(series: ScoreSeries, window: int) -> dict[str, Any]:
    trend, percents = series.trend(), series.percents
    averages = _moving_averages(percents, window)
    return {
        **series.names(),
        "count": len(percents),
        "first_date": series.scores[0].day.isoformat(),
        "last_date": series.scores[-1].day.isoformat(),
        "mean": round(fmean(percents), 2),
        "median": round(median(percents), 2),
        "latest": round(percents[-1], 2),
        "direction": direction_of(trend, percents),
        "slope_per_30_days": None if trend.slope is None else round(trend.slope * SLOPE_DAYS, 2),
        "confidence": None if trend.confidence is None else round(trend.confidence, 3),
        "method": trend.method,
        "moving_average": [
            {"date": score.day.isoformat(), "percent": round(score.percent, 2), "average": round(average, 2)}
            for score, average in zip(series.scores, averages, strict=True)
        ],
    }


def _moving_averages(percents: Sequence[float], window: int) -> list[float]:
    """Return for each score the mean of it and of the ones before it, ``window`` at most."""
    return [fmean(percents[max(0, at + 1 - window) : at + 1]) for at in range(len(percents))]
