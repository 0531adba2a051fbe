"""The report: what it says to people and to programs."""

from __future__ import annotations

import json

from bucket_client.integration_check import CheckResult, IntegrationReport, Outcome

PASSED = CheckResult("samples", Outcome.PASSED, "2 accepted and completed")
SKIPPED = CheckResult("has timeouts", Outcome.SKIPPED, "it was not selected")
FAILED = CheckResult("hints are obeyed", Outcome.FAILED, "3 polls came too early\nplain: GET /x came 10 ms after")


def report(*checks: CheckResult) -> IntegrationReport:
    return IntegrationReport("nightly", "http://localhost:8000", checks)


def test_a_report_passes_unless_a_check_failed() -> None:
    assert report(PASSED, SKIPPED).passed
    assert not report(PASSED, SKIPPED, FAILED).passed


def test_a_check_is_one_line_with_its_detail_indented_below() -> None:
    assert report(PASSED, SKIPPED, FAILED).as_text() == (
        "nightly against http://localhost:8000\n"
        "  passed  samples\n"
        "            2 accepted and completed\n"
        "  skipped has timeouts\n"
        "            it was not selected\n"
        "  FAILED  hints are obeyed\n"
        "            3 polls came too early\n"
        "            plain: GET /x came 10 ms after\n"
        "The integration does not pass: 1 passed, 1 failed, 1 skipped."
    )


def test_as_json_a_detail_is_a_list_of_lines() -> None:
    document = json.loads(json.dumps(report(FAILED).as_json()))
    assert document["passed"] is False
    assert document["checks"] == [
        {
            "name": FAILED.name,
            "outcome": "failed",
            "detail": ["3 polls came too early", "plain: GET /x came 10 ms after"],
        }
    ]
