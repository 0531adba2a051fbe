"""Explains error codes and symptoms of a vehicle by the rule table in ``rules.json``; it uses only its input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from worker.agent_parts.whole_numbers import with_integers
from worker.context import AgentContext

from .trouble_codes import describe_unknown_code, is_trouble_code
from .vehicle_number import find_number_faults

_RULES: Final[dict[str, Any]] = orjson.loads((Path(__file__).parent / "rules.json").read_bytes())
_RULE_BY_CODE: Final = {code: rule for rule in _RULES["codes"] for code in rule["codes"]}
_SEVERITIES: Final = ("none", "unknown", "low", "medium", "high", "critical")
_DRIVING: Final = {
    "none": "Nothing of the input speaks against driving; no code and no symptom was recognised.",
    "unknown": "The codes are not in the table: have them read by a workshop of the make.",
    "low": "It can be driven; have it looked at with the next service.",
    "medium": "It can be driven with care; have it examined within some weeks.",
    "high": "Drive only as far as the workshop, without load and at low speed.",
    "critical": "Do not drive: stop and have it towed or examined where it stands.",
}
_NEGATIONS: Final = frozenset(("no", "not", "never", "without", "doesn't", "isn't"))


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{issues, severity, driving, recommendations, estimated_cost, warnings, ...}``, the worst first."""
    given = with_integers(given)
    vehicle = given["vehicle_data"]
    warnings = find_number_faults(vehicle["vin"])
    codes = list(dict.fromkeys(code.strip().upper() for code in vehicle["error_codes"]))
    issues = [_issue_of_code(code) for code in codes if is_trouble_code(code)]
    unread = [code for code in codes if not is_trouble_code(code)]
    warnings += [
        f"{code!r} is no trouble code: it has a letter P, B, C or U, a digit 0 to 3 and three digits or A to F"
        for code in unread
    ]
    unmatched = []
    for symptom in dict.fromkeys(vehicle["symptoms"]):
        matches = _issues_of_symptom(symptom)
        issues += matches
        if not matches:
            unmatched.append(symptom)
        elif words := _NEGATIONS.intersection(symptom.lower().split()):
            warnings.append(f"{symptom!r} has {min(words)!r} in it; symptoms are matched by their words alone")
    issues.sort(key=lambda issue: -_SEVERITIES.index(issue["severity"]))  # stable: codes before symptoms
    severity = issues[0]["severity"] if issues else "none"
    ctx.log("diagnosed", codes=len(codes), issues=len(issues), severity=severity)
    return {
        "vehicle": {name: vehicle[name] for name in ("vin", "make", "model", "year", "mileage") if name in vehicle},
        "issues": issues,
        "severity": severity,
        "driving": _DRIVING[severity],
        "recommendations": list(dict.fromkeys(issue["recommendation"] for issue in issues)),
        "estimated_cost": _cost_of(issues),
        "unread_codes": unread,
        "unmatched_symptoms": unmatched,
        "warnings": warnings,
        "basis": f"A table of {len(_RULE_BY_CODE)} generic codes and {len(_RULES['symptoms'])} symptoms. Nobody has "
        "seen the vehicle: a code names the circuit that reported, not the part that failed.",
    }


def _issue_of_code(code: str) -> dict[str, Any]:
    rule = _RULE_BY_CODE.get(code)
    if rule is None:
        return {
            "source": "code",
            "code": code,
            "known": False,
            "title": describe_unknown_code(code),
            "system": "unknown",
            "severity": "unknown",
            "causes": [],
            "recommendation": f"Look {code} up in the workshop manual of the make.",
            "cost": None,
        }
    is_one_cylinder = rule["title"] == "Misfire" and code != "P0300"
    title = f"Misfire of cylinder {int(code[3:])}" if is_one_cylinder else rule["title"]
    return {"source": "code", "code": code, "known": True, **_describe(rule), "title": title}


def _issues_of_symptom(symptom: str) -> list[dict[str, Any]]:
    text = " " + " ".join("".join(mark if mark.isalnum() or mark == "'" else " " for mark in symptom.lower()).split())
    return [
        {"source": "symptom", "symptom": symptom, "known": True, **_describe(rule)}
        for rule in _RULES["symptoms"]
        if any(all(f" {words}" in text for words in phrase.split("+")) for phrase in rule["phrases"])
    ]


def _describe(rule: Mapping[str, Any]) -> dict[str, Any]:
    repair = _RULES["repairs"][rule["repair"]]
    return {
        "title": rule["title"],
        "system": rule["system"],
        "severity": rule["severity"],
        "causes": rule["causes"],
        "recommendation": repair["advice"][0].upper() + repair["advice"][1:] + ".",
        "cost": {"low": repair["cost_low"], "high": repair["cost_high"]},
    }


def _cost_of(issues: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum each repair once, however many codes point to it."""
    repairs = {issue["recommendation"]: issue["cost"] for issue in issues if issue["cost"]}
    unknown = sum(issue["cost"] is None for issue in issues)
    return {
        "low": sum(cost["low"] for cost in repairs.values()),
        "high": sum(cost["high"] for cost in repairs.values()),
        "currency": _RULES["currency"],
        "repairs": len(repairs),
        "basis": "Rough figures for parts and labour if all of these repairs are needed, each counted once"
        + (f"; unknown codes that are not in them: {unknown}." if unknown else "."),
    }
