"""Lists which services of a vehicle are due by distance and time, by the table in ``intervals.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

import orjson

from worker.agent_errors import InvalidInputError
from worker.agent_parts.iso_dates import parse_date
from worker.agent_parts.whole_numbers import with_integers
from worker.context import AgentContext

from .service_item import STATUSES, Item, Now, Service, judge

_TABLE: Final[dict[str, Any]] = orjson.loads((Path(__file__).parent / "intervals.json").read_bytes())
_KM_PER_MILE: Final = 1.609344
FUEL_DEFAULT: Final = "petrol"


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{due: [each service, the most urgent first], next, today, notes, ...}``."""
    given = with_integers(given)
    vehicle, units = given["vehicle_data"], given.get("units", "metric")
    services = _services_of(given.get("services", ()))
    today, today_from = _today_of(given, services)
    now = Now(today, vehicle.get("mileage"), date(vehicle["year"], 1, 1))
    _check_past(services, now)
    fuel = vehicle.get("fuel", FUEL_DEFAULT)
    due = [judge(item, services, now) for item in _items_of(given, fuel, units)]
    due.sort(key=lambda entry: (STATUSES.index(entry["status"]), -(entry["urgency"] or 0)))
    unrecorded = sum(entry["status"] == "no_record" for entry in due)
    overdue = [entry["title"] for entry in due if entry["status"] == "overdue"]
    ctx.log("judged the services", services=len(services), overdue=len(overdue))
    return {
        "due": due,
        "overdue": len(overdue),
        "no_record": unrecorded,
        "summary": f"{len(overdue)} of {len(due)} services are overdue"
        + (f", first: {overdue[0]}" if overdue else "")
        + (
            f"; {unrecorded} more would be, but the list does not have them: look into the service book."
            if unrecorded
            else "."
        ),
        "today": today.isoformat() if today else None,
        "today_from": today_from,
        "units": {"distance": "km" if units == "metric" else "mi"},
        "fuel": fuel,
        "notes": list(_notes(vehicle, today_from, due)),
        "basis": "Usual intervals of passenger cars, whichever of distance and time comes first; a service that is not "
        "in the list counts from the vehicle's first day, 1 January of its year. The handbook comes first.",
    }


def _services_of(entries: Iterable[Mapping[str, Any]]) -> list[Service]:
    return [
        Service(
            number,
            entry["type"],
            parse_date(entry["date"], f"/services/{number}/date") if "date" in entry else None,
            entry.get("mileage"),
        )
        for number, entry in enumerate(entries)
    ]


def _today_of(given: Mapping[str, Any], services: Iterable[Service]) -> tuple[date | None, str]:
    if "today" in given:
        return parse_date(given["today"], "/today"), "input"
    days = [service.day for service in services if service.day]
    return (max(days), "the last service") if days else (None, "nothing")


def _check_past(services: Iterable[Service], now: Now) -> None:
    for service in services:
        if service.day and now.today and service.day > now.today:
            raise InvalidInputError(f"/services/{service.number}/date: {service.day} is after today, {now.today}")
        if service.mileage is not None and now.mileage is not None and service.mileage > now.mileage:
            raise InvalidInputError(
                f"/services/{service.number}/mileage: {service.mileage:g} is above the vehicle's, {now.mileage:g}"
            )


def _items_of(given: Mapping[str, Any], fuel: str, units: str) -> Iterable[Item]:
    own = {interval["type"]: interval for interval in given.get("intervals", ())}
    for entry in _TABLE["items"]:
        if fuel not in entry["fuels"]:
            continue
        distance, months = entry["distance_km"], entry["months"]
        if distance is not None and units != "metric":
            distance = round(distance / _KM_PER_MILE)
        if entry["type"] in own:
            distance, months = own[entry["type"]].get("distance"), own[entry["type"]].get("months")
        yield Item(entry["type"], entry["title"], distance, months)


def _notes(vehicle: Mapping[str, Any], today_from: str, due: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    if today_from != "input":
        used = "the date of the last service was used" if today_from != "nothing" else "nothing was judged by time"
        yield f"The input has no today: {used}."
    if "mileage" not in vehicle:
        yield "The vehicle has no mileage: nothing was judged by distance."
    if "fuel" not in vehicle:
        yield f"The vehicle has no fuel: {FUEL_DEFAULT} was assumed."
    if new := [entry["type"] for entry in due if entry["since"] == "new"]:
        yield f"Without an earlier service, counted from the first day: {', '.join(new)}."
