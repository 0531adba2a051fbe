"""The report of a check: the outcome of each check with a detail that a person can act on, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from textwrap import indent
from typing import Any, Final

_WIDTH: Final = 8


class Outcome(StrEnum):
    """What a check found; ``SKIPPED`` means that it could not be made, and its detail says why."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check; ``detail`` has one or several lines."""

    name: str
    outcome: Outcome
    detail: str = ""

    @classmethod
    def of(cls, name: str, faults: Iterable[str], if_passed: str = "") -> CheckResult:
        """Return a check that failed with these faults, or that passed if there are none."""
        detail = "\n".join(faults)
        return cls(name, Outcome.FAILED, detail) if detail else cls(name, Outcome.PASSED, if_passed)

    @property
    def passed(self) -> bool:
        """Return whether it was made and found no fault."""
        return self.outcome is Outcome.PASSED


@dataclass(frozen=True, slots=True)
class IntegrationReport:
    """All checks of one integration, in the order in which they were made."""

    name: str
    url: str
    checks: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Return whether no check failed; a skipped one does not count."""
        return all(check.outcome is not Outcome.FAILED for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Return the report as an object that ``json.dumps`` can write."""
        checks = [
            {"name": check.name, "outcome": check.outcome.value, "detail": check.detail.splitlines()}
            for check in self.checks
        ]
        return {"name": self.name, "url": self.url, "passed": self.passed, "checks": checks}

    def as_text(self) -> str:
        """Return the report for people: one line for each check, its detail below it."""
        counts = Counter(check.outcome for check in self.checks)
        summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
        lines = [f"{self.name} against {self.url}"]
        for check in self.checks:
            mark = check.outcome.upper() if check.outcome is Outcome.FAILED else check.outcome
            lines.append(f"  {mark:<{_WIDTH}}{check.name}")
            if check.detail:
                lines.append(indent(check.detail, " " * (_WIDTH + 4)))
        verdict = "The checks found no fault" if self.passed else "The integration does not pass"
        return "\n".join([*lines, f"{verdict}: {summary}."])
