"""Finds scores that lie far from the others of the same student and subject; it uses only its input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from worker.agent_parts.score_series import OUTLIER_POINTS_MIN, Score, ScoreSeries, find_outliers, group_scores
from worker.context import AgentContext

THRESHOLD_DEFAULT: Final = 3.5
DIFFERENCE_MIN_DEFAULT: Final = 5


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{"anomalies": [...], judged, not_judged, ...}``; directions in ``trends`` are passed on."""
    threshold = given.get("threshold", THRESHOLD_DEFAULT)
    difference_min = given.get("min_difference", DIFFERENCE_MIN_DEFAULT)
    all_series = group_scores(given["scores"])
    anomalies = [
        _describe(series, *outlier)
        for series in all_series
        for outlier in find_outliers(series, threshold, difference_min)
    ]
    short = [series for series in all_series if len(series.scores) < OUTLIER_POINTS_MIN]
    ctx.log("looked for outliers", scores=len(given["scores"]), anomalies=len(anomalies))
    return {
        "anomalies": anomalies,
        "judged": len(given["scores"]) - sum(len(series.scores) for series in short),
        "not_judged": [
            {
                **series.names(),
                "count": len(series.scores),
                "reason": f"fewer than {OUTLIER_POINTS_MIN} scores do not show what is usual",
            }
            for series in short
        ],
        "threshold": threshold,
        "min_difference": difference_min,
        "basis": "Each score is compared with the median of its student and subject, in units of the median absolute "
        "deviation (times 1.4826); where that is 0, of the mean absolute deviation (times 1.2533).",
        **({"trends": [_direction(trend) for trend in given["trends"]]} if "trends" in given else {}),
    }


def _direction(trend: Mapping[str, Any]) -> dict[str, Any]:
    return {name: trend.get(name) for name in ("student", "subject", "direction")}


def _describe(series: ScoreSeries, score: Score, median: float, deviations: float, method: str) -> dict[str, Any]:
    kind = "high" if deviations > 0 else "low"
    side = "above" if deviations > 0 else "below"
    distance = round(abs(score.percent - median), 2)
    return {
        **series.names(),
        "number": score.number,
        "date": score.day.isoformat(),
        "score": score.score,
        "max": score.maximum,
        "percent": round(score.percent, 2),
        "median": round(median, 2),
        "modified_z": round(deviations, 2),
        "kind": kind,
        "reason": f"{score.percent:.4g} % is {distance:g} percentage points {side} the median of {median:.4g} %, "
        f"{abs(deviations):.3g} times the usual spread ({method})",
    }
