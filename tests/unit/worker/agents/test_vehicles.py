"""The agents for vehicles: codes and symptoms, due services, consumption; values that were computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.catalogue.agent_catalogue import AgentCatalogue
from worker.agent_errors import InvalidInputError

Run = Callable[[str, dict[str, Any]], dict[str, Any]]
VIN = "1M8GDM9AXKP042788"


@pytest.fixture
def diagnose(run_agent: Run) -> Callable[..., dict[str, Any]]:
    def run(*codes: str, symptoms: tuple[str, ...] = (), vin: str = VIN) -> dict[str, Any]:
        vehicle = {"vin": vin, "make": "x", "model": "y", "year": 2020}
        vehicle |= {"error_codes": list(codes), "symptoms": list(symptoms)}
        return run_agent("auto_diagnostics", {"vehicle_data": vehicle})

    return run


Diagnose = Callable[..., dict[str, Any]]


def test_a_known_code_has_its_rule_and_the_worst_comes_first(diagnose: Diagnose) -> None:
    output = diagnose("p0442", "P0303", "P0442")
    assert [(issue["code"], issue["severity"]) for issue in output["issues"]] == [("P0303", "high"), ("P0442", "low")]
    assert output["issues"][0]["title"] == "Misfire of cylinder 3"
    assert (output["severity"], output["warnings"]) == ("high", [])
    assert output["estimated_cost"] | {"basis": ""} == {
        "low": 60 + 80, "high": 450 + 450, "currency": "USD", "repairs": 2, "basis": ""
    }  # fmt: skip


def test_a_repair_is_counted_once_for_all_its_codes(diagnose: Diagnose) -> None:
    assert diagnose("P0300", "P0301", "P0302")["estimated_cost"]["high"] == 450


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("P1234", "powertrain (engine and transmission) that the manufacturer defines"),
        ("P0999", "that is the same for all makes; area: transmission"),
        ("P3456", "powertrain (engine and transmission) that is the same for all makes"),
        ("P3123", "that the manufacturer defines"),
        ("B1ABC", "body (airbags, comfort) that the manufacturer defines"),
        ("C2000", "chassis (brakes, steering) that the manufacturer defines"),
        ("C3000", "whose range C3 is reserved"),
        ("U3000", "network between the control units that is the same for all makes"),
    ],
)
def test_an_unknown_code_is_told_by_its_form(diagnose: Diagnose, code: str, words: str) -> None:
    (issue,) = diagnose(code)["issues"]
    assert (issue["known"], issue["severity"], issue["cost"]) == (False, "unknown", None)
    assert words in issue["title"]


def test_what_is_no_code_is_a_warning(diagnose: Diagnose) -> None:
    output = diagnose("P4000", "hello")
    assert (output["unread_codes"], len(output["warnings"]), output["issues"]) == (["P4000", "HELLO"], 2, [])
    assert output["severity"] == "none"


@pytest.mark.parametrize(
    ("symptom", "title"),
    [
        ("The brakes are squealing!", "Brakes make a noise"),
        ("Engine overheats uphill", "Engine gets too hot"),
        ("it won't start", "Engine does not start well"),
    ],
)
def test_a_symptom_is_matched_by_the_beginnings_of_its_words(diagnose: Diagnose, symptom: str, title: str) -> None:
    assert [issue["title"] for issue in diagnose(symptoms=(symptom,))["issues"]] == [title]


def test_a_symptom_without_a_rule_and_one_with_a_negation_are_told(diagnose: Diagnose) -> None:
    output = diagnose(symptoms=("the radio hums", "does not overheat"))
    assert output["unmatched_symptoms"] == ["the radio hums"]
    assert "'not' in it" in output["warnings"][0]


@pytest.mark.parametrize("vin", [VIN, "1" * 17, VIN.lower()])
def test_a_right_check_digit_gives_no_warning(diagnose: Diagnose, vin: str) -> None:
    assert diagnose(vin=vin)["warnings"] == []


@pytest.mark.parametrize(
    ("vin", "words"),
    [
        ("1M8GDM9A0KP042788", "check digit of the VIN is '0' and should be 'X'"),
        ("1M8GDM9AXKP042787", "should be"),
        ("123", "not 17 letters"),
        ("1M8GDM9AXKPO42788", "without I, O and Q"),
    ],
)
def test_a_wrong_number_is_a_warning(diagnose: Diagnose, vin: str, words: str) -> None:
    (warning,) = diagnose(vin=vin)["warnings"]
    assert words in warning


def due_of(output: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(entry for entry in output["due"] if entry["type"] == kind)


def test_a_service_is_due_by_whichever_comes_first(run_agent: Run) -> None:
    services = [
        {"type": "oil_change", "date": "2025-03-02", "mileage": 50_000},
        {"type": "oil_change", "date": "2023-03-02", "mileage": 30_000},
        {"type": "brake_inspection", "date": "2026-01-01", "mileage": 40_000},
    ]
    given = {"vehicle_data": {"year": 2020, "mileage": 63_500}, "services": services, "today": "2025-12-02"}
    with pytest.raises(InvalidInputError, match="/services/2/date: 2026-01-01 is after today"):
        run_agent("vehicle_maintenance", given)
    output = run_agent("vehicle_maintenance", given | {"today": "2026-01-02"})
    oil, brakes = due_of(output, "oil_change"), due_of(output, "brake_inspection")
    assert output["due"][0] == brakes
    # 23,500 of 20,000 km; oil: 13,500 of 15,000 km is 0.9, and 306 of 365 days is less.
    assert (brakes["status"], brakes["urgency"], brakes["by"]) == ("overdue", 1.175, "distance")
    assert (oil["status"], oil["urgency"], oil["distance_left"], oil["days_left"]) == ("due_soon", 0.9, 1500, 59)
    assert (oil["due_mileage"], oil["due_date"]) == (65_000, "2026-03-02")


def test_what_was_never_recorded_is_not_called_overdue(run_agent: Run) -> None:
    output = run_agent("vehicle_maintenance", {"vehicle_data": {"year": 2020, "mileage": 1}, "today": "2026-01-01"})
    assert (due_of(output, "brake_fluid")["status"], output["overdue"]) == ("no_record", 0)


def test_intervals_of_the_handbook_and_miles_are_used(run_agent: Run) -> None:
    given = {"vehicle_data": {"year": 2020, "mileage": 9_321, "fuel": "electric"}, "units": "us"}
    own = {"intervals": [{"type": "coolant", "months": 12}], "today": "2020-07-01"}
    output = run_agent("vehicle_maintenance", given | own)
    assert due_of(output, "brake_inspection")["due_mileage"] == 12_427  # 20,000 km
    assert (due_of(output, "coolant")["due_mileage"], due_of(output, "coolant")["due_date"]) == (None, "2021-01-01")
    assert "oil_change" not in {entry["type"] for entry in output["due"]}


def test_without_a_day_and_a_mileage_nothing_is_judged_and_that_is_told(run_agent: Run) -> None:
    output = run_agent("vehicle_maintenance", {"vehicle_data": {"year": 2020}})
    assert {entry["status"] for entry in output["due"]} == {"unknown"}
    assert (output["today"], output["today_from"]) == (None, "nothing")
    assert any("nothing was judged by time" in note for note in output["notes"])
    dated = {"vehicle_data": {"year": 2020}, "services": [{"type": "oil_change", "date": "2021-01-01"}]}
    assert run_agent("vehicle_maintenance", dated)["today_from"] == "the last service"


def test_a_service_beyond_the_mileage_is_refused(run_agent: Run) -> None:
    given = {"vehicle_data": {"year": 2020, "mileage": 10}, "services": [{"type": "coolant", "mileage": 11}]}
    with pytest.raises(InvalidInputError, match="/services/0/mileage: 11 is above the vehicle's, 10"):
        run_agent("vehicle_maintenance", given)


def fill_ups(*pairs: tuple[float, float], **more: Any) -> list[dict[str, Any]]:
    return [{"odometer": odometer, "litres": litres, **more} for odometer, litres in pairs]


def test_consumption_is_from_full_tank_to_full_tank(run_agent: Run) -> None:
    fills = fill_ups((1000, 40), (1400, 28), (1500, 5), (2000, 25), price=20)
    fills[2]["full"] = False
    output = run_agent("fuel_efficiency", {"fill_ups": fills})
    assert [(s["distance"], s["volume"], s["consumption"], s["cost"]) for s in output["stretches"]] == [
        (400, 28, 7, 20), (600, 30, 5, 40)
    ]  # fmt: skip
    assert (output["average"], output["cost_per_distance"]) == (5.8, 0.06)
    assert output["notes"] == ["The input has no units: metric was assumed."]


@pytest.mark.parametrize(("units", "unit"), [("us", "mpg (US)"), ("imperial", "mpg (imperial)")])
def test_miles_to_a_gallon(run_agent: Run, units: str, unit: str) -> None:
    fills = [{"odometer": 100, "gallons": 9}, {"odometer": 400, "gallons": 10}]
    output = run_agent("fuel_efficiency", {"fill_ups": fills, "units": units})
    assert (output["average"], output["units"]["consumption"]) == (30, unit)


@pytest.mark.parametrize(("units", "direction"), [("metric", "worsening"), ("us", "improving")])
def test_a_trend_has_the_direction_of_its_unit(run_agent: Run, units: str, direction: str) -> None:
    name = "litres" if units == "metric" else "gallons"
    volumes = [10, 11, 12, 13, 14] if units == "metric" else [14, 13, 12, 11, 10]
    fills = [{"odometer": 100 * n, name: volume} for n, volume in enumerate([1, *volumes])]
    assert run_agent("fuel_efficiency", {"fill_ups": fills, "units": units})["trend"]["direction"] == direction


def test_a_stretch_with_a_missing_fill_up_is_an_outlier(run_agent: Run) -> None:
    fills = fill_ups(*((500 * n, 30 + n % 3) for n in range(8)), (4500, 31))
    (outlier,) = run_agent("fuel_efficiency", {"fill_ups": fills})["outliers"]
    assert (outlier["from"], outlier["to"]) == (3500, 4500)
    assert "50% below the median" in outlier["reason"]


@pytest.mark.parametrize(
    "fills", [[], fill_ups((0, 1)), fill_ups((5, 1), (5, 1), (5, 2)), fill_ups((1, 1), (9, 1), full=False)]
)
def test_without_a_distance_there_is_no_average(run_agent: Run, fills: list[dict[str, Any]]) -> None:
    output = run_agent("fuel_efficiency", {"fill_ups": fills})
    assert (output["average"], output["stretches"], output["cost_per_distance"]) == (None, [], None)
    assert any("needs two fill-ups" in note for note in output["notes"])


@pytest.mark.parametrize(
    ("fills", "fault"),
    [
        ([{"odometer": 1, "gallons": 2}], "/fill_ups/0 has gallons: with units 'metric' it needs litres alone"),
        ([{"odometer": 1, "liters": 2}], "/fill_ups/0 has no litres"),
        (fill_ups((5, 1), (4, 1)), "/fill_ups/1/odometer: 4 is below the one before, 5"),
    ],
)
def test_fill_ups_that_cannot_be_are_refused(run_agent: Run, fills: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(InvalidInputError, match=fault):
        run_agent("fuel_efficiency", {"fill_ups": fills})


@pytest.mark.timeout(20)
def test_ten_thousand_fill_ups_are_computed(run_agent: Run) -> None:
    output = run_agent("fuel_efficiency", {"fill_ups": fill_ups(*((100 * n, 5 + n % 7) for n in range(10_000)))})
    assert len(output["stretches"]) == 9_999


def test_units_and_types_that_are_misspelt_are_refused(catalogue: AgentCatalogue) -> None:
    assert catalogue.find_input_faults("fuel_efficiency", {"fill_ups": [], "units": "meter"})[0].pointer == "/units"
    given = {"vehicle_data": {"year": 2020}, "services": [{"type": "oil_chance", "mileage": 1}]}
    assert catalogue.find_input_faults("vehicle_maintenance", given)[0].pointer == "/services/0/type"
