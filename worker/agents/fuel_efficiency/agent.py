"""Computes consumption from fill-ups: for each stretch, the average, the trend, outliers and the cost of a distance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import fsum
from typing import Any, Final

from worker.agent_errors import InvalidInputError
from worker.agent_parts.robust_statistics import spread_of, trend_of
from worker.context import AgentContext

_UNITS: Final = {
    "metric": {"distance": "km", "volume": "l", "consumption": "l/100 km"},
    "us": {"distance": "mi", "volume": "US gal", "consumption": "mpg (US)"},
    "imperial": {"distance": "mi", "volume": "imp gal", "consumption": "mpg (imperial)"},
}
OUTLIER_STRETCHES_MIN: Final = 5
OUTLIER_SPREADS: Final = 3.5
OUTLIER_PART: Final = 0.1
CONFIDENCE_MIN: Final = 0.9
SLOPE_DISTANCE: Final = 1000
DISTANCE_MIN: Final = 0.1


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{stretches, average, trend, outliers, cost_per_distance, ...}`` in the declared units."""
    units = given.get("units", "metric")
    fill_ups = _checked(given["fill_ups"], units)
    stretches = list(_stretches(fill_ups, units))
    outliers = _mark_outliers(stretches)
    distance = fsum(stretch["distance"] for stretch in stretches)
    volume = fsum(stretch["volume"] for stretch in stretches)
    ctx.log("computed the consumption", fill_ups=len(fill_ups), stretches=len(stretches), outliers=len(outliers))
    return {
        "stretches": _rounded(stretches),
        "average": _rounded(_consumption(distance, volume, units)) if distance else None,
        "distance": _rounded(distance),
        "volume": _rounded(volume),
        "trend": _rounded(_trend(stretches, units)),
        "outliers": _rounded(outliers),
        "cost_per_distance": _rounded(_cost_per_distance(stretches)),
        "units": _UNITS[units],
        "notes": list(_notes(given, fill_ups, stretches)),
        "basis": "From one full tank to the next: what was filled in after the first, divided by the distance. The "
        "average is all fuel over all distance, not the mean of the stretches.",
    }


def _checked(fill_ups: Sequence[Mapping[str, Any]], units: str) -> list[dict[str, Any]]:
    """Return ``[{odometer, volume, price, full}]``; raises InvalidInputError for wrong units or order."""
    name, other = ("litres", "gallons") if units == "metric" else ("gallons", "litres")
    checked: list[dict[str, Any]] = []
    for number, entry in enumerate(fill_ups):
        if name not in entry or other in entry:
            found = f"has {other}" if other in entry else f"has no {name}"
            raise InvalidInputError(f"/fill_ups/{number} {found}: with units {units!r} it needs {name} alone")
        if checked and entry["odometer"] < checked[-1]["odometer"]:
            raise InvalidInputError(
                f"/fill_ups/{number}/odometer: {entry['odometer']:g} is below the one before, "
                f"{checked[-1]['odometer']:g}; list the fill-ups in the order of time"
            )
        checked.append(
            {
                "odometer": entry["odometer"],
                "volume": entry[name],
                "price": entry.get("price"),
                "full": entry.get("full", True),
            }
        )
    return checked


def _stretches(fill_ups: Iterable[Mapping[str, Any]], units: str) -> Iterator[dict[str, Any]]:
    """Yield each stretch from a full tank to the next; fill-ups at the same odometer are taken together."""
    begin: float | None = None
    volumes: list[float] = []
    prices: list[float | None] = []
    for fill_up in fill_ups:
        if begin is not None:
            volumes.append(fill_up["volume"])
            prices.append(fill_up["price"])
        if not fill_up["full"] or (begin is not None and fill_up["odometer"] - begin < DISTANCE_MIN):
            continue
        if begin is not None:
            distance, volume = fill_up["odometer"] - begin, fsum(volumes)
            yield {
                "from": begin,
                "to": fill_up["odometer"],
                "distance": distance,
                "volume": volume,
                "consumption": _consumption(distance, volume, units),
                "cost": None if None in prices else fsum(price for price in prices if price is not None),
                "outlier": False,
            }
        begin, volumes, prices = fill_up["odometer"], [], []


def _consumption(distance: float, volume: float, units: str) -> float:
    return 100 * volume / distance if units == "metric" else distance / volume


def _mark_outliers(stretches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(stretches) < OUTLIER_STRETCHES_MIN:
        return []
    spread = spread_of([stretch["consumption"] for stretch in stretches])
    outliers = []
    for stretch in stretches:
        deviations = spread.deviations_of(stretch["consumption"])
        difference = stretch["consumption"] / spread.median - 1
        if deviations is not None and abs(deviations) > OUTLIER_SPREADS and abs(difference) >= OUTLIER_PART:
            stretch["outlier"] = True
            outliers.append(
                {
                    "from": stretch["from"],
                    "to": stretch["to"],
                    "consumption": stretch["consumption"],
                    "reason": f"{abs(difference):.0%} {'above' if difference > 0 else 'below'} the median of "
                    f"{spread.median:.3g}; a fill-up that is missing, or a tank that was not full, looks like this too",
                }
            )
    return outliers


def _trend(stretches: Sequence[Mapping[str, Any]], units: str) -> dict[str, Any]:
    trend = trend_of([(stretch["to"], stretch["consumption"]) for stretch in stretches])
    direction = "unclear"
    if trend.slope and trend.confidence is not None and trend.confidence >= CONFIDENCE_MIN:
        # Fewer litres are better, more miles to a gallon are too.
        direction = "improving" if (trend.slope < 0) == (units == "metric") else "worsening"
    return {
        "direction": direction,
        "slope_per_1000": None if trend.slope is None else trend.slope * SLOPE_DISTANCE,
        "confidence": trend.confidence,
        "method": trend.method,
    }


def _cost_per_distance(stretches: Iterable[Mapping[str, Any]]) -> float | None:
    priced = [stretch for stretch in stretches if stretch["cost"] is not None]
    distance = fsum(stretch["distance"] for stretch in priced)
    return fsum(stretch["cost"] for stretch in priced) / distance if distance else None


def _notes(
    given: Mapping[str, Any], fill_ups: Sequence[Mapping[str, Any]], stretches: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    if "units" not in given:
        yield "The input has no units: metric was assumed."
    if not stretches:
        yield "A consumption needs two fill-ups to a full tank with a distance between them."
    elif unpriced := sum(stretch["cost"] is None for stretch in stretches):
        yield f"{unpriced} of {len(stretches)} stretches have a fill-up without a price and are not in the cost."
    first, last = (stretches[0]["from"], stretches[-1]["to"]) if stretches else (0, 0)
    if stretches and any(not first <= fill_up["odometer"] <= last for fill_up in fill_ups):
        yield "Fill-ups before the first full tank, or after the last, are not in the figures."


def _rounded(value: Any) -> Any:
    """Round every number once, at the end, to four places."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: _rounded(child) for name, child in value.items()}
    return [_rounded(child) for child in value] if isinstance(value, list) else value
