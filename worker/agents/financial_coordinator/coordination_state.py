"""How far a coordinate run is: what a checkpoint stores, of bounded size; figures and findings, never transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from worker.agent_errors import PermanentError

from .account_figures import CurrencyFigures, Figures
from .account_review import OVERALL_DETAIL, AccountFindings, currencies_report, json_bytes
from .cash_forecast import METHOD
from .recurring_payments import largest_in_a_year
from .transaction_reader import ReadingNotes

FORMAT: Final = 1
ACCOUNT_BYTES_MAX: Final = 12 * 1024
ACCOUNT_BYTES_MIN: Final = 450
REPORTS_BYTES_MAX: Final = 2_750_000
"""Of the 4 MiB of a checkpoint and of an output, with the accounts' names; the rest is for the figures of all."""
RECURRING_KEPT: Final = 20
_REASON_MAX: Final = 200


@dataclass(slots=True)
class CoordinationState:
    """The accounts of a run, how many of them are done, and what was found; ``deferred`` is tried again at the end."""

    accounts: list[str]
    next_index: int = 0
    deferred: list[str] = field(default_factory=list)
    """Accounts that failed for a reason that may pass."""
    reports: list[dict[str, Any]] = field(default_factory=list)
    overall: Figures = field(default_factory=Figures)
    recurring: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: ReadingNotes = field(default_factory=ReadingNotes)

    account_bytes_max: int = field(init=False)
    """The bytes that the report of one account may take."""

    def __post_init__(self) -> None:
        """Raise PermanentError if there are too many accounts for one report."""
        fair_share = (REPORTS_BYTES_MAX - json_bytes(self.accounts)) // max(len(self.accounts), 1)
        self.account_bytes_max = min(ACCOUNT_BYTES_MAX, fair_share)
        if self.account_bytes_max < ACCOUNT_BYTES_MIN:
            raise PermanentError(f"{len(self.accounts):,} accounts are too many for one report: coordinate fewer")

    @property
    def next_account(self) -> str | None:
        """The account to review now; None if all are done."""
        if self.next_index < len(self.accounts):
            return self.accounts[self.next_index]
        return self.deferred[0] if self.deferred else None

    @property
    def done_count(self) -> int:
        """How many accounts are in the report."""
        return len(self.reports)

    @property
    def reviewed_count(self) -> int:
        """How many accounts are in the report with figures."""
        return sum(report["status"] == "reviewed" for report in self.reports)

    @property
    def is_second_round(self) -> bool:
        """Whether only deferred accounts are left."""
        return self.next_index >= len(self.accounts)

    @property
    def reviewed_accounts(self) -> list[str]:
        """The accounts that are in the report with figures, in the order in which they were reviewed."""
        return [report["account"] or "" for report in self.reports if report["status"] == "reviewed"]

    def add_findings(self, findings: AccountFindings) -> None:
        """Add what was found of the present account; raises PermanentError if it cannot be added, and adds nothing."""
        self.overall.merge(findings.figures)
        for currency, payments in findings.recurring.items():
            largest = largest_in_a_year([*self.recurring.get(currency, ()), *map(dict, payments)])
            self.recurring[currency] = largest[:RECURRING_KEPT]
        self.notes.merge(findings.notes)
        self._finish(findings.account, findings.to_json(self.account_bytes_max))

    def add_failure(self, account: str, reason: str) -> None:
        """Put the present account into the report without figures, with the reason."""
        longest = min(_REASON_MAX, self.account_bytes_max // 4)
        self._finish(account, {"account": account or None, "status": "failed", "reason": reason[:longest]})

    def defer(self, account: str) -> None:
        """Try the present account of the first round again after all others."""
        self.next_index += 1
        self.deferred.append(account)

    def retry_failures(self) -> None:
        """Take the accounts that failed out of the report, to try them again after all others."""
        self.deferred += [report["account"] or "" for report in self.reports if report["status"] == "failed"]
        self.reports = [report for report in self.reports if report["status"] != "failed"]

    def _finish(self, account: str, report: dict[str, Any]) -> None:
        self.reports.append(report)
        if self.is_second_round:
            self.deferred.remove(account)
        else:
            self.next_index += 1

    def to_json(self) -> dict[str, Any]:
        """Return the state of a checkpoint."""
        return {
            "format": FORMAT,
            "accounts": self.accounts,
            "next_index": self.next_index,
            "deferred": self.deferred,
            "reports": self.reports,
            "overall": [figures.to_state() for figures in self.overall.currencies],
            "recurring": self.recurring,
            "notes": self.notes.to_json(),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> CoordinationState:
        """Build the state of a checkpoint."""
        return cls(
            accounts=raw["accounts"],
            next_index=raw["next_index"],
            deferred=raw["deferred"],
            reports=raw["reports"],
            overall=Figures(map(CurrencyFigures.from_state, raw["overall"])),
            recurring=raw["recurring"],
            notes=ReadingNotes.from_json(raw["notes"]),
        )

    def review(self, source: str) -> dict[str, Any]:
        """Return the review of all accounts, in the order in which they were given."""
        return {
            "source": source,
            "accounts_total": len(self.accounts),
            "accounts_reviewed": self.reviewed_count,
            "accounts_failed": self.done_count - self.reviewed_count,
            "forecast_method": METHOD,
            "overall": currencies_report(self.overall, self.recurring, OVERALL_DETAIL),
            "accounts": _in_order(self.reports, self.accounts),
            **self.notes.to_json(),
        }


def may_continue(raw: Mapping[str, Any] | None, wanted: Sequence[str] | None) -> bool:
    """Return whether a checkpoint is of this format and of the accounts that the input names, if it names any."""
    return raw is not None and raw.get("format") == FORMAT and wanted in (None, raw["accounts"])


def _in_order(reports: Sequence[dict[str, Any]], accounts: Sequence[str]) -> list[dict[str, Any]]:
    position = {account: index for index, account in enumerate(accounts)}
    return sorted(reports, key=lambda report: position[report["account"] or ""])
