"""The report: each figure of each side, and ratios of figures of one round."""

from __future__ import annotations

import pytest

from benchmarks.harness.measurements import Figures
from benchmarks.harness.report import MEASURES, OTHER_BUILD, REFERENCE, THIS_BUILD, Measure, print_report, ratios

ONE_CALL = next(measure for measure in MEASURES if measure.name == "one call runs/s")


def row(output: str, name: str) -> list[str]:
    """Return the cells of the row that begins with ``name``."""
    line = next(line for line in output.splitlines() if line.strip().startswith(name + "  "))
    return [cell.strip() for cell in line.strip().split("  ") if cell.strip()]


def two_rounds(first: Figures, second: Figures) -> list[Figures]:
    return [first, second]


def test_a_ratio_is_of_two_figures_of_one_round() -> None:
    """The rounds differ by a factor of ten, as on a machine that was busy in the second; the sides do not."""
    rounds = {
        REFERENCE: two_rounds({"accept/s": 1_000}, {"accept/s": 100}),
        THIS_BUILD: two_rounds({"accept/s": 2_000}, {"accept/s": 300}),
    }
    assert ratios(rounds, Measure("accept/s"), THIS_BUILD) == [2.0, 3.0]


def test_a_round_without_the_figure_or_with_nothing_to_divide_by_has_no_ratio() -> None:
    rounds = {
        REFERENCE: two_rounds({"refused": 0, "drain runs/s": 5}, {"refused": 2}),
        THIS_BUILD: two_rounds({"refused": 4, "drain runs/s": 10}, {"refused": 4, "drain runs/s": 10}),
    }
    assert ratios(rounds, Measure("refused"), THIS_BUILD) == [2.0]
    assert ratios(rounds, Measure("drain runs/s"), THIS_BUILD) == [2.0]


def test_one_call_is_compared_with_the_polled_submits_of_the_reference() -> None:
    rounds = {
        REFERENCE: [{"end to end runs/s": 100.0}],
        THIS_BUILD: [{"end to end runs/s": 110.0, "one call runs/s": 150.0}],
        OTHER_BUILD: [{"end to end runs/s": 100.0, "one call runs/s": 120.0}],
    }
    assert ratios(rounds, ONE_CALL, THIS_BUILD) == [1.5]
    assert ratios(rounds, ONE_CALL, THIS_BUILD, OTHER_BUILD) == [1.25]


def test_the_table_of_two_sides_has_both_and_their_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(
        {
            REFERENCE: two_rounds({"rest, % of a core": 0.4}, {"rest, % of a core": 0.8}),
            THIS_BUILD: two_rounds({"rest, % of a core": 3.0}, {"rest, % of a core": 4.0}),
        }
    )
    output = capsys.readouterr().out
    assert row(output, "rest, % of a core") == ["rest, % of a core", "0.60", "3.5", "6.25 (5.00 to 7.50)", "less"]
    assert "other build" not in output


def test_another_build_has_its_ratios_to_the_reference_and_from_this_build(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(
        {
            REFERENCE: [{"API PSS, MB": 100.0, "rest CPU in all": 10.0}],
            THIS_BUILD: [{"API PSS, MB": 150.0, "rest CPU in all": 40.0}],
            OTHER_BUILD: [{"API PSS, MB": 120.0, "rest CPU in all": 50.0}],
        }
    )
    output = capsys.readouterr().out
    ratios_of_this, ratios_of_other, between = ("1.50 (1.50 to 1.50)", "1.20 (1.20 to 1.20)", "1.25 (1.25 to 1.25)")
    cells = ["API PSS, MB", "100", "150", ratios_of_this, "120", ratios_of_other, between, "less"]
    assert row(output, "API PSS, MB") == cells
    at_rest = [line.split()[-2:] for line in output.splitlines() if line.strip().startswith("other build")][-1]
    assert at_rest == ["50", "5.00"]


def test_no_line_is_wrapped_with_wide_figures(capsys: pytest.CaptureFixture[str]) -> None:
    wide = {measure.name: 1_234_567.0 for measure in MEASURES}
    print_report({REFERENCE: [wide], THIS_BUILD: [wide], OTHER_BUILD: [wide]})
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.strip().startswith("lone caller p50 ms") and line.strip().endswith("less")]
